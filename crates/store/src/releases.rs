//! Releases: written once, never changed.

use std::collections::BTreeMap;

use coracle_model::{
    AppName, AppSpec, Artifact, EnvName, NameError, Origin, PinnedImage, ProcessName, Release, ReleaseNumber, Secret,
};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection};
use zeroize::Zeroizing;

use crate::Store;
use crate::error::StoreError;
use crate::seal::Record;

/// What a release is made of, before it is written.
#[derive(Debug, Clone)]
pub struct NewRelease {
    /// The app.
    pub app: AppName,
    /// The number that [`Store::begin_deployment`] gave.
    pub number: ReleaseNumber,
    /// What was built.
    pub artifact: Artifact,
    /// What the processes of their own source run.
    pub artifacts: BTreeMap<ProcessName, Artifact>,
    /// The manifest.
    pub spec: AppSpec,
    /// Where it came from.
    pub origin: Origin,
    /// The configuration it runs with, values included; sealed.
    pub env: Vec<(EnvName, Secret)>,
}

type Row = (String, u32, String, String, String, Option<Vec<u8>>, String, i64);

/// What a [`Row`] has.
const COLUMNS: &str = "releases.app, number, artifact, artifacts, spec, sealed_spec, origin, releases.created_at";

/// What stands where the spec would, if it is sealed.
const SEALED: &str = "{}";

/// Whether a spec has a place for values that nobody should read in the database.
fn is_private(spec: &AppSpec) -> bool {
    spec.parts().any(|(_, part)| part.source.is_some() || !part.container.env.is_empty() || !part.container.files.is_empty())
}

impl Store {
    /// Writes a release. It is not active yet.
    pub async fn create_release(&self, release: NewRelease) -> Result<Release, StoreError> {
        const ACTION: &str = "write a release";
        const INSERT: &str = "INSERT INTO releases (app, number, artifact, artifacts, spec, sealed_spec, origin, env,
            created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let failed = |error| self.database().failed(ACTION, &error);
        let NewRelease { app, number, artifact, artifacts, spec, origin, env } = release;
        let sealed = self.seal().seal(Record::Release(&app, number), &encode_env(&env)?)?;
        let text = Zeroizing::new(self.to_json(ACTION, &spec)?);
        let (shown, sealed_spec) = match is_private(&spec) {
            true => (SEALED, Some(self.seal().seal(Record::Spec(&app, number), text.as_bytes())?)),
            false => (text.as_str(), None),
        };
        let now = Timestamp::now().as_microsecond();
        let mut transaction = self.database().begin(ACTION).await?;
        self.app_within(&mut transaction, &app).await?;
        let query = sqlx::query_scalar("SELECT last_release FROM apps WHERE name = $1").bind(app.as_str());
        let last: u32 = query.fetch_one(&mut *transaction).await.map_err(failed)?;
        if number.get() > last {
            return Err(StoreError::Failed { action: ACTION, cause: format!("{number} of {app} was given to no deployment") });
        }
        sqlx::query(INSERT)
            .bind(app.as_str())
            .bind(number.get())
            .bind(self.to_json(ACTION, &artifact)?)
            .bind(self.to_json(ACTION, &artifacts)?)
            .bind(shown)
            .bind(sealed_spec)
            .bind(self.to_json(ACTION, &origin)?)
            .bind(sealed)
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        self.database().commit(ACTION, transaction).await?;
        Ok(Release { app, number, artifact, artifacts, spec, origin, created_at: self.moment(now)? })
    }

    /// One release.
    pub async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Release, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM releases WHERE app = $1 AND number = $2");
        let query = sqlx::query_as::<_, Row>(AssertSqlSafe(select)).bind(app.as_str()).bind(number.get());
        let row = query.fetch_optional(self.database().readers()).await;
        match row.map_err(|error| self.database().failed("read a release", &error))? {
            Some(row) => self.release_record(row),
            None => Err(self.absent(app, number).await),
        }
    }

    /// All releases of an app that are kept, oldest first.
    pub async fn releases(&self, app: &AppName) -> Result<Vec<Release>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM releases WHERE app = $1 ORDER BY number");
        let query = sqlx::query_as::<_, Row>(AssertSqlSafe(select)).bind(app.as_str());
        let rows = query.fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("list releases", &error))?;
        if rows.is_empty() {
            self.app(app).await?;
        }
        rows.into_iter().map(|row| self.release_record(row)).collect()
    }

    /// The releases that are active, by app.
    pub async fn active_releases(&self) -> Result<Vec<Release>, StoreError> {
        let connection = self.database().readers().acquire().await;
        let mut connection = connection.map_err(|error| self.database().failed("list active releases", &error))?;
        self.active_releases_within(&mut connection).await
    }

    /// The releases that are active inside a transaction, by app.
    pub(crate) async fn active_releases_within(&self, connection: &mut SqliteConnection) -> Result<Vec<Release>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM apps JOIN releases ON app = name AND number = active ORDER BY app");
        let rows = sqlx::query_as::<_, Row>(AssertSqlSafe(select)).fetch_all(connection).await;
        let rows = rows.map_err(|error| self.database().failed("list active releases", &error))?;
        rows.into_iter().map(|row| self.release_record(row)).collect()
    }

    /// The configuration a release runs with, in the order it was given.
    pub async fn release_env(&self, app: &AppName, number: ReleaseNumber) -> Result<Vec<(EnvName, Secret)>, StoreError> {
        let query = sqlx::query_scalar("SELECT env FROM releases WHERE app = $1 AND number = $2");
        let sealed = query.bind(app.as_str()).bind(number.get()).fetch_optional(self.database().readers()).await;
        let sealed: Option<Vec<u8>> =
            sealed.map_err(|error| self.database().failed("read the configuration of a release", &error))?;
        let Some(sealed) = sealed else { return Err(self.absent(app, number).await) };
        let opened = self.seal().open(Record::Release(app, number), &sealed)?;
        // What serde has to say about it might quote it.
        decode_env(&opened).ok_or_else(|| {
            StoreError::unreadable(self.database().path(), &format!("the configuration of {app} {number}"), "not in our form")
        })
    }

    /// Writes down where a registry has what a release runs. Once it is active, nothing of it is changed any more.
    pub async fn note_pushed(&self, app: &AppName, number: ReleaseNumber, image: &PinnedImage) -> Result<(), StoreError> {
        const ACTION: &str = "note where a release was pushed to";
        let failed = |error| self.database().failed(ACTION, &error);
        let mut transaction = self.database().begin(ACTION).await?;
        if self.app_within(&mut transaction, app).await?.active == Some(number) {
            return Err(StoreError::Active(app.clone(), number));
        }
        let query = sqlx::query_scalar::<_, String>("SELECT artifact FROM releases WHERE app = $1 AND number = $2");
        let text = query.bind(app.as_str()).bind(number.get()).fetch_optional(&mut *transaction).await.map_err(failed)?;
        let text = text.ok_or_else(|| StoreError::NoSuchRelease(app.clone(), number))?;
        let mut artifact: Artifact = serde_json::from_str(&text)
            .map_err(|error| StoreError::unreadable(self.database().path(), &format!("release {number} of {app}"), error))?;
        artifact.registry = Some(image.clone());
        sqlx::query("UPDATE releases SET artifact = $3 WHERE app = $1 AND number = $2")
            .bind(app.as_str())
            .bind(number.get())
            .bind(self.to_json(ACTION, &artifact)?)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        self.database().commit(ACTION, transaction).await
    }

    /// Keeps the manifest that a release was described by; it goes with the release.
    pub async fn keep_manifest(&self, app: &AppName, number: ReleaseNumber, text: &str) -> Result<(), StoreError> {
        const ACTION: &str = "keep a manifest";
        const SET: &str = "INSERT INTO manifests (app, release, text) VALUES ($1, $2, $3)
            ON CONFLICT (app, release) DO UPDATE SET text = excluded.text";
        let sealed = self.seal().seal(Record::Manifest(app, number), text.as_bytes())?;
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(SET).bind(app.as_str()).bind(number.get()).bind(sealed);
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// The manifest that a release was described by, if one was kept.
    pub async fn manifest(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar::<_, Vec<u8>>("SELECT text FROM manifests WHERE app = $1 AND release = $2");
        let sealed = query.bind(app.as_str()).bind(number.get()).fetch_optional(self.database().readers()).await;
        let Some(sealed) = sealed.map_err(|error| self.database().failed("read a manifest", &error))? else { return Ok(None) };
        let opened = self.seal().open(Record::Manifest(app, number), &sealed)?;
        let text = std::str::from_utf8(&opened).map_err(|_| {
            StoreError::unreadable(self.database().path(), &format!("the manifest of {app} {number}"), "it is not a text")
        })?;
        Ok(Some(text.to_owned()))
    }

    /// Removes a release that is not active ([`StoreError::Active`] if it is). Its number is not given again. Succeeds if
    /// it is not there.
    pub async fn delete_release(&self, app: &AppName, number: ReleaseNumber) -> Result<(), StoreError> {
        const ACTION: &str = "delete a release";
        let mut transaction = self.database().begin(ACTION).await?;
        match self.app_within(&mut transaction, app).await {
            Ok(record) if record.active == Some(number) => return Err(StoreError::Active(app.clone(), number)),
            Ok(_) => {}
            Err(StoreError::NoSuchApp(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        sqlx::query("DELETE FROM releases WHERE app = $1 AND number = $2")
            .bind(app.as_str())
            .bind(number.get())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Whether a release exists, inside a transaction.
    pub(crate) async fn require_release(
        &self,
        connection: &mut SqliteConnection,
        app: &AppName,
        number: ReleaseNumber,
    ) -> Result<(), StoreError> {
        let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM releases WHERE app = $1 AND number = $2)");
        let exists = query.bind(app.as_str()).bind(number.get()).fetch_one(connection).await;
        let exists: bool = exists.map_err(|error| self.database().failed("look for a release", &error))?;
        if exists { Ok(()) } else { Err(StoreError::NoSuchRelease(app.clone(), number)) }
    }

    /// What is not there: the app or only the release.
    async fn absent(&self, app: &AppName, number: ReleaseNumber) -> StoreError {
        self.app(app).await.err().unwrap_or_else(|| StoreError::NoSuchRelease(app.clone(), number))
    }

    fn release_record(&self, row: Row) -> Result<Release, StoreError> {
        let (app, number, artifact, artifacts, spec, sealed_spec, origin, created_at) = row;
        let what = format!("release {number} of {app}");
        let unreadable = |error: serde_json::Error| StoreError::unreadable(self.database().path(), &what, error);
        let name = app.parse();
        let app = name.map_err(|error: NameError| StoreError::unreadable(self.database().path(), &what, error))?;
        let number = self.release_number(number)?;
        let spec = match sealed_spec {
            None => serde_json::from_str(&spec).map_err(unreadable)?,
            Some(sealed) => {
                let opened = self.seal().open(Record::Spec(&app, number), &sealed)?;
                // What serde has to say about it might quote it.
                serde_json::from_slice(&opened)
                    .map_err(|_| StoreError::unreadable(self.database().path(), &what, "its description is not in our form"))?
            }
        };
        Ok(Release {
            app,
            number,
            artifact: serde_json::from_str(&artifact).map_err(unreadable)?,
            artifacts: serde_json::from_str(&artifacts).map_err(unreadable)?,
            spec,
            origin: serde_json::from_str(&origin).map_err(unreadable)?,
            created_at: self.moment(created_at)?,
        })
    }
}

/// Pairs of name and value as JSON, in memory that is wiped.
pub(crate) fn encode_env(env: &[(EnvName, Secret)]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let pairs: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    let encoded = serde_json::to_vec(&pairs).map(Zeroizing::new);
    encoded.map_err(|_| StoreError::Failed { action: "seal the configuration", cause: "it is not a text".to_owned() })
}

fn decode_env(encoded: &[u8]) -> Option<Vec<(EnvName, Secret)>> {
    let pairs: Vec<(EnvName, String)> = serde_json::from_slice(encoded).ok()?;
    Some(pairs.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
}
