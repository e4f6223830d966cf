-- Steps of pipelines that succeeded, by what they were run with.

CREATE TABLE steps (
    app     TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    key     TEXT NOT NULL,
    step    TEXT NOT NULL,
    release INTEGER NOT NULL CHECK (release > 0),
    -- The images beside the app's own that it was run with, as JSON: they stay for its next run.
    images  TEXT NOT NULL,
    -- When it was last run or taken from here.
    used_at INTEGER NOT NULL,
    PRIMARY KEY (app, key)
) STRICT;
