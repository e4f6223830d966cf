-- Deployments that wait for a person. Such a one runs nothing and leaves the app to others until it goes on.

DROP INDEX deployment_that_runs;

-- Whether it has stepped aside.
ALTER TABLE deployments ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
-- What it waits, or waited, for, and what was decided, as JSON; nothing if nobody was asked.
ALTER TABLE deployments ADD COLUMN approval TEXT;

-- At most one deployment of an app is being worked on.
CREATE UNIQUE INDEX deployment_that_runs ON deployments (app) WHERE finished_at IS NULL AND parked = 0;

-- What the manifest of the app's active source demands, as JSON: the next one waits for a person too, even if its own manifest
-- does not say so any more.
ALTER TABLE apps ADD COLUMN approval_rule TEXT;
-- What a deployment makes of that with its switch, as JSON (`null`: nothing is demanded); afterwards what it was before. Nothing
-- at all: it stays as it is.
ALTER TABLE deployments ADD COLUMN approval_rule TEXT;
