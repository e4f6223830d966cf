//! Repositories at forges that apps are deployed from, and the deliveries of their webhooks that were taken. What a forge is, and
//! what an address may be, is known elsewhere: here they are texts.

use coracle_model::{AppName, Secret};
use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};

use crate::Store;
use crate::error::StoreError;
use crate::seal::Record;

/// How many deliveries of each app are remembered; those taken last.
pub const DELIVERIES_KEPT: u32 = 2000;

/// For how long deliveries are remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The column `wanted` counts how often the branch was asked for, and stands below zero while all of that is done. It never comes
/// back to what it was, so that who has done something takes away nothing that was asked for meanwhile.
const WANT: &str = "UPDATE forges SET wanted = abs(wanted) + 1 WHERE app = $1";

/// The same, if this is the branch that is deployed.
const WANT_BRANCH: &str = "UPDATE forges SET wanted = abs(wanted) + 1 WHERE app = $1 AND branch = $2";

/// A repository that an app is deployed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeRecord {
    /// The app.
    pub app: AppName,
    /// What its webhook's path ends with.
    pub hook: String,
    /// Which kind of forge it is.
    pub forge: String,
    /// The address of the repository.
    pub url: String,
    /// The branch that is deployed.
    pub branch: String,
    /// The address of the forge's API.
    pub api: String,
    /// What webhooks are signed with. Sealed.
    pub secret: Secret,
    /// What the forge is shown. Sealed.
    pub token: Option<Secret>,
    /// What is shown where git gets there over SSH.
    pub key: Option<ForgeKey>,
    /// The keys that the host may show, as lines of `known_hosts`.
    pub known_hosts: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// How often the branch was asked for, while that is not done yet. It is read, and never written from here.
    pub wanted: Option<i64>,
    /// What came of the last event.
    pub last: Option<LastEvent>,
}

/// A key that a forge lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeKey {
    /// The private half. Sealed.
    pub private: Secret,
    /// The public half, as a line of `authorized_keys`.
    pub public: String,
}

/// What came of an event at a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEvent {
    /// When that was known.
    pub at: Timestamp,
    /// About which commit, if that was known.
    pub commit: Option<String>,
    /// In a sentence.
    pub word: String,
    /// Whether that is nothing good.
    pub failed: bool,
}

struct Row {
    app: String,
    hook: String,
    forge: String,
    url: String,
    branch: String,
    api: String,
    secret: Vec<u8>,
    token: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    public_key: Option<String>,
    known_hosts: Option<String>,
    created_at: i64,
    wanted: i64,
    last_at: Option<i64>,
    last_commit: Option<String>,
    last_word: Option<String>,
    last_failed: bool,
}

impl FromRow<'_, SqliteRow> for Row {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            app: row.try_get("app")?,
            hook: row.try_get("hook")?,
            forge: row.try_get("forge")?,
            url: row.try_get("url")?,
            branch: row.try_get("branch")?,
            api: row.try_get("api")?,
            secret: row.try_get("secret")?,
            token: row.try_get("token")?,
            key: row.try_get("key")?,
            public_key: row.try_get("public_key")?,
            known_hosts: row.try_get("known_hosts")?,
            created_at: row.try_get("created_at")?,
            wanted: row.try_get("wanted")?,
            last_at: row.try_get("last_at")?,
            last_commit: row.try_get("last_commit")?,
            last_word: row.try_get("last_word")?,
            last_failed: row.try_get("last_failed")?,
        })
    }
}

impl Store {
    /// Connects an app, which has to be there, with a repository, in place of the one before. With another webhook, what was taken
    /// of the one before is forgotten; with another branch, what was asked for of the one before is not wanted any more.
    pub async fn connect_forge(&self, record: &ForgeRecord) -> Result<(), StoreError> {
        const ACTION: &str = "connect a repository";
        const OTHER: &str = "DELETE FROM forges WHERE app = $1 AND hook <> $2";
        const UPSERT: &str = "INSERT INTO forges
            (app, hook, forge, url, branch, api, secret, token, key, public_key, known_hosts, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
            ON CONFLICT (app) DO UPDATE SET forge = excluded.forge, url = excluded.url, branch = excluded.branch, api = excluded.api,
                secret = excluded.secret, token = excluded.token, key = excluded.key, public_key = excluded.public_key,
                known_hosts = excluded.known_hosts,
                wanted = CASE WHEN forges.branch = excluded.branch THEN forges.wanted ELSE -abs(forges.wanted) END";
        let app = &record.app;
        let sealed = |what, secret: &Secret| self.seal().seal(Record::Forge(app, what), secret.expose().as_bytes());
        let secret = sealed("secret", &record.secret)?;
        let token = record.token.as_ref().map(|token| sealed("token", token)).transpose()?;
        let key = record.key.as_ref().map(|key| sealed("key", &key.private)).transpose()?;
        let failed = |error| self.database().failed(ACTION, &error);
        let mut transaction = self.database().begin(ACTION).await?;
        self.app_within(&mut transaction, app).await?;
        let other = sqlx::query(OTHER).bind(app.as_str()).bind(&record.hook);
        other.execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query(UPSERT).bind(app.as_str()).bind(&record.hook).bind(&record.forge).bind(&record.url);
        let query = query.bind(&record.branch).bind(&record.api).bind(secret).bind(token).bind(key);
        let query = query.bind(record.key.as_ref().map(|key| &key.public)).bind(&record.known_hosts);
        query.bind(record.created_at.as_microsecond()).execute(&mut *transaction).await.map_err(failed)?;
        self.database().commit(ACTION, transaction).await
    }

    /// The repository that an app is deployed from, if it is connected with one.
    pub async fn forge(&self, app: &AppName) -> Result<Option<ForgeRecord>, StoreError> {
        self.forge_where("SELECT * FROM forges WHERE app = $1", app.as_str()).await
    }

    /// The connection that a webhook belongs to, by what its path ends with.
    pub async fn forge_by_hook(&self, hook: &str) -> Result<Option<ForgeRecord>, StoreError> {
        self.forge_where("SELECT * FROM forges WHERE hook = $1", hook).await
    }

    async fn forge_where(&self, sql: &'static str, value: &str) -> Result<Option<ForgeRecord>, StoreError> {
        let row = sqlx::query_as::<_, Row>(sql).bind(value).fetch_optional(self.database().readers()).await;
        let row = row.map_err(|error| self.database().failed("read a connection with a repository", &error))?;
        row.map(|row| self.forge_record(row)).transpose()
    }

    /// Ends a connection; whether there was one.
    pub async fn disconnect_forge(&self, app: &AppName) -> Result<bool, StoreError> {
        const ACTION: &str = "disconnect a repository";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("DELETE FROM forges WHERE app = $1").bind(app.as_str());
        let gone = query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await?;
        Ok(gone.rows_affected() > 0)
    }

    /// Takes a delivery that is known by these texts; whether it is taken for the first time. If it asks for a branch, that is written
    /// down with it, unless another branch is deployed by now. Deliveries beyond [`DELIVERIES_KEPT`], and those of long ago, are
    /// forgotten.
    pub async fn take_delivery(&self, app: &AppName, known_by: &[String], wanted: Option<&str>) -> Result<bool, StoreError> {
        const ACTION: &str = "take a delivery";
        const INSERT: &str =
            "INSERT INTO deliveries (app, delivery, taken_at) VALUES ($1, $2, $3) ON CONFLICT (app, delivery) DO NOTHING";
        const FORGET: &str = "DELETE FROM deliveries WHERE app = $1 AND (taken_at < $2 OR delivery NOT IN
            (SELECT delivery FROM deliveries WHERE app = $1 ORDER BY taken_at DESC, delivery LIMIT $3))";
        let failed = |error| self.database().failed(ACTION, &error);
        let now = Timestamp::now();
        let long_ago = now.saturating_sub(REMEMBERED).unwrap_or(Timestamp::MIN).as_microsecond();
        let mut transaction = self.database().begin(ACTION).await?;
        for text in known_by {
            let query = sqlx::query(INSERT).bind(app.as_str()).bind(text).bind(now.as_microsecond());
            if query.execute(&mut *transaction).await.map_err(failed)?.rows_affected() == 0 {
                // What was written for the texts before it is undone with the transaction.
                return Ok(false);
            }
        }
        let forget = sqlx::query(FORGET).bind(app.as_str()).bind(long_ago).bind(DELIVERIES_KEPT);
        forget.execute(&mut *transaction).await.map_err(failed)?;
        if let Some(branch) = wanted {
            let query = sqlx::query(WANT_BRANCH).bind(app.as_str()).bind(branch);
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        self.database().commit(ACTION, transaction).await?;
        Ok(true)
    }

    /// Forgets that a delivery was taken, since nothing could be done about it.
    pub async fn give_back_delivery(&self, app: &AppName, known_by: &[String]) -> Result<(), StoreError> {
        const ACTION: &str = "give a delivery back";
        let mut transaction = self.database().begin(ACTION).await?;
        for text in known_by {
            let query = sqlx::query("DELETE FROM deliveries WHERE app = $1 AND delivery = $2").bind(app.as_str()).bind(text);
            query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        }
        self.database().commit(ACTION, transaction).await
    }

    /// Writes down that the branch of an app is asked for. Succeeds if the app is not connected any more.
    pub async fn want_forge(&self, app: &AppName) -> Result<(), StoreError> {
        const ACTION: &str = "write down what is asked for";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(WANT).bind(app.as_str());
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Writes down that what was asked for is done, as far as this record knows of it: what has been asked for since it was read
    /// stays wanted. Succeeds if the app is not connected so any more.
    pub async fn forge_is_done(&self, record: &ForgeRecord) -> Result<(), StoreError> {
        const ACTION: &str = "write down that what was asked for is done";
        const DONE: &str = "UPDATE forges SET wanted = -wanted WHERE app = $1 AND hook = $2 AND wanted = $3";
        let Some(wanted) = record.wanted else { return Ok(()) };
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(DONE).bind(record.app.as_str()).bind(&record.hook).bind(wanted);
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Apps for which something has been asked for that is not done yet, by name.
    pub async fn wanted_forges(&self) -> Result<Vec<AppName>, StoreError> {
        let query = sqlx::query_scalar("SELECT app FROM forges WHERE wanted > 0 ORDER BY app");
        let names: Result<Vec<String>, _> = query.fetch_all(self.database().readers()).await;
        let names = names.map_err(|error| self.database().failed("list what is asked for", &error))?;
        let unreadable = |error: coracle_model::NameError| StoreError::unreadable(self.database().path(), "an app", error);
        names.into_iter().map(|name| name.parse().map_err(unreadable)).collect()
    }

    /// Writes down what came of an event. Succeeds if the app is not connected any more.
    pub async fn record_forge_event(&self, app: &AppName, last: &LastEvent) -> Result<(), StoreError> {
        const ACTION: &str = "write down what came of an event";
        const UPDATE: &str = "UPDATE forges SET last_at = $2, last_commit = $3, last_word = $4, last_failed = $5 WHERE app = $1";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(UPDATE).bind(app.as_str()).bind(last.at.as_microsecond()).bind(&last.commit);
        let written = query.bind(&last.word).bind(last.failed).execute(&mut *transaction).await;
        written.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Says more about an event, unless another has come since.
    pub async fn amend_forge_event(&self, app: &AppName, at: Timestamp, word: &str) -> Result<(), StoreError> {
        const ACTION: &str = "write down what came of an event";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("UPDATE forges SET last_word = $3 WHERE app = $1 AND last_at = $2");
        let query = query.bind(app.as_str()).bind(at.as_microsecond()).bind(word);
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    fn forge_record(&self, row: Row) -> Result<ForgeRecord, StoreError> {
        let what = format!("the repository of {}", row.app);
        let unreadable = |cause: String| StoreError::unreadable(self.database().path(), &what, cause);
        let app: AppName = row.app.parse().map_err(|error: coracle_model::NameError| unreadable(error.to_string()))?;
        let opened = |part, sealed: &[u8]| {
            let value = self.seal().open(Record::Forge(&app, part), sealed)?;
            std::str::from_utf8(&value).map(Secret::new).map_err(|error| unreadable(error.to_string()))
        };
        let key = match (&row.key, row.public_key) {
            (Some(key), Some(public)) => Some(ForgeKey { private: opened("key", key)?, public }),
            _ => None,
        };
        let last = match (row.last_at, row.last_word) {
            (Some(at), Some(word)) => {
                Some(LastEvent { at: self.moment(at)?, commit: row.last_commit, word, failed: row.last_failed })
            }
            _ => None,
        };
        Ok(ForgeRecord {
            secret: opened("secret", &row.secret)?,
            token: row.token.as_ref().map(|token| opened("token", token)).transpose()?,
            key,
            last,
            created_at: self.moment(row.created_at)?,
            wanted: (row.wanted > 0).then_some(row.wanted),
            hook: row.hook,
            forge: row.forge,
            url: row.url,
            branch: row.branch,
            api: row.api,
            known_hosts: row.known_hosts,
            app,
        })
    }
}
