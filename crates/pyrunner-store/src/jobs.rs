//! Jobs: accepted now, executed later, by any of the processes that share the database, and by one of them at a time.
//!
//! Whoever claims a job holds it by a lease and renews that while it lives. A job whose lease has run out belonged to a
//! process that died; [`Store::recover_jobs`] fails it or puts it back, as its caller decides. Leases are measured by the
//! clock of the database server (of the machine, with SQLite), so that several machines need not agree on the time.
//!
//! So a job whose end cannot be written down before its lease runs out may be run again: at least once, not exactly once.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use crate::Store;
use crate::error::StoreError;
use crate::history::Scope;
use crate::id::Id;
use crate::idempotency::later;
use crate::record::now;
use crate::session::{Row, Session, Value};

/// A job to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub id: Id,
    /// Whose it is.
    pub owner: String,
    /// What is to be executed; bytes to us.
    pub request: Bytes,
    /// Where to tell when it has ended.
    pub callback_url: Option<String>,
}

/// A job on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: Id,
    /// Whose it is.
    pub owner: String,
    /// Where it stands.
    pub state: JobState,
    /// How often it has been claimed.
    pub attempts: u32,
    /// Whether somebody wants it cancelled while it runs.
    pub cancel_requested: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was last claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Where to tell when it has ended.
    pub callback: Option<Callback>,
    /// What is to be executed.
    pub request: Bytes,
    /// What came of it.
    pub result: Option<Bytes>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Nobody has claimed it.
    Queued,
    /// Somebody runs it.
    Running,
    /// It ran; the result says how.
    Done,
    /// It was cancelled before its end.
    Cancelled,
    /// It could not be run.
    Failed,
}

/// Whom to tell of a job's end, and how far that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Where.
    pub url: String,
    /// How far.
    pub state: CallbackState,
    /// How often it has been tried.
    pub attempts: u32,
}

/// How far the telling is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackState {
    /// The job has not ended.
    Waiting,
    /// To be told, now or after a pause.
    Due,
    /// Told.
    Delivered,
    /// Given up.
    Failed,
}

/// What becomes of jobs whose process died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupted {
    /// They have failed; this is their result.
    Fail(Bytes),
    /// They are queued again unless they have been claimed that often; then they have failed with this result.
    Rerun {
        /// The most claims.
        attempts: u32,
        /// The result of those that are given up.
        result: Bytes,
    },
}

/// What came of the wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancellation {
    /// It was waiting and will not run.
    Cancelled,
    /// It runs; whoever runs it is told by [`Store::renew_leases`].
    Requested,
    /// It had ended, like this.
    Ended(JobState),
}

const COLUMNS: &str = "id, owner, state, attempts, cancel_requested, created_at, started_at, finished_at, callback_url,
    callback_state, callback_attempts, request, result";

/// What an end does to the telling of it.
const TELL: &str = "callback_state = CASE WHEN callback_url IS NULL THEN callback_state ELSE 'due' END, callback_due = $1";

impl Store {
    /// Accepts a job.
    pub async fn insert_job(&self, job: NewJob) -> Result<(), StoreError> {
        const INSERT: &str = "INSERT INTO pyrunner_jobs (id, owner, state, attempts, cancel_requested, created_at, callback_url,
            callback_state, callback_attempts, request) VALUES ($1, $2, 'queued', 0, 0, $3, $4, $5, 0, $6)";
        let telling = if job.callback_url.is_some() { CallbackState::Waiting.as_str() } else { "none" };
        let mut session = self.database().write("accept a job").await?;
        let values: [Value; 6] = [
            job.id.into(),
            job.owner.into(),
            now().into(),
            job.callback_url.map(Bytes::from).into(),
            telling.into(),
            job.request.into(),
        ];
        session.execute(INSERT, &values).await?;
        session.commit().await
    }

    /// One job; `None` if it is not there or not in scope.
    pub async fn job(&self, id: Id, scope: &Scope) -> Result<Option<Job>, StoreError> {
        let mut session = self.database().read("read a job").await?;
        let row = session.row(AssertSqlSafe(format!("SELECT {COLUMNS} FROM pyrunner_jobs WHERE id = $1")), &[id.into()]).await?;
        let job = row.map(|row| job(&session, &row)).transpose()?;
        Ok(job.filter(|job| scope.covers(&job.owner)))
    }

    /// How many jobs are queued or running.
    pub async fn open_jobs(&self, scope: &Scope) -> Result<u64, StoreError> {
        let mut session = self.database().read("count jobs").await?;
        const ALL: &str = "SELECT COUNT(*) FROM pyrunner_jobs WHERE state IN ('queued', 'running')";
        let row = match scope {
            Scope::Everyone => session.row(ALL, &[]).await?,
            Scope::Owner(owner) => session.row(AssertSqlSafe(format!("{ALL} AND owner = $1")), &[owner.as_str().into()]).await?,
        };
        row.map_or(Ok(0), |row| row.count(0))
    }

    /// Claims this job if nobody has; the holder must renew its leases from now on.
    pub async fn claim_job(&self, id: Id, holder: &str, lease: Duration) -> Result<Option<Job>, StoreError> {
        self.claim("id = $4 AND state = 'queued'", Some(id), holder, lease).await
    }

    /// Claims the oldest job that nobody has claimed.
    pub async fn claim_next_job(&self, holder: &str, lease: Duration) -> Result<Option<Job>, StoreError> {
        // Two processes of PostgreSQL look at different rows instead of waiting for each other.
        let skip = if self.database().is_sqlite() { "" } else { "FOR UPDATE SKIP LOCKED" };
        let oldest = format!("id = (SELECT id FROM pyrunner_jobs WHERE state = 'queued' ORDER BY id LIMIT 1 {skip})");
        if !self.has_rows("look for jobs", "SELECT 1 FROM pyrunner_jobs WHERE state = 'queued' LIMIT 1").await? {
            return Ok(None);
        }
        self.claim(&oldest, None, holder, lease).await
    }

    async fn claim(&self, which: &str, id: Option<Id>, holder: &str, lease: Duration) -> Result<Option<Job>, StoreError> {
        let mut session = self.database().write("claim a job").await?;
        let now = session.now().await?;
        let sql = format!(
            "UPDATE pyrunner_jobs SET state = 'running', holder = $2, started_at = $1, lease_until = $3, attempts = attempts + 1
             WHERE {which} RETURNING {COLUMNS}"
        );
        let mut values: Vec<Value> = vec![now.into(), holder.into(), later(now, lease).into()];
        values.extend(id.map(Value::from));
        let row = session.row(AssertSqlSafe(sql), &values).await?;
        let claimed = row.map(|row| job(&session, &row)).transpose()?;
        session.commit().await?;
        Ok(claimed)
    }

    /// Whether a question finds anything. Asked before a claim, because most rounds of those who wait for work find none,
    /// and only a reader's connection is needed to see that.
    async fn has_rows(&self, action: &'static str, question: &'static str) -> Result<bool, StoreError> {
        let mut session = self.database().read(action).await?;
        Ok(session.row(question, &[]).await?.is_some())
    }

    /// Prolongs all leases of a holder from now on; answers which of its jobs somebody wants cancelled.
    pub async fn renew_leases(&self, holder: &str, lease: Duration) -> Result<Vec<Id>, StoreError> {
        const RENEW: &str = "UPDATE pyrunner_jobs SET lease_until = $2 WHERE holder = $1 AND state = 'running'
            RETURNING id, cancel_requested";
        let mut session = self.database().write("renew the leases of jobs").await?;
        let now = session.now().await?;
        let rows = session.rows(RENEW, &[holder.into(), later(now, lease).into()]).await?;
        session.commit().await?;
        let mut cancelled = Vec::new();
        for row in rows {
            if row.int(1)? != 0 {
                cancelled.push(job_id(&row)?);
            }
        }
        Ok(cancelled)
    }

    /// Writes down how a job ended (`Done`, `Cancelled` or `Failed`); whether it was still this holder's. If not, its lease
    /// ran out and its end is another's to tell.
    pub async fn finish_job(&self, id: Id, holder: &str, state: JobState, result: Bytes) -> Result<bool, StoreError> {
        const ACTION: &str = "end a job";
        if !state.is_end() {
            return Err(StoreError::invalid(ACTION, format!("{} is not an end", state.as_str())));
        }
        let sql = format!(
            "UPDATE pyrunner_jobs SET state = $2, result = $3, finished_at = $1, holder = NULL, lease_until = NULL, {TELL}
             WHERE id = $4 AND holder = $5 AND state = 'running'"
        );
        let mut session = self.database().write(ACTION).await?;
        let now = session.now().await?;
        let values: [Value; 5] = [now.into(), state.as_str().into(), result.into(), id.into(), holder.into()];
        let ended = session.execute(AssertSqlSafe(sql), &values).await?;
        session.commit().await?;
        Ok(ended > 0)
    }

    /// Puts a claimed job back, for somebody else: its holder is about to end. The claim does not count.
    pub async fn release_job(&self, id: Id, holder: &str) -> Result<bool, StoreError> {
        const RELEASE: &str = "UPDATE pyrunner_jobs SET state = 'queued', holder = NULL, lease_until = NULL, started_at = NULL,
            attempts = attempts - 1 WHERE id = $1 AND holder = $2 AND state = 'running' AND cancel_requested = 0";
        let mut session = self.database().write("put a job back").await?;
        let released = session.execute(RELEASE, &[id.into(), holder.into()]).await?;
        session.commit().await?;
        Ok(released > 0)
    }

    /// Cancels a job; `None` if it is not there or not in scope.
    pub async fn cancel_job(&self, id: Id, scope: &Scope) -> Result<Option<Cancellation>, StoreError> {
        let cancel = format!("UPDATE pyrunner_jobs SET state = 'cancelled', finished_at = $1, {TELL} WHERE id = $2");
        let lock = if self.database().is_sqlite() { "" } else { "FOR UPDATE" };
        let mut session = self.database().write("cancel a job").await?;
        let look = format!("SELECT owner, state FROM pyrunner_jobs WHERE id = $1 {lock}");
        let row = session.row(AssertSqlSafe(look), &[id.into()]).await?;
        let found = row.map(|row| Ok::<_, StoreError>((row.text(0)?, row.text(1)?))).transpose()?;
        let Some((_, state)) = found.filter(|(owner, _)| scope.covers(owner)) else {
            session.commit().await?;
            return Ok(None);
        };
        let state = state_of(&session, &state)?;
        let outcome = match state {
            JobState::Queued => {
                let now = session.now().await?;
                session.execute(AssertSqlSafe(cancel), &[now.into(), id.into()]).await?;
                Cancellation::Cancelled
            }
            JobState::Running => {
                session.execute("UPDATE pyrunner_jobs SET cancel_requested = 1 WHERE id = $1", &[id.into()]).await?;
                Cancellation::Requested
            }
            ended => Cancellation::Ended(ended),
        };
        session.commit().await?;
        Ok(Some(outcome))
    }

    /// Looks for jobs whose process died (their lease has run out) and does with them as told; answers them as they stand
    /// now. Jobs that were to be cancelled are.
    pub async fn recover_jobs(&self, interrupted: &Interrupted) -> Result<Vec<Job>, StoreError> {
        let (attempts, result) = match interrupted {
            Interrupted::Fail(result) => (0, result),
            Interrupted::Rerun { attempts, result } => (*attempts, result),
        };
        const DEAD: &str = "state = 'running' AND lease_until <= $1";
        if !self.has_rows("look for jobs of the dead", "SELECT 1 FROM pyrunner_jobs WHERE state = 'running' LIMIT 1").await? {
            return Ok(Vec::new());
        }
        let mut session = self.database().write("recover jobs").await?;
        let now = session.now().await?;
        let again = format!(
            "UPDATE pyrunner_jobs SET state = 'queued', holder = NULL, lease_until = NULL, started_at = NULL
             WHERE {DEAD} AND attempts < $2 AND cancel_requested = 0 RETURNING {COLUMNS}"
        );
        let mut rows = session.rows(AssertSqlSafe(again), &[now.into(), i64::from(attempts).into()]).await?;
        let end = format!(
            "UPDATE pyrunner_jobs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'failed' END, result = $2,
             finished_at = $1, holder = NULL, lease_until = NULL, {TELL} WHERE {DEAD} RETURNING {COLUMNS}"
        );
        rows.extend(session.rows(AssertSqlSafe(end), &[now.into(), result.clone().into()]).await?);
        let jobs = rows.iter().map(|row| job(&session, row)).collect::<Result<Vec<_>, StoreError>>()?;
        session.commit().await?;
        Ok(jobs)
    }

    /// Ended jobs whose end is to be told now, at most so many. Each is this caller's for `lease`, and somebody else's after
    /// that, unless [`Store::settle_callback`] comes first: it is told at least once.
    pub async fn claim_callbacks(&self, most: u32, lease: Duration) -> Result<Vec<Job>, StoreError> {
        let skip = if self.database().is_sqlite() { "" } else { "FOR UPDATE SKIP LOCKED" };
        let sql = format!(
            "UPDATE pyrunner_jobs SET callback_due = $2, callback_attempts = callback_attempts + 1 WHERE id IN (
                SELECT id FROM pyrunner_jobs WHERE callback_state = 'due' AND callback_due <= $1
                ORDER BY callback_due LIMIT $3 {skip}) RETURNING {COLUMNS}"
        );
        if !self.has_rows("look for callbacks", "SELECT 1 FROM pyrunner_jobs WHERE callback_state = 'due' LIMIT 1").await? {
            return Ok(Vec::new());
        }
        let mut session = self.database().write("claim callbacks").await?;
        let now = session.now().await?;
        let values: [Value; 3] = [now.into(), later(now, lease).into(), i64::from(most).into()];
        let rows = session.rows(AssertSqlSafe(sql), &values).await?;
        let jobs = rows.iter().map(|row| job(&session, row)).collect::<Result<Vec<_>, StoreError>>()?;
        session.commit().await?;
        Ok(jobs)
    }

    /// Writes down what came of telling: delivered, given up, or to be tried again after a pause.
    pub async fn settle_callback(&self, id: Id, outcome: CallbackOutcome) -> Result<(), StoreError> {
        const SETTLE: &str = "UPDATE pyrunner_jobs SET callback_state = $2, callback_due = $3 WHERE id = $1
            AND callback_state = 'due'";
        let mut session = self.database().write("settle a callback").await?;
        let (state, due) = match outcome {
            CallbackOutcome::Delivered => (CallbackState::Delivered, None),
            CallbackOutcome::GivenUp => (CallbackState::Failed, None),
            CallbackOutcome::Again(pause) => (CallbackState::Due, Some(later(session.now().await?, pause))),
        };
        session.execute(SETTLE, &[id.into(), state.as_str().into(), due.into()]).await?;
        session.commit().await
    }
}

/// What came of telling about a job's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// It was heard.
    Delivered,
    /// It will not be tried again.
    GivenUp,
    /// It is to be tried again after this pause.
    Again(Duration),
}

impl JobState {
    const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Done, Self::Cancelled, Self::Failed];

    /// Its name: `queued`, `running`, `done`, `cancelled` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing comes after it.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

impl CallbackState {
    const ALL: [Self; 4] = [Self::Waiting, Self::Due, Self::Delivered, Self::Failed];

    /// Its name: `waiting`, `due`, `delivered` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Due => "due",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

fn state_of(session: &Session, word: &str) -> Result<JobState, StoreError> {
    let found = JobState::ALL.into_iter().find(|state| state.as_str() == word);
    found.ok_or_else(|| session.unreadable(format!("a job is in the state {word:?}")))
}

fn job_id(row: &Row) -> Result<Id, StoreError> {
    Id::from_slice(&row.bytes(0)?).map_err(|error| StoreError::invalid("read a job", error))
}

fn job(session: &Session, row: &Row) -> Result<Job, StoreError> {
    let moment = |microseconds| Timestamp::from_microsecond(microseconds).map_err(|error| session.unreadable(error));
    let small = |column| row.int(column).map(|number| u32::try_from(number).unwrap_or(0));
    let told = row.text(9)?;
    let url = row.bytes_or_null(8)?.map(|url| String::from_utf8_lossy(&url).into_owned());
    let callback = url.zip(CallbackState::ALL.into_iter().find(|state| state.as_str() == told));
    let callback_attempts = small(10)?;
    Ok(Job {
        id: job_id(row)?,
        owner: row.text(1)?,
        state: state_of(session, &row.text(2)?)?,
        attempts: small(3)?,
        cancel_requested: row.int(4)? != 0,
        created_at: moment(row.int(5)?)?,
        started_at: row.int_or_null(6)?.map(moment).transpose()?,
        finished_at: row.int_or_null(7)?.map(moment).transpose()?,
        callback: callback.map(|(url, state)| Callback { url, state, attempts: callback_attempts }),
        request: row.bytes(11)?.into(),
        result: row.bytes_or_null(12)?.map(Bytes::from),
    })
}
