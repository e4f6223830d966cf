-- Repositories at forges that apps are deployed from.

CREATE TABLE forges (
    app         TEXT PRIMARY KEY REFERENCES apps (name) ON DELETE CASCADE,
    -- What its webhook's path ends with: it names the app to the forge, and is hard to guess.
    hook        TEXT NOT NULL UNIQUE,
    forge       TEXT NOT NULL,
    url         TEXT NOT NULL,
    branch      TEXT NOT NULL,
    api         TEXT NOT NULL,
    -- What webhooks are signed with, what the forge is shown, and a private key: sealed.
    secret      BLOB NOT NULL,
    token       BLOB,
    key         BLOB,
    public_key  TEXT,
    -- The keys that the host may show, as lines of known_hosts.
    known_hosts TEXT,
    created_at  INTEGER NOT NULL,
    -- What came of the last event, for people.
    last_at     INTEGER,
    last_commit TEXT,
    last_word   TEXT,
    last_failed INTEGER NOT NULL DEFAULT 0,
    -- Whether something was asked for that has not been done yet: a server that starts does it.
    wanted      INTEGER NOT NULL DEFAULT 0,
    CHECK ((key IS NULL) = (public_key IS NULL))
) STRICT;

-- Deliveries that were taken, so that none is taken twice.
CREATE TABLE deliveries (
    app      TEXT NOT NULL REFERENCES forges (app) ON DELETE CASCADE,
    delivery TEXT NOT NULL,
    taken_at INTEGER NOT NULL,
    PRIMARY KEY (app, delivery)
) STRICT;
