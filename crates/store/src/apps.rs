//! Apps on record.

use std::collections::BTreeMap;

use coracle_model::{AppName, ProcessName, Release, ReleaseNumber};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use crate::Store;
use crate::error::StoreError;

/// An app on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRecord {
    /// Its name.
    pub name: AppName,
    /// The release that is active; `None` before the first deployment has succeeded.
    pub active: Option<ReleaseNumber>,
    /// How many instances `ps scale` asked for, by process; a process that is not in it runs as many as its release says.
    pub scale: BTreeMap<ProcessName, u16>,
    /// When it was created.
    pub created_at: Timestamp,
}

type Row = (String, Option<u32>, String, i64);

impl Store {
    /// Creates the app if it does not exist, and returns it.
    pub async fn ensure_app(&self, app: &AppName) -> Result<AppRecord, StoreError> {
        const ACTION: &str = "create an app";
        let mut transaction = self.database().begin(ACTION).await?;
        sqlx::query("INSERT INTO apps (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(app.as_str())
            .bind(Timestamp::now().as_microsecond())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        let record = self.app_within(&mut transaction, app).await?;
        self.database().commit(ACTION, transaction).await?;
        Ok(record)
    }

    /// One app.
    pub async fn app(&self, app: &AppName) -> Result<AppRecord, StoreError> {
        let connection = self.database().readers().acquire().await;
        let mut connection = connection.map_err(|error| self.database().failed("read an app", &error))?;
        self.app_within(&mut connection, app).await
    }

    /// All apps, by name.
    pub async fn apps(&self) -> Result<Vec<AppRecord>, StoreError> {
        let connection = self.database().readers().acquire().await;
        let mut connection = connection.map_err(|error| self.database().failed("list apps", &error))?;
        self.apps_within(&mut connection).await
    }

    /// All apps, by name, each with its active release, as they were at one moment: of an app that is deleted meanwhile there is
    /// all or nothing.
    pub async fn apps_with_releases(&self) -> Result<Vec<(AppRecord, Option<Release>)>, StoreError> {
        let failed = |error| self.database().failed("list apps", &error);
        let mut transaction = self.database().readers().begin().await.map_err(failed)?;
        let apps = self.apps_within(&mut transaction).await?;
        let mut releases = self.active_releases_within(&mut transaction).await?.into_iter().peekable();
        let pair = |app: AppRecord| {
            let release = releases.next_if(|release| release.app == app.name);
            (app, release)
        };
        Ok(apps.into_iter().map(pair).collect())
    }

    /// Forgets an app with all its releases, deployments, configuration and roles that name it, and remembers that engines may still have something
    /// of it. Succeeds if it is not there.
    pub async fn delete_app(&self, app: &AppName) -> Result<(), StoreError> {
        const ACTION: &str = "delete an app";
        const REMAINS: &str = "INSERT INTO remains (app, since) VALUES ($1, $2) ON CONFLICT (app) DO NOTHING";
        let failed = |error| self.database().failed(ACTION, &error);
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("DELETE FROM apps WHERE name = $1").bind(app.as_str());
        query.execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query("DELETE FROM grants WHERE app = $1").bind(app.as_str());
        query.execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query("DELETE FROM registry_logins WHERE app = $1").bind(app.as_str());
        query.execute(&mut *transaction).await.map_err(failed)?;
        let query = sqlx::query(REMAINS).bind(app.as_str()).bind(Timestamp::now().as_microsecond());
        query.execute(&mut *transaction).await.map_err(failed)?;
        self.database().commit(ACTION, transaction).await
    }

    /// Apps that were deleted and of which engines may still have something, by name.
    pub async fn remains(&self) -> Result<Vec<AppName>, StoreError> {
        let query = sqlx::query_scalar("SELECT app FROM remains ORDER BY app");
        let names: Result<Vec<String>, _> = query.fetch_all(self.database().readers()).await;
        let names = names.map_err(|error| self.database().failed("list what is left of apps", &error))?;
        let unreadable = |cause| StoreError::unreadable(self.database().path(), "what is left of an app", cause);
        names.into_iter().map(|name| name.parse().map_err(|error: coracle_model::NameError| unreadable(error))).collect()
    }

    /// Writes down that nothing is left of a deleted app. Succeeds if that was known.
    pub async fn forget_remains(&self, app: &AppName) -> Result<(), StoreError> {
        const ACTION: &str = "forget what is left of an app";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("DELETE FROM remains WHERE app = $1").bind(app.as_str());
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Sets how many instances of these processes should run. What was asked for other processes stays.
    pub async fn set_scale(&self, app: &AppName, scale: &[(ProcessName, u16)]) -> Result<(), StoreError> {
        const ACTION: &str = "scale an app";
        let mut transaction = self.database().begin(ACTION).await?;
        let mut wanted = self.app_within(&mut transaction, app).await?.scale;
        wanted.extend(scale.iter().cloned());
        let wanted = self.to_json(ACTION, &wanted)?;
        sqlx::query("UPDATE apps SET scale = $2 WHERE name = $1")
            .bind(app.as_str())
            .bind(wanted)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// All apps as they stand inside a transaction, by name.
    async fn apps_within(&self, connection: &mut SqliteConnection) -> Result<Vec<AppRecord>, StoreError> {
        let query = sqlx::query_as::<_, Row>("SELECT name, active, scale, created_at FROM apps ORDER BY name");
        let rows = query.fetch_all(connection).await.map_err(|error| self.database().failed("list apps", &error))?;
        rows.into_iter().map(|row| self.app_record(row)).collect()
    }

    /// The app as it stands inside a transaction.
    pub(crate) async fn app_within(&self, connection: &mut SqliteConnection, app: &AppName) -> Result<AppRecord, StoreError> {
        let query = sqlx::query_as::<_, Row>("SELECT name, active, scale, created_at FROM apps WHERE name = $1");
        let row = query.bind(app.as_str()).fetch_optional(connection).await;
        let row = row.map_err(|error| self.database().failed("read an app", &error))?;
        self.app_record(row.ok_or_else(|| StoreError::NoSuchApp(app.clone()))?)
    }

    fn app_record(&self, (name, active, scale, created_at): Row) -> Result<AppRecord, StoreError> {
        let unreadable = |cause: String| StoreError::unreadable(self.database().path(), &format!("app {name}"), cause);
        Ok(AppRecord {
            active: active.map(|number| self.release_number(number)).transpose()?,
            scale: serde_json::from_str(&scale).map_err(|error| unreadable(error.to_string()))?,
            created_at: self.moment(created_at)?,
            name: name.parse().map_err(|error: coracle_model::NameError| unreadable(error.to_string()))?,
        })
    }

    pub(crate) fn release_number(&self, number: u32) -> Result<ReleaseNumber, StoreError> {
        ReleaseNumber::new(number).ok_or_else(|| StoreError::unreadable(self.database().path(), "a release number", "it is 0"))
    }

    pub(crate) fn moment(&self, microseconds: i64) -> Result<Timestamp, StoreError> {
        let moment = Timestamp::from_microsecond(microseconds);
        moment.map_err(|error| StoreError::unreadable(self.database().path(), "a moment", error))
    }

    pub(crate) fn to_json(&self, action: &'static str, value: &impl serde::Serialize) -> Result<String, StoreError> {
        serde_json::to_string(value).map_err(|error| StoreError::Failed { action, cause: error.to_string() })
    }
}
