//! Stateful services that should run: which release described each of them last.

use coracle_model::{AppName, ProcessName, ReleaseNumber};

use crate::Store;
use crate::error::StoreError;

/// A stateful service on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Its name.
    pub name: ProcessName,
    /// The release whose description it runs by; its instance bears that number.
    pub release: ReleaseNumber,
    /// The release whose description it ran by before.
    pub previous: Option<ReleaseNumber>,
}

impl Store {
    /// The stateful services of an app, by name.
    pub async fn services(&self, app: &AppName) -> Result<Vec<ServiceRecord>, StoreError> {
        let query = sqlx::query_as::<_, (String, u32, Option<u32>)>(
            "SELECT name, release, previous FROM services WHERE app = $1 ORDER BY name",
        );
        let rows = query.bind(app.as_str()).fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("list services", &error))?;
        let record = |(name, release, previous): (String, u32, Option<u32>)| {
            let unreadable = |cause: coracle_model::NameError| {
                StoreError::unreadable(self.database().path(), &format!("a service of {app}"), cause)
            };
            Ok(ServiceRecord {
                name: name.parse().map_err(unreadable)?,
                release: self.release_number(release)?,
                previous: previous.map(|number| self.release_number(number)).transpose()?,
            })
        };
        rows.into_iter().map(record).collect()
    }

    /// Writes down that a service runs as this release describes it from now on, and remembers which one did before.
    pub async fn set_service(&self, app: &AppName, name: &ProcessName, release: ReleaseNumber) -> Result<(), StoreError> {
        const ACTION: &str = "write a service";
        const UPSERT: &str = "INSERT INTO services (app, name, release) VALUES ($1, $2, $3) ON CONFLICT (app, name)
            DO UPDATE SET previous = release, release = excluded.release WHERE release <> excluded.release";
        let mut transaction = self.database().begin(ACTION).await?;
        self.require_release(&mut transaction, app, release).await?;
        let query = sqlx::query(UPSERT).bind(app.as_str()).bind(name.as_str()).bind(release.get());
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Services that run as this release describes them run as they did before it; those that did not exist are forgotten.
    pub async fn revert_services(&self, app: &AppName, release: ReleaseNumber) -> Result<(), StoreError> {
        const ACTION: &str = "take services back";
        let failed = |error| self.database().failed(ACTION, &error);
        let mut transaction = self.database().begin(ACTION).await?;
        for statement in [
            "DELETE FROM services WHERE app = $1 AND release = $2 AND previous IS NULL",
            "UPDATE services SET release = previous, previous = NULL WHERE app = $1 AND release = $2",
        ] {
            let query = sqlx::query(statement).bind(app.as_str()).bind(release.get());
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        self.database().commit(ACTION, transaction).await
    }

    /// Forgets a service. Succeeds if it is not there.
    pub async fn delete_service(&self, app: &AppName, name: &ProcessName) -> Result<(), StoreError> {
        const ACTION: &str = "forget a service";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("DELETE FROM services WHERE app = $1 AND name = $2").bind(app.as_str()).bind(name.as_str());
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }
}
