-- Moments are microseconds since 1970 (UTC). What users send is bytes: PostgreSQL's text takes neither NUL nor broken UTF-8.

CREATE TABLE pyrunner_history (
    id          BYTEA  NOT NULL PRIMARY KEY, -- a version 7 UUID: sorts by the time of the start
    owner       TEXT   NOT NULL,
    started_at  BIGINT NOT NULL,
    size        BIGINT NOT NULL,             -- bytes, for retention; before the wide columns, so that they need not be read
    origin      TEXT   NOT NULL,
    image       TEXT   NOT NULL,
    mode        TEXT   NOT NULL,
    exit_code   BIGINT,
    signal      BIGINT,
    reason      TEXT   NOT NULL,
    limits_hit  TEXT   NOT NULL,             -- words with commas between them
    truncated   BIGINT NOT NULL,             -- 1: stdout, 2: stderr, 3: both
    wall_us     BIGINT NOT NULL,
    cpu_us      BIGINT NOT NULL,
    memory_peak BIGINT NOT NULL,             -- bytes
    queue_us    BIGINT NOT NULL,
    details     BYTEA,                       -- JSON
    code        BYTEA  NOT NULL,
    stdin       BYTEA,
    stdout      BYTEA  NOT NULL,
    stderr      BYTEA  NOT NULL
);
CREATE INDEX pyrunner_history_owner ON pyrunner_history (owner, id);

-- How much history there is, kept by whoever inserts or deletes: counting it would read it.
CREATE TABLE pyrunner_history_total (
    id      BIGINT NOT NULL PRIMARY KEY,
    records BIGINT NOT NULL,
    bytes   BIGINT NOT NULL
);
INSERT INTO pyrunner_history_total (id, records, bytes) VALUES (1, 0, 0);

CREATE TABLE pyrunner_keys (
    id           TEXT   NOT NULL PRIMARY KEY,
    hash         BYTEA  NOT NULL,            -- SHA-256 of the whole token
    name         TEXT   NOT NULL,
    role         TEXT   NOT NULL,
    limits       TEXT   NOT NULL,            -- JSON
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    expires_at   BIGINT,
    revoked_at   BIGINT
);

CREATE TABLE pyrunner_jobs (
    id                BYTEA  NOT NULL PRIMARY KEY,
    owner             TEXT   NOT NULL,
    state             TEXT   NOT NULL,
    attempts          BIGINT NOT NULL,       -- how often it has been claimed
    cancel_requested  BIGINT NOT NULL,       -- 0 or 1
    holder            TEXT,                  -- who runs it
    lease_until       BIGINT,
    created_at        BIGINT NOT NULL,
    started_at        BIGINT,
    finished_at       BIGINT,
    callback_url      BYTEA,
    callback_state    TEXT   NOT NULL,
    callback_attempts BIGINT NOT NULL,
    callback_due      BIGINT,
    request           BYTEA  NOT NULL,
    result            BYTEA
);
CREATE INDEX pyrunner_jobs_state ON pyrunner_jobs (state, id);
CREATE INDEX pyrunner_jobs_owner ON pyrunner_jobs (owner, state);
CREATE INDEX pyrunner_jobs_finished ON pyrunner_jobs (finished_at);
CREATE INDEX pyrunner_jobs_callback ON pyrunner_jobs (callback_state, callback_due);

CREATE TABLE pyrunner_idempotency (
    owner       TEXT   NOT NULL,
    key         BYTEA  NOT NULL,
    nonce       BYTEA  NOT NULL,             -- whose turn it is
    request     BYTEA  NOT NULL,             -- SHA-256 of the request
    answer      BYTEA,                       -- none while it is in progress
    lease_until BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX pyrunner_idempotency_expiry ON pyrunner_idempotency (expires_at);
