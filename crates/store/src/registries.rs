//! Who the server and its apps are to registries. Passwords are sealed, and leave for the engine alone.

use coracle_model::{AppName, Logins, RegistryHost, RegistryLogin, Secret};
use jiff::Timestamp;

use crate::Store;
use crate::error::StoreError;
use crate::seal::Record;

/// What is known of a login without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRecord {
    /// The registry.
    pub host: RegistryHost,
    /// The app that it holds for; `None`: all of them.
    pub app: Option<AppName>,
    /// The user's name.
    pub username: String,
    /// When it was given.
    pub updated_at: Timestamp,
}

/// What stands for every app.
fn scope(app: Option<&AppName>) -> &str {
    app.map(AppName::as_str).unwrap_or_default()
}

impl Store {
    /// Keeps a login in place of the one before: of an app, or (`None`) of all.
    pub async fn set_registry_login(
        &self,
        app: Option<&AppName>,
        host: &RegistryHost,
        login: &RegistryLogin,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "keep a registry's login";
        const SET: &str = "INSERT INTO registry_logins (app, host, username, password, updated_at) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (app, host) DO UPDATE SET username = excluded.username, password = excluded.password,
                updated_at = excluded.updated_at";
        let sealed = self.seal().seal(Record::Login(scope(app), host), login.password.expose().as_bytes())?;
        let mut transaction = self.database().begin(ACTION).await?;
        if let Some(app) = app {
            self.app_within(&mut transaction, app).await?;
        }
        let query = sqlx::query(SET).bind(scope(app)).bind(host.as_str()).bind(&login.username).bind(sealed);
        let kept = query.bind(Timestamp::now().as_microsecond()).execute(&mut *transaction).await;
        kept.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Forgets a login. Whether there was one.
    pub async fn remove_registry_login(&self, app: Option<&AppName>, host: &RegistryHost) -> Result<bool, StoreError> {
        const ACTION: &str = "forget a registry's login";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("DELETE FROM registry_logins WHERE app = $1 AND host = $2").bind(scope(app)).bind(host.as_str());
        let removed = query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await?;
        Ok(removed.rows_affected() > 0)
    }

    /// The logins of an app alone, or (`None`) those that hold for all, by address.
    pub async fn registry_logins(&self, app: Option<&AppName>) -> Result<Vec<LoginRecord>, StoreError> {
        const SELECT: &str = "SELECT host, username, updated_at FROM registry_logins WHERE app = $1 ORDER BY host";
        let rows = sqlx::query_as::<_, (String, String, i64)>(SELECT).bind(scope(app)).fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("list logins of registries", &error))?;
        let record = |(host, username, updated_at): (String, String, i64)| {
            Ok(LoginRecord { host: self.host(&host)?, app: app.cloned(), username, updated_at: self.moment(updated_at)? })
        };
        rows.into_iter().map(record).collect()
    }

    /// Everything that an app may show to registries: what holds for all, and its own before that.
    pub async fn logins_of(&self, app: &AppName) -> Result<Logins, StoreError> {
        self.logins_in(app, None).await
    }

    /// What an app may show to registries of its own.
    pub async fn own_logins_of(&self, app: &AppName) -> Result<Logins, StoreError> {
        self.logins_in(app, Some(app)).await
    }

    /// The app's own logins, over those of another scope.
    async fn logins_in(&self, app: &AppName, other: Option<&AppName>) -> Result<Logins, StoreError> {
        // An empty app comes first, so that the app's own takes its place.
        const SELECT: &str = "SELECT app, host, username, password FROM registry_logins WHERE app IN ($2, $1) ORDER BY app";
        let query = sqlx::query_as::<_, (String, String, String, Vec<u8>)>(SELECT).bind(app.as_str()).bind(scope(other));
        let rows = query.fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("read logins of registries", &error))?;
        let login = |(scope, host, username, sealed): (String, String, String, Vec<u8>)| {
            let host = self.host(&host)?;
            let opened = self.seal().open(Record::Login(&scope, &host), &sealed)?;
            let what = format!("the password for {host}");
            let password = std::str::from_utf8(&opened)
                .map_err(|_| StoreError::unreadable(self.database().path(), &what, "it is not a text"))?;
            Ok((host, RegistryLogin { username, password: Secret::new(password) }))
        };
        let logins: Logins = rows.into_iter().map(login).collect::<Result<_, StoreError>>()?;
        let query = sqlx::query_scalar::<_, String>("SELECT DISTINCT host FROM registry_logins WHERE app <> ''");
        let guarded = query.fetch_all(self.database().readers()).await;
        let guarded = guarded.map_err(|error| self.database().failed("read logins of registries", &error))?;
        let guarded: Vec<RegistryHost> = guarded.iter().map(|host| self.host(host)).collect::<Result<_, StoreError>>()?;
        Ok(logins.guarding(guarded))
    }

    fn host(&self, text: &str) -> Result<RegistryHost, StoreError> {
        text.parse().map_err(|error: coracle_model::HostError| {
            StoreError::unreadable(self.database().path(), "a registry's address", error)
        })
    }
}
