//! The current configuration of an app. Every value is sealed, whether it was set as a secret or not.

use coracle_model::{AppName, EnvName, Secret};
use jiff::Timestamp;
use sqlx::SqliteConnection;

use crate::Store;
use crate::error::StoreError;
use crate::seal::Record;

/// A configuration entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: EnvName,
    /// Its value; sealed in the file whether secret or not.
    pub value: Secret,
    /// Whether it was set as a secret, and so is never shown again.
    pub secret: bool,
    /// When it was set.
    pub updated_at: Timestamp,
}

/// A change of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Which name.
    pub name: EnvName,
    /// The new value; `None` unsets it.
    pub value: Option<Secret>,
    /// Whether it is a secret.
    pub secret: bool,
}

type Row = (String, Vec<u8>, bool, i64);

impl Store {
    /// The current configuration, by name. (What a release runs with is [`Store::release_env`].)
    pub async fn config(&self, app: &AppName) -> Result<Vec<ConfigEntry>, StoreError> {
        let query = sqlx::query_as::<_, Row>("SELECT name, value, secret, updated_at FROM config WHERE app = $1 ORDER BY name");
        let rows = query.bind(app.as_str()).fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("read the configuration", &error))?;
        if rows.is_empty() {
            self.app(app).await?;
        }
        rows.into_iter().map(|row| self.config_entry(app, row)).collect()
    }

    /// Applies all changes in their order, or none.
    pub async fn set_config(&self, app: &AppName, changes: &[ConfigChange]) -> Result<(), StoreError> {
        const ACTION: &str = "change the configuration";
        let mut transaction = self.database().begin(ACTION).await?;
        self.app_within(&mut transaction, app).await?;
        self.change_config_within(&mut transaction, app, changes).await?;
        self.database().commit(ACTION, transaction).await
    }

    /// Changes the configuration as a part of something greater, in whose transaction it stands.
    pub(crate) async fn change_config_within(
        &self,
        connection: &mut SqliteConnection,
        app: &AppName,
        changes: &[ConfigChange],
    ) -> Result<(), StoreError> {
        const SET: &str = "INSERT INTO config (app, name, value, secret, updated_at) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (app, name) DO UPDATE SET value = excluded.value, secret = excluded.secret, updated_at = excluded.updated_at";
        const UNSET: &str = "DELETE FROM config WHERE app = $1 AND name = $2";
        let now = Timestamp::now().as_microsecond();
        for change in changes {
            let query = match &change.value {
                Some(value) => {
                    let sealed = self.seal().seal(Record::Config(app, &change.name), value.expose().as_bytes())?;
                    let query = sqlx::query(SET).bind(app.as_str()).bind(change.name.as_str());
                    query.bind(sealed).bind(change.secret).bind(now)
                }
                None => sqlx::query(UNSET).bind(app.as_str()).bind(change.name.as_str()),
            };
            let changed = query.execute(&mut *connection).await;
            changed.map_err(|error| self.database().failed("change the configuration", &error))?;
        }
        Ok(())
    }

    fn config_entry(&self, app: &AppName, (name, sealed, secret, updated_at): Row) -> Result<ConfigEntry, StoreError> {
        let unreadable = |cause: &str| StoreError::unreadable(self.database().path(), &format!("{name} of {app}"), cause);
        let name: EnvName = name.parse().map_err(|_| unreadable("the name is not valid"))?;
        let value = self.seal().open(Record::Config(app, &name), &sealed)?;
        let value = Secret::new(std::str::from_utf8(&value).map_err(|_| unreadable("the value is not a text"))?);
        Ok(ConfigEntry { name, value, secret, updated_at: self.moment(updated_at)? })
    }
}
