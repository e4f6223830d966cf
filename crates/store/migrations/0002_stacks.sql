-- Apps of several parts.

-- What the processes of their own source run, by process.
ALTER TABLE releases ADD COLUMN artifacts TEXT NOT NULL DEFAULT '{}';
-- The spec, sealed, where it holds values that somebody's configuration was filled into; `spec` says nothing then.
ALTER TABLE releases ADD COLUMN sealed_spec BLOB;

-- The stateful services that should run, each as the release describes it that brought it up.
CREATE TABLE services (
    app      TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    release  INTEGER NOT NULL CHECK (release > 0),
    -- The release that described it before: where a deployment that is undone leads back to.
    previous INTEGER,
    PRIMARY KEY (app, name)
) STRICT;
