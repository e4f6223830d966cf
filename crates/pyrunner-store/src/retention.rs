//! Retention: what is old or too much goes, oldest first, in small transactions that let others write in between.

use std::time::Duration;

use jiff::Timestamp;

use crate::Store;
use crate::error::StoreError;
use crate::history::{HistorySize, add_to_total};
use crate::id::Id;

/// How many rows one transaction deletes at most.
const STEP: i64 = 200;

/// What is kept. `None`: without bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Executions not older than this.
    pub history_age: Option<Duration>,
    /// The newest so many executions.
    pub history_records: Option<u64>,
    /// The newest executions whose sizes together are not more than so many bytes. SQLite's file does not shrink, but what
    /// is freed in it is used again.
    pub history_bytes: Option<u64>,
    /// Ended jobs, for so long after their end (and until their callback is settled).
    pub job_age: Option<Duration>,
}

/// What has gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Executions.
    pub records: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Jobs.
    pub jobs: u64,
    /// Idempotency keys whose time was over.
    pub idempotency_keys: u64,
}

impl Store {
    /// Deletes what the policy does not keep, and idempotency keys whose time is over. Several processes may do so at once.
    pub async fn sweep(&self, policy: &Policy) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let step = self.sweep_history_once(policy).await?;
            swept.records += step.records;
            swept.bytes += step.bytes;
            if step.records == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        swept.jobs = self.sweep_jobs(policy).await?;
        swept.idempotency_keys = self.sweep_idempotency().await?;
        Ok(swept)
    }

    /// One small transaction: the oldest records that are too old or too many.
    async fn sweep_history_once(&self, policy: &Policy) -> Result<HistorySize, StoreError> {
        // One statement sees one moment: a total from before another process deleted, with rows from after it, would have younger
        // ones deleted that are to be kept.
        const OLDEST: &str = "SELECT history.id, history.size, total.records, total.bytes
            FROM pyrunner_history AS history, pyrunner_history_total AS total WHERE total.id = 1 ORDER BY history.id LIMIT $1";
        const DELETE: &str = "DELETE FROM pyrunner_history WHERE id <= $1 RETURNING size";
        if policy.history_age.is_none() && policy.history_records.is_none() && policy.history_bytes.is_none() {
            return Ok(HistorySize::default());
        }
        let mut session = self.database().read("look for history to delete").await?;
        let oldest = session.rows(OLDEST, &[STEP.into()]).await?;
        drop(session);
        let cutoff = policy.history_age.map(|age| Id::first_at(ago(age)));
        let mut left = match oldest.first() {
            Some(row) => HistorySize { records: row.count(2)?, bytes: row.count(3)? },
            None => return Ok(HistorySize::default()),
        };
        let mut last = None;
        for row in &oldest {
            let id = Id::from_slice(&row.bytes(0)?).map_err(|error| StoreError::invalid("delete old history", error))?;
            let is_old = cutoff.is_some_and(|cutoff| id < cutoff);
            let too_many = policy.history_records.is_some_and(|most| left.records > most);
            let too_much = policy.history_bytes.is_some_and(|most| left.bytes > most);
            if !(is_old || too_many || too_much) {
                break;
            }
            left.records = left.records.saturating_sub(1);
            left.bytes = left.bytes.saturating_sub(row.count(1)?);
            last = Some(id);
        }
        let Some(last) = last else { return Ok(HistorySize::default()) };
        let mut session = self.database().write("delete old history").await?;
        let mut gone = HistorySize::default();
        for row in session.rows(DELETE, &[last.into()]).await? {
            gone.records += 1;
            gone.bytes += row.count(0)?;
        }
        add_to_total(&mut session, gone, -1).await?;
        session.commit().await?;
        Ok(gone)
    }

    async fn sweep_jobs(&self, policy: &Policy) -> Result<u64, StoreError> {
        // Jobs that have not ended have no such moment.
        const DELETE: &str = "DELETE FROM pyrunner_jobs WHERE id IN (SELECT id FROM pyrunner_jobs
            WHERE finished_at < $1 AND callback_state <> 'due' ORDER BY finished_at LIMIT $2)";
        let Some(age) = policy.job_age else { return Ok(0) };
        self.delete_in_steps("delete old jobs", DELETE, ago(age)).await
    }

    async fn sweep_idempotency(&self) -> Result<u64, StoreError> {
        const DELETE: &str = "DELETE FROM pyrunner_idempotency WHERE (owner, key) IN (SELECT owner, key
            FROM pyrunner_idempotency WHERE expires_at <= $1 LIMIT $2)";
        self.delete_in_steps("forget idempotency keys", DELETE, Timestamp::now()).await
    }

    async fn delete_in_steps(&self, action: &'static str, sql: &'static str, before: Timestamp) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let mut session = self.database().write(action).await?;
            let step = session.execute(sql, &[before.into(), STEP.into()]).await?;
            session.commit().await?;
            deleted += step;
            if step < STEP.unsigned_abs() {
                return Ok(deleted);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// That long ago; the beginning of time if that is longer.
fn ago(age: Duration) -> Timestamp {
    let now = Timestamp::now();
    jiff::SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()).unwrap_or(Timestamp::MIN)
}
