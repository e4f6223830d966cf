-- Runs of pipelines. Each belongs to the deployment that it was begun for.

CREATE TABLE runs (
    deployment INTEGER PRIMARY KEY REFERENCES deployments (id) ON DELETE CASCADE,
    app        TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    -- The commit, the branch or tag, and who asked for it, where that is known.
    revision   TEXT,
    reference  TEXT,
    person     TEXT,
    -- What became of each step, as JSON.
    steps      TEXT NOT NULL
) STRICT;
