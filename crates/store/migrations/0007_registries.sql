-- Registries: who one is to them, and what was fetched from them.

-- Who apps are to a registry. An empty app stands for every app of the server.
CREATE TABLE registry_logins (
    app        TEXT NOT NULL,
    host       TEXT NOT NULL,
    username   TEXT NOT NULL,
    -- Sealed.
    password   BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (app, host)
) STRICT;

-- The manifests that releases were described by, sealed: another app may take a release over with its own overlay.
CREATE TABLE manifests (
    app     TEXT NOT NULL,
    release INTEGER NOT NULL,
    text    BLOB NOT NULL,
    PRIMARY KEY (app, release),
    FOREIGN KEY (app, release) REFERENCES releases (app, number) ON DELETE CASCADE
) STRICT;

-- The images that were fetched for steps of pipelines, by the reference that steps name them by.
CREATE TABLE step_images (
    app       TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    reference TEXT NOT NULL,
    artifact  TEXT NOT NULL,
    -- The release that it was last used for.
    release   INTEGER NOT NULL CHECK (release > 0),
    PRIMARY KEY (app, reference)
) STRICT;
