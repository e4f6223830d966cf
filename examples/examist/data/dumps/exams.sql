-- What the image of the database starts with.
CREATE DATABASE exp;
\connect exp
CREATE TABLE exam (id serial PRIMARY KEY, title text NOT NULL, year integer NOT NULL);
INSERT INTO exam (title, year) VALUES ('Discrete Mathematics', 2014), ('Compilers', 2015);
