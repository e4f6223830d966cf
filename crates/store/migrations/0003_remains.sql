-- Apps that were destroyed and of which an engine may still have something.

CREATE TABLE remains (
    app   TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT;
