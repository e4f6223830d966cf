//! Previews on record: apps that belong to a branch of another app, and until when.

use coracle_model::{AppName, HostPattern, Lifetime};
use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;

use crate::config::ConfigChange;
use crate::error::StoreError;
use crate::{ConfigEntry, Store};

/// A preview on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewRecord {
    /// The app that it is.
    pub app: AppName,
    /// The app that it is a preview of.
    pub parent: AppName,
    /// The branch. Whoever pushed it chose its name.
    pub branch: String,
    /// Where it is reached.
    pub host: HostPattern,
    /// The commit that is live; `None` before the first deployment has succeeded.
    pub commit: Option<String>,
    /// How long it lives after a push, in seconds.
    pub ttl: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last pushed to.
    pub pushed_at: Timestamp,
    /// When it ends; the beginning of the era: as soon as it can.
    pub expires_at: Timestamp,
}

/// A preview that is wanted.
#[derive(Debug)]
pub struct WantedPreview<'a> {
    /// The app that it is a preview of.
    pub parent: &'a AppName,
    /// The branch.
    pub branch: &'a str,
    /// What it may be called and where it is reached then; the first name that is nobody's is taken.
    pub names: &'a [(AppName, HostPattern)],
    /// How long it lives after a push.
    pub ttl: Lifetime,
    /// How many the app may have.
    pub max: u16,
    /// The configuration it begins with.
    pub config: &'a [ConfigEntry],
}

/// What becomes of a preview that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreviewAdmission {
    /// It is there now, and was not before.
    Made(PreviewRecord),
    /// It was there, and lives on from now.
    Renewed(PreviewRecord),
    /// There are as many as there may be: of these branches.
    Full(Vec<String>),
    /// Every name it could have is somebody else's.
    Taken,
}

type Row = (String, String, String, String, Option<String>, u32, i64, i64, i64);

const COLUMNS: &str = "SELECT app, parent, branch, host, \"commit\", ttl, created_at, pushed_at, expires_at FROM previews";

/// What has to end by a moment: its time is over, or what it is a preview of is gone.
const DUE: &str = "expires_at <= $1 OR parent NOT IN (SELECT name FROM apps)";

impl Store {
    /// Makes a preview, with its app and its configuration, or renews the one that the branch has: all of it or nothing.
    pub async fn admit_preview(&self, wanted: &WantedPreview<'_>) -> Result<PreviewAdmission, StoreError> {
        const ACTION: &str = "make a preview";
        let mut transaction = self.database().begin(ACTION).await?;
        self.app_within(&mut transaction, wanted.parent).await?;
        let known = self.preview_of_within(&mut transaction, wanted.parent, wanted.branch).await?;
        let admission = match known {
            Some(known) => PreviewAdmission::Renewed(self.renew_within(&mut transaction, known, wanted).await?),
            None => self.make_within(&mut transaction, wanted).await?,
        };
        self.database().commit(ACTION, transaction).await?;
        Ok(admission)
    }

    async fn renew_within(
        &self,
        connection: &mut SqliteConnection,
        known: PreviewRecord,
        wanted: &WantedPreview<'_>,
    ) -> Result<PreviewRecord, StoreError> {
        const RENEW: &str = "UPDATE previews SET host = $2, ttl = $3, pushed_at = $4, expires_at = $5 WHERE app = $1";
        let host = wanted.names.iter().find(|(name, _)| *name == known.app).map_or(known.host, |(_, host)| host.clone());
        let now = Timestamp::now();
        let expires_at = after(now, wanted.ttl.seconds());
        let query = sqlx::query(RENEW).bind(known.app.as_str()).bind(host.as_str()).bind(wanted.ttl.seconds());
        let renewed = query.bind(now.as_microsecond()).bind(expires_at.as_microsecond()).execute(connection).await;
        renewed.map_err(|error| self.database().failed("renew a preview", &error))?;
        Ok(PreviewRecord { host, ttl: wanted.ttl.seconds(), pushed_at: now, expires_at, ..known })
    }

    async fn make_within(
        &self,
        connection: &mut SqliteConnection,
        wanted: &WantedPreview<'_>,
    ) -> Result<PreviewAdmission, StoreError> {
        const ACTION: &str = "make a preview";
        const INSERT: &str = "INSERT INTO previews (app, parent, branch, host, ttl, created_at, pushed_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $6, $7)";
        // A name that a role names is meant for somebody else's app, although that is not there yet.
        const TAKEN: &str = "SELECT EXISTS (SELECT 1 FROM apps WHERE name = $1) OR EXISTS (SELECT 1 FROM grants WHERE app = $1)";
        let failed = |error| self.database().failed(ACTION, &error);
        let query =
            sqlx::query_scalar("SELECT branch FROM previews WHERE parent = $1 ORDER BY branch").bind(wanted.parent.as_str());
        let there: Vec<String> = query.fetch_all(&mut *connection).await.map_err(failed)?;
        if there.len() >= usize::from(wanted.max) {
            return Ok(PreviewAdmission::Full(there));
        }
        let mut free = None;
        for (name, host) in wanted.names {
            let taken: bool = sqlx::query_scalar(TAKEN).bind(name.as_str()).fetch_one(&mut *connection).await.map_err(failed)?;
            if !taken {
                free = Some((name.clone(), host.clone()));
                break;
            }
        }
        let Some((app, host)) = free else { return Ok(PreviewAdmission::Taken) };
        let now = Timestamp::now();
        let expires_at = after(now, wanted.ttl.seconds());
        let query = sqlx::query("INSERT INTO apps (name, created_at) VALUES ($1, $2)");
        query.bind(app.as_str()).bind(now.as_microsecond()).execute(&mut *connection).await.map_err(failed)?;
        let query = sqlx::query(INSERT).bind(app.as_str()).bind(wanted.parent.as_str()).bind(wanted.branch).bind(host.as_str());
        let query = query.bind(wanted.ttl.seconds()).bind(now.as_microsecond()).bind(expires_at.as_microsecond());
        query.execute(&mut *connection).await.map_err(failed)?;
        let changes: Vec<ConfigChange> = wanted
            .config
            .iter()
            .map(|entry| ConfigChange { name: entry.name.clone(), value: Some(entry.value.clone()), secret: entry.secret })
            .collect();
        self.change_config_within(connection, &app, &changes).await?;
        let (parent, branch) = (wanted.parent.clone(), wanted.branch.to_owned());
        let ttl = wanted.ttl.seconds();
        Ok(PreviewAdmission::Made(PreviewRecord {
            app,
            parent,
            branch,
            host,
            commit: None,
            ttl,
            created_at: now,
            pushed_at: now,
            expires_at,
        }))
    }

    /// What an app is a preview of, if it is one.
    pub async fn preview(&self, app: &AppName) -> Result<Option<PreviewRecord>, StoreError> {
        let query = sqlx::query_as::<_, Row>(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE app = $1"))).bind(app.as_str());
        let row = query.fetch_optional(self.database().readers()).await;
        row.map_err(|error| self.database().failed("read a preview", &error))?.map(|row| self.preview_record(row)).transpose()
    }

    /// The preview of a branch.
    pub async fn preview_of(&self, parent: &AppName, branch: &str) -> Result<Option<PreviewRecord>, StoreError> {
        let connection = self.database().readers().acquire().await;
        let mut connection = connection.map_err(|error| self.database().failed("read a preview", &error))?;
        self.preview_of_within(&mut connection, parent, branch).await
    }

    async fn preview_of_within(
        &self,
        connection: &mut SqliteConnection,
        parent: &AppName,
        branch: &str,
    ) -> Result<Option<PreviewRecord>, StoreError> {
        let query = sqlx::query_as::<_, Row>(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE parent = $1 AND branch = $2")));
        let row = query.bind(parent.as_str()).bind(branch).fetch_optional(connection).await;
        row.map_err(|error| self.database().failed("read a preview", &error))?.map(|row| self.preview_record(row)).transpose()
    }

    /// The previews of an app, by branch; of every app, if none is named.
    pub async fn previews(&self, parent: Option<&AppName>) -> Result<Vec<PreviewRecord>, StoreError> {
        let text = format!("{COLUMNS} WHERE $1 IS NULL OR parent = $1 ORDER BY parent, branch");
        let query = sqlx::query_as::<_, Row>(sqlx::AssertSqlSafe(text)).bind(parent.map(AppName::as_str));
        let rows = query.fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("list previews", &error))?;
        rows.into_iter().map(|row| self.preview_record(row)).collect()
    }

    /// Writes down which commit of its branch a preview is.
    pub async fn preview_deployed(&self, app: &AppName, commit: &str) -> Result<(), StoreError> {
        self.change_preview("UPDATE previews SET \"commit\" = $2 WHERE app = $1", app, commit).await
    }

    /// A preview lives on from now, for as long as after a push. `None`: it is none, or is ending.
    pub async fn extend_preview(&self, app: &AppName) -> Result<Option<Timestamp>, StoreError> {
        const EXTEND: &str = "UPDATE previews SET expires_at = $2 WHERE app = $1 AND expires_at > $3";
        let Some(preview) = self.preview(app).await? else { return Ok(None) };
        let now = Timestamp::now();
        let expires_at = after(now, preview.ttl);
        const ACTION: &str = "extend a preview";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(EXTEND).bind(app.as_str()).bind(expires_at.as_microsecond()).bind(now.as_microsecond());
        let done = query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await?;
        Ok((done.rows_affected() > 0).then_some(expires_at))
    }

    /// A preview is to end as soon as it can. Succeeds if it is none.
    pub async fn end_preview(&self, app: &AppName) -> Result<(), StoreError> {
        self.change_preview("UPDATE previews SET expires_at = $2 WHERE app = $1", app, 0_i64).await
    }

    async fn change_preview<'q, T>(&self, statement: &'static str, app: &AppName, value: T) -> Result<(), StoreError>
    where
        T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + 'q,
    {
        const ACTION: &str = "change a preview";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(statement).bind(app.as_str().to_owned()).bind(value);
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Whether a preview has to end by this moment.
    pub async fn is_preview_due(&self, app: &AppName, now: Timestamp) -> Result<bool, StoreError> {
        let text = format!("SELECT EXISTS (SELECT 1 FROM previews WHERE app = $2 AND ({DUE}))");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(text)).bind(now.as_microsecond()).bind(app.as_str());
        query.fetch_one(self.database().readers()).await.map_err(|error| self.database().failed("read a preview", &error))
    }

    /// Previews that have to end by this moment.
    pub async fn due_previews(&self, now: Timestamp) -> Result<Vec<AppName>, StoreError> {
        let text = format!("SELECT app FROM previews WHERE {DUE} ORDER BY app");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(text)).bind(now.as_microsecond());
        let names: Result<Vec<String>, _> = query.fetch_all(self.database().readers()).await;
        let names = names.map_err(|error| self.database().failed("list previews", &error))?;
        names.into_iter().map(|name| self.name_of_preview(&name)).collect()
    }

    /// When the next preview has to end.
    pub async fn next_preview_expiry(&self) -> Result<Option<Timestamp>, StoreError> {
        let query = sqlx::query_scalar("SELECT MIN(expires_at) FROM previews");
        let next: Option<i64> =
            query.fetch_one(self.database().readers()).await.map_err(|error| self.database().failed("list previews", &error))?;
        next.map(|moment| self.moment(moment)).transpose()
    }

    fn name_of_preview(&self, name: &str) -> Result<AppName, StoreError> {
        let unreadable = |error| StoreError::unreadable(self.database().path(), "a preview", error);
        name.parse().map_err(|error: coracle_model::NameError| unreadable(error))
    }

    fn preview_record(&self, row: Row) -> Result<PreviewRecord, StoreError> {
        let (app, parent, branch, host, commit, ttl, created_at, pushed_at, expires_at) = row;
        let unreadable = |error: coracle_model::NameError| StoreError::unreadable(self.database().path(), "a preview", error);
        Ok(PreviewRecord {
            app: self.name_of_preview(&app)?,
            parent: self.name_of_preview(&parent)?,
            branch,
            host: host.parse().map_err(unreadable)?,
            commit,
            ttl,
            created_at: self.moment(created_at)?,
            pushed_at: self.moment(pushed_at)?,
            expires_at: self.moment(expires_at)?,
        })
    }
}

fn after(now: Timestamp, seconds: u32) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(now)
}
