-- People who may use the server, besides whoever administers it.

CREATE TABLE people (
    name       TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

-- What they may do. An empty app stands for every app that there is; an app need not be there yet.
CREATE TABLE grants (
    person TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
    app    TEXT NOT NULL,
    role   TEXT NOT NULL,
    PRIMARY KEY (person, app)
) STRICT;

-- What they prove themselves by: an SSH public key, or a token.
CREATE TABLE credentials (
    -- AUTOINCREMENT: a revoked token's number is not given again.
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    person       TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
    label        TEXT NOT NULL,
    -- Of a key: its SHA-256 fingerprint and its text.
    fingerprint  TEXT UNIQUE,
    key          TEXT,
    -- Of a token: its BLAKE3 digest. (It has 256 random bits: nothing slower is needed.)
    digest       BLOB,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    CHECK ((fingerprint IS NULL) = (key IS NULL) AND (key IS NULL) <> (digest IS NULL))
) STRICT;

CREATE INDEX credentials_by_person ON credentials (person);
