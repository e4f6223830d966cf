CREATE TABLE orders (
    id        INTEGER PRIMARY KEY,
    dish      TEXT NOT NULL,
    cooked_by TEXT
);
