-- Apps that are previews: what they are a preview of, and until when. The app they belong to may be gone; then they are due.

CREATE TABLE previews (
    app        TEXT PRIMARY KEY REFERENCES apps (name) ON DELETE CASCADE,
    parent     TEXT NOT NULL,
    branch     TEXT NOT NULL,
    host       TEXT NOT NULL,
    -- The commit that is live.
    "commit"   TEXT,
    ttl        INTEGER NOT NULL CHECK (ttl > 0),
    created_at INTEGER NOT NULL,
    pushed_at  INTEGER NOT NULL,
    -- 0: it is to end as soon as it can.
    expires_at INTEGER NOT NULL,
    UNIQUE (parent, branch)
) STRICT;
