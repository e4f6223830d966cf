//! History: written in batches, read by id or page by page, and only by its owner.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::error::StoreError;
use crate::id::{Id, hex_decode, hex_encode};
use crate::record::{Record, Usage};
use crate::session::{Row, Session, Value};
use crate::{Store, StoreError as Error};

/// Whose executions may be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Those of one owner.
    Owner(String),
    /// All of them: for operators.
    Everyone,
}

/// Where a page ends and the next begins. Its text is opaque and survives a restart; records that are inserted meanwhile
/// shift nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(Id);

/// This is not a [`Cursor`] of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this API gave out; begin again without one")]
pub struct CursorError;

/// A part of history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The executions, with streams cut to the excerpt asked for.
    pub records: Vec<Excerpt>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A record whose code, stdin, stdout, stderr and details may have been cut, and how long they really are, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The record, cut.
    pub record: Record,
    /// Length of the code.
    pub code_bytes: u64,
    /// Length of stdin.
    pub stdin_bytes: u64,
    /// Length of stdout as kept.
    pub stdout_bytes: u64,
    /// Length of stderr as kept.
    pub stderr_bytes: u64,
}

/// How much history there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Records.
    pub records: u64,
    /// Their sizes together, in bytes; what the database adds for itself is not counted.
    pub bytes: u64,
}

/// The most records a page may have.
pub const PAGE_MAX: u32 = 1000;

const COLUMNS: [&str; 21] = [
    "id",
    "owner",
    "started_at",
    "size",
    "origin",
    "image",
    "mode",
    "exit_code",
    "signal",
    "reason",
    "limits_hit",
    "truncated",
    "wall_us",
    "cpu_us",
    "memory_peak",
    "queue_us",
    "details",
    "code",
    "stdin",
    "stdout",
    "stderr",
];

/// The first column whose length is not bounded by us; the last five of [`COLUMNS`].
const STREAMS: usize = 16;

/// Statements that insert this many records at once, so that the databases see few different ones and keep them prepared.
const CHUNKS: [usize; 4] = [64, 16, 4, 1];

impl Store {
    /// Writes records down, all or none. A record whose id is there already is left as it is, so that a batch whose commit
    /// was lost on the way can be sent again. `durable`: on the disk before this returns; otherwise a power cut (not a
    /// crash of the program) may lose the last moments.
    pub async fn insert_records(&self, records: &[Record], durable: bool) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let mut session = self.database().write_untransacted("write history").await?;
        let relaxed_sqlite = session.is_sqlite() && !durable;
        if relaxed_sqlite {
            // Has no effect inside a transaction.
            session.execute("PRAGMA synchronous = NORMAL", &[]).await?;
        }
        session.begin().await?;
        if !session.is_sqlite() && !durable {
            session.execute("SET LOCAL synchronous_commit = off", &[]).await?;
        }
        let mut total = HistorySize::default();
        let mut rest = records;
        while !rest.is_empty() {
            let chunk = CHUNKS.iter().position(|size| *size <= rest.len()).unwrap_or(CHUNKS.len() - 1);
            let (records, later) = rest.split_at(CHUNKS[chunk]);
            rest = later;
            let values: Vec<Value> = records.iter().flat_map(values).collect();
            for row in session.rows(insertion(chunk, session.is_sqlite()), &values).await? {
                total.records += 1;
                total.bytes += row.count(0)?;
            }
        }
        add_to_total(&mut session, total, 1).await?;
        session.commit().await?;
        if relaxed_sqlite {
            // For whoever writes next. (Had anything failed, the connection would not be used again.)
            session.execute("PRAGMA synchronous = FULL", &[]).await?;
        }
        Ok(())
    }

    /// One execution, whole; `None` if it is not there or not in scope.
    pub async fn record(&self, id: Id, scope: &Scope) -> Result<Option<Record>, Error> {
        let mut session = self.database().read("read an execution").await?;
        let columns = COLUMNS.join(", ");
        let sql = format!("SELECT {columns} FROM pyrunner_history WHERE id = $1");
        let row = session.row(AssertSqlSafe(sql), &[id.into()]).await?;
        let record = row.map(|row| record(&session, &row)).transpose()?;
        Ok(record.filter(|record| scope.covers(&record.owner)))
    }

    /// A page of history, newest first: up to `limit` records (at most [`PAGE_MAX`]) after the cursor, each stream cut to
    /// `excerpt` bytes.
    pub async fn page(&self, scope: &Scope, after: Option<Cursor>, limit: u32, excerpt: u32) -> Result<Page, Error> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut session = self.database().read("list executions").await?;
        // One more than asked for tells whether there is a next page.
        let mut values: Vec<Value> = vec![i64::from(excerpt).into(), i64::from(limit + 1).into()];
        let mut conditions = Vec::new();
        if let Scope::Owner(owner) = scope {
            values.push(owner.as_str().into());
            conditions.push(format!("owner = ${}", values.len()));
        }
        if let Some(Cursor(id)) = after {
            values.push(id.into());
            conditions.push(format!("id < ${}", values.len()));
        }
        let condition = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        let sql = format!("SELECT {} FROM pyrunner_history {condition} ORDER BY id DESC LIMIT $2", excerpt_columns(&session));
        let rows = session.rows(AssertSqlSafe(sql), &values).await?;
        let more = rows.len() > limit as usize;
        let rows = rows.iter().take(limit as usize);
        let records = rows.map(|row| excerpted(&session, row)).collect::<Result<Vec<_>, Error>>()?;
        let next = records.last().filter(|_| more).map(|last| Cursor(last.record.id));
        Ok(Page { records, next })
    }

    /// How much history there is.
    pub async fn history_size(&self) -> Result<HistorySize, Error> {
        let mut session = self.database().read("measure the history").await?;
        history_size(&mut session).await
    }
}

pub(crate) async fn history_size(session: &mut Session) -> Result<HistorySize, Error> {
    let row = session.row("SELECT records, bytes FROM pyrunner_history_total WHERE id = 1", &[]).await?;
    match row {
        Some(row) => Ok(HistorySize { records: row.count(0)?, bytes: row.count(1)? }),
        None => Ok(HistorySize::default()),
    }
}

/// Adds to the total, or takes away if `sign` is -1.
pub(crate) async fn add_to_total(session: &mut Session, size: HistorySize, sign: i64) -> Result<(), Error> {
    const ADD: &str = "UPDATE pyrunner_history_total SET records = records + $1, bytes = bytes + $2 WHERE id = 1";
    if size.records == 0 {
        return Ok(());
    }
    let signed = |count: u64| Value::from(sign * i64::try_from(count).unwrap_or(i64::MAX));
    session.execute(ADD, &[signed(size.records), signed(size.bytes)]).await.map(drop)
}

impl Scope {
    pub(crate) fn covers(&self, owner: &str) -> bool {
        match self {
            Self::Owner(mine) => mine == owner,
            Self::Everyone => true,
        }
    }
}

/// The statement that inserts a chunk of that place in [`CHUNKS`]. Made once: it is long.
fn insertion(chunk: usize, is_sqlite: bool) -> SqlStr {
    static TEXTS: [[OnceLock<Arc<str>>; CHUNKS.len()]; 2] = [const { [const { OnceLock::new() }; CHUNKS.len()] }; 2];
    let text = TEXTS[usize::from(is_sqlite)][chunk].get_or_init(|| {
        // For each parameter that has a name, even a number, sqlx has SQLite look through all of them.
        let place = |number: usize| if is_sqlite { "?".to_owned() } else { format!("${number}") };
        let tuple = |first: usize| (first..first + COLUMNS.len()).map(place).collect::<Vec<_>>().join(",");
        let tuples = (0..CHUNKS[chunk]).map(|index| format!("({})", tuple(index * COLUMNS.len() + 1)));
        let (columns, tuples) = (COLUMNS.join(","), tuples.collect::<Vec<_>>().join(","));
        format!("INSERT INTO pyrunner_history ({columns}) VALUES {tuples} ON CONFLICT (id) DO NOTHING RETURNING size").into()
    });
    AssertSqlSafe(Arc::clone(text)).into_sql_str()
}

fn values(record: &Record) -> [Value; COLUMNS.len()] {
    let truncated = i64::from(record.stdout_truncated) + 2 * i64::from(record.stderr_truncated);
    [
        record.id.into(),
        record.owner.as_str().into(),
        record.started_at.into(),
        (record.size() as u64).into(),
        record.origin.as_str().into(),
        record.image.as_str().into(),
        record.mode.as_str().into(),
        record.exit_code.map(i64::from).into(),
        record.signal.map(i64::from).into(),
        record.reason.as_str().into(),
        record.limits_hit.join(",").into(),
        truncated.into(),
        record.usage.wall_us.into(),
        record.usage.cpu_us.into(),
        record.usage.memory_peak.into(),
        record.usage.queue_us.into(),
        record.details.clone().into(),
        record.code.clone().into(),
        record.stdin.clone().into(),
        record.stdout.clone().into(),
        record.stderr.clone().into(),
    ]
}

/// Like [`COLUMNS`], with streams cut to `$1` bytes, and their lengths behind.
fn excerpt_columns(session: &Session) -> String {
    // LENGTH and SUBSTR count bytes in blobs on both; PostgreSQL's SUBSTR wants a 32-bit number.
    let most = if session.is_sqlite() { "$1" } else { "CAST($1 AS INTEGER)" };
    let (plain, streams) = COLUMNS.split_at(STREAMS);
    // SQLite makes NULL of the SUBSTR of an empty blob.
    let cut =
        streams.iter().map(|column| format!("CASE LENGTH({column}) WHEN 0 THEN {column} ELSE SUBSTR({column}, 1, {most}) END"));
    let lengths = streams[1..].iter().map(|column| format!("CAST(COALESCE(LENGTH({column}), 0) AS BIGINT)"));
    plain.iter().map(|column| (*column).to_owned()).chain(cut).chain(lengths).collect::<Vec<_>>().join(", ")
}

fn record(session: &Session, row: &Row) -> Result<Record, StoreError> {
    let small = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
    let truncated = row.int(11)?;
    let started_at = Timestamp::from_microsecond(row.int(2)?).map_err(|error| session.unreadable(error))?;
    Ok(Record {
        id: Id::from_slice(&row.bytes(0)?).map_err(|error| session.unreadable(error))?,
        owner: row.text(1)?,
        started_at,
        origin: row.text(4)?,
        image: row.text(5)?,
        mode: row.text(6)?,
        exit_code: small(row.int_or_null(7)?),
        signal: small(row.int_or_null(8)?),
        reason: row.text(9)?,
        limits_hit: row.text(10)?.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        stdout_truncated: truncated & 1 != 0,
        stderr_truncated: truncated & 2 != 0,
        usage: Usage { wall_us: row.count(12)?, cpu_us: row.count(13)?, memory_peak: row.count(14)?, queue_us: row.count(15)? },
        details: row.bytes_or_null(16)?.map(Bytes::from),
        code: row.bytes(17)?.into(),
        stdin: row.bytes_or_null(18)?.map(Bytes::from),
        stdout: row.bytes(19)?.into(),
        stderr: row.bytes(20)?.into(),
    })
}

fn excerpted(session: &Session, row: &Row) -> Result<Excerpt, StoreError> {
    Ok(Excerpt {
        record: record(session, row)?,
        code_bytes: row.count(21)?,
        stdin_bytes: row.count(22)?,
        stdout_bytes: row.count(23)?,
        stderr_bytes: row.count(24)?,
    })
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first digit is the version of the cursor, should the order ever change.
        write!(formatter, "1{}", hex_encode(self.0.as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let digits = text.strip_prefix('1').ok_or(CursorError)?;
        let bytes = hex_decode(digits.as_bytes()).ok_or(CursorError)?;
        Id::from_slice(&bytes).map(Self).map_err(|_| CursorError)
    }
}
