-- The first schema. Moments are microseconds since 1970; texts in columns named after a model type are its JSON.
-- Blobs are sealed (see seal.rs).

CREATE TABLE server (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    owner     TEXT NOT NULL,
    -- A known text, sealed: tells whether the key at hand is the one that sealed everything else.
    key_check BLOB NOT NULL
) STRICT;

CREATE TABLE apps (
    name         TEXT PRIMARY KEY,
    active       INTEGER,
    -- The last release number that was given; it never goes back.
    last_release INTEGER NOT NULL DEFAULT 0,
    scale        TEXT NOT NULL DEFAULT '{}',
    created_at   INTEGER NOT NULL,
    -- An app's active release exists. Deferred, because an app and its releases go in one statement.
    FOREIGN KEY (name, active) REFERENCES releases (app, number) DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE config (
    app        TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    value      BLOB NOT NULL,
    secret     INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (app, name)
) STRICT;

CREATE TABLE releases (
    app        TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    number     INTEGER NOT NULL CHECK (number > 0),
    artifact   TEXT NOT NULL,
    spec       TEXT NOT NULL,
    origin     TEXT NOT NULL,
    env        BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (app, number)
) STRICT;

CREATE TABLE deployments (
    -- AUTOINCREMENT: an id is not given again after the history was cut.
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    app          TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    kind         TEXT NOT NULL,
    to_release   INTEGER NOT NULL,
    from_release INTEGER,
    phase        TEXT NOT NULL,
    outcome      TEXT,
    started_at   INTEGER NOT NULL,
    finished_at  INTEGER,
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
) STRICT;

-- At most one deployment of an app has not ended.
CREATE UNIQUE INDEX deployment_that_runs ON deployments (app) WHERE finished_at IS NULL;
CREATE INDEX deployments_by_app ON deployments (app, id);
