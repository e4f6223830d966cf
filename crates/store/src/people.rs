//! People, their roles, and what they prove themselves by. Who is let in is decided elsewhere.

use coracle_model::{AppName, CredentialId, Grant, NameError, PersonName};
use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;

use crate::Store;
use crate::error::StoreError;

/// How exactly it is known when a credential was last used: not every request has to be written down.
const LAST_USED_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// A person on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonRecord {
    /// The name.
    pub name: PersonName,
    /// What the person may do, by app; the role in every app first.
    pub grants: Vec<Grant>,
    /// What the person proves to be that person by, oldest first.
    pub credentials: Vec<CredentialRecord>,
    /// When it was added.
    pub created_at: Timestamp,
}

/// What a person proves to be that person by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRecord {
    /// Its number.
    pub id: CredentialId,
    /// What people call it: a key's comment, what a token is for.
    pub label: String,
    /// What it is.
    pub proof: Proof,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// What is known of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// An SSH public key.
    Key {
        /// `SHA256:` and the digest in Base64, as `ssh-keygen -l` shows it.
        fingerprint: String,
        /// The key as in `authorized_keys`, without its comment.
        text: String,
    },
    /// A token, of which only the digest is known.
    Token {
        /// BLAKE3.
        digest: [u8; 32],
    },
}

type CredentialRow = (u32, String, String, Option<String>, Option<String>, Option<Vec<u8>>, i64, Option<i64>);

const CREDENTIALS: &str = "SELECT id, person, label, fingerprint, key, digest, created_at, last_used_at FROM credentials";

impl Store {
    /// Everybody, by name.
    pub async fn people(&self) -> Result<Vec<PersonRecord>, StoreError> {
        const ACTION: &str = "list people";
        let failed = |error| self.database().failed(ACTION, &error);
        let mut connection = self.database().readers().acquire().await.map_err(failed)?;
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM people ORDER BY name").fetch_all(&mut *connection).await.map_err(failed)?;
        let mut people = Vec::new();
        for name in names {
            let name: PersonName = name.parse().map_err(|error| self.unreadable_person(error))?;
            people.extend(self.person_within(&mut connection, &name).await?);
        }
        Ok(people)
    }

    /// One person.
    pub async fn person(&self, name: &PersonName) -> Result<PersonRecord, StoreError> {
        let connection = self.database().readers().acquire().await;
        let mut connection = connection.map_err(|error| self.database().failed("read a person", &error))?;
        let found = self.person_within(&mut connection, name).await?;
        found.ok_or_else(|| StoreError::NoSuchPerson(name.clone()))
    }

    async fn person_within(
        &self,
        connection: &mut SqliteConnection,
        name: &PersonName,
    ) -> Result<Option<PersonRecord>, StoreError> {
        let failed = |error| self.database().failed("read a person", &error);
        let query = sqlx::query_scalar("SELECT created_at FROM people WHERE name = $1").bind(name.as_str());
        let created_at: Option<i64> = query.fetch_optional(&mut *connection).await.map_err(failed)?;
        let Some(created_at) = created_at else { return Ok(None) };
        let query = sqlx::query_as("SELECT app, role FROM grants WHERE person = $1 ORDER BY app").bind(name.as_str());
        let grants: Vec<(String, String)> = query.fetch_all(&mut *connection).await.map_err(failed)?;
        let query =
            sqlx::query_as::<_, CredentialRow>(sqlx::AssertSqlSafe(format!("{CREDENTIALS} WHERE person = $1 ORDER BY id")));
        let rows = query.bind(name.as_str()).fetch_all(&mut *connection).await.map_err(failed)?;
        Ok(Some(PersonRecord {
            name: name.clone(),
            grants: grants.into_iter().map(|row| self.grant(row)).collect::<Result<_, _>>()?,
            credentials: rows.into_iter().map(|row| Ok(self.credential(row)?.1)).collect::<Result<_, StoreError>>()?,
            created_at: self.moment(created_at)?,
        }))
    }

    /// Adds a person with these roles, and with SSH keys: label, fingerprint and text of each.
    pub async fn add_person(
        &self,
        name: &PersonName,
        grants: &[Grant],
        keys: &[(String, String, String)],
    ) -> Result<(), StoreError> {
        const ACTION: &str = "add a person";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("INSERT INTO people (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
        let added = query.bind(name.as_str()).bind(Timestamp::now().as_microsecond()).execute(&mut *transaction).await;
        if added.map_err(|error| self.database().failed(ACTION, &error))?.rows_affected() == 0 {
            return Err(StoreError::PersonExists(name.clone()));
        }
        for grant in grants {
            self.grant_within(&mut transaction, name, grant.app.as_ref(), Some(grant)).await?;
        }
        for (label, fingerprint, text) in keys {
            self.key_within(&mut transaction, name, label, fingerprint, text).await?;
        }
        self.database().commit(ACTION, transaction).await
    }

    /// Removes a person with all roles and credentials; answers with these, as they were at that moment.
    pub async fn remove_person(&self, name: &PersonName) -> Result<Vec<CredentialId>, StoreError> {
        const ACTION: &str = "remove a person";
        let mut transaction = self.database().begin(ACTION).await?;
        let Some(person) = self.person_within(&mut transaction, name).await? else {
            return Err(StoreError::NoSuchPerson(name.clone()));
        };
        let query = sqlx::query("DELETE FROM people WHERE name = $1").bind(name.as_str());
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await?;
        Ok(person.credentials.into_iter().map(|credential| credential.id).collect())
    }

    /// Gives a person a role in an app (`None`: in every app) in place of the one it had there; no role takes it.
    pub async fn set_role(
        &self,
        name: &PersonName,
        app: Option<&AppName>,
        role: Option<coracle_model::Role>,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "change a person's role";
        let mut transaction = self.database().begin(ACTION).await?;
        self.require_person(&mut transaction, name).await?;
        let grant = role.map(|role| Grant { app: app.cloned(), role });
        self.grant_within(&mut transaction, name, app, grant.as_ref()).await?;
        self.database().commit(ACTION, transaction).await
    }

    async fn grant_within(
        &self,
        connection: &mut SqliteConnection,
        name: &PersonName,
        app: Option<&AppName>,
        grant: Option<&Grant>,
    ) -> Result<(), StoreError> {
        const SET: &str = "INSERT INTO grants (person, app, role) VALUES ($1, $2, $3)
            ON CONFLICT (person, app) DO UPDATE SET role = excluded.role";
        let app = app.map_or("", AppName::as_str);
        let query = match grant {
            Some(grant) => sqlx::query(SET).bind(name.as_str()).bind(app).bind(grant.role.as_str()),
            None => sqlx::query("DELETE FROM grants WHERE person = $1 AND app = $2").bind(name.as_str()).bind(app),
        };
        let changed = query.execute(connection).await;
        changed.map(drop).map_err(|error| self.database().failed("change a person's role", &error))
    }

    /// Adds an SSH key of a person's: its fingerprint and its text. A key belongs to one person only.
    pub async fn add_key(
        &self,
        name: &PersonName,
        label: &str,
        fingerprint: &str,
        text: &str,
    ) -> Result<CredentialRecord, StoreError> {
        const ACTION: &str = "add a key";
        let mut transaction = self.database().begin(ACTION).await?;
        let added = self.key_within(&mut transaction, name, label, fingerprint, text).await?;
        self.database().commit(ACTION, transaction).await?;
        Ok(added)
    }

    async fn key_within(
        &self,
        connection: &mut SqliteConnection,
        name: &PersonName,
        label: &str,
        fingerprint: &str,
        text: &str,
    ) -> Result<CredentialRecord, StoreError> {
        const TAKEN: &str = "SELECT person FROM credentials WHERE fingerprint = $1";
        let query = sqlx::query_scalar(TAKEN).bind(fingerprint);
        let taken: Result<Option<String>, _> = query.fetch_optional(&mut *connection).await;
        if let Some(person) = taken.map_err(|error| self.database().failed("add a key", &error))? {
            let person = person.parse().map_err(|error| self.unreadable_person(error))?;
            return Err(StoreError::KeyTaken { fingerprint: fingerprint.to_owned(), person });
        }
        let key = |_| Proof::Key { fingerprint: fingerprint.to_owned(), text: text.to_owned() };
        self.credential_within(connection, name, label, key).await
    }

    /// Adds a token of a person's, whose digest depends on the number that it gets.
    pub async fn add_token(
        &self,
        name: &PersonName,
        label: &str,
        digest: impl Fn(CredentialId) -> [u8; 32],
    ) -> Result<CredentialRecord, StoreError> {
        const ACTION: &str = "add a token";
        let mut transaction = self.database().begin(ACTION).await?;
        let token = |id| Proof::Token { digest: digest(id) };
        let added = self.credential_within(&mut transaction, name, label, token).await?;
        self.database().commit(ACTION, transaction).await?;
        Ok(added)
    }

    async fn credential_within(
        &self,
        connection: &mut SqliteConnection,
        name: &PersonName,
        label: &str,
        proof: impl Fn(CredentialId) -> Proof,
    ) -> Result<CredentialRecord, StoreError> {
        const ADD: &str = "INSERT INTO credentials (id, person, label, fingerprint, key, digest, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        // Where AUTOINCREMENT keeps the greatest number that it has given.
        const NEXT: &str = "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'credentials'), 0) + 1";
        let failed = |error| self.database().failed("add a credential", &error);
        self.require_person(&mut *connection, name).await?;
        let id: u32 = sqlx::query_scalar(NEXT).fetch_one(&mut *connection).await.map_err(failed)?;
        let (id, created_at) = (CredentialId(id), Timestamp::now().as_microsecond());
        let proof = proof(id);
        let (fingerprint, key, digest) = match &proof {
            Proof::Key { fingerprint, text } => (Some(fingerprint.as_str()), Some(text.as_str()), None),
            Proof::Token { digest } => (None, None, Some(digest.as_slice())),
        };
        let query = sqlx::query(ADD).bind(id.0).bind(name.as_str()).bind(label).bind(fingerprint).bind(key).bind(digest);
        query.bind(created_at).execute(connection).await.map_err(failed)?;
        Ok(CredentialRecord { id, label: label.to_owned(), proof, created_at: self.moment(created_at)?, last_used_at: None })
    }

    /// Removes what a person proved to be that person by.
    pub async fn remove_credential(&self, name: &PersonName, id: CredentialId) -> Result<(), StoreError> {
        const ACTION: &str = "remove a credential";
        let mut transaction = self.database().begin(ACTION).await?;
        self.require_person(&mut transaction, name).await?;
        let query = sqlx::query("DELETE FROM credentials WHERE id = $1 AND person = $2").bind(id.0).bind(name.as_str());
        let removed = query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::NoSuchCredential(name.clone(), id));
        }
        self.database().commit(ACTION, transaction).await
    }

    /// The credential of this number, and whose it is.
    pub async fn credential_by_id(&self, id: CredentialId) -> Result<Option<(PersonName, CredentialRecord)>, StoreError> {
        let query = sqlx::query_as::<_, CredentialRow>(sqlx::AssertSqlSafe(format!("{CREDENTIALS} WHERE id = $1"))).bind(id.0);
        self.one_credential(query.fetch_optional(self.database().readers()).await)
    }

    /// The key of this fingerprint, and whose it is.
    pub async fn credential_by_key(&self, fingerprint: &str) -> Result<Option<(PersonName, CredentialRecord)>, StoreError> {
        let query = sqlx::query_as::<_, CredentialRow>(sqlx::AssertSqlSafe(format!("{CREDENTIALS} WHERE fingerprint = $1")));
        self.one_credential(query.bind(fingerprint).fetch_optional(self.database().readers()).await)
    }

    fn one_credential(
        &self,
        found: Result<Option<CredentialRow>, sqlx::Error>,
    ) -> Result<Option<(PersonName, CredentialRecord)>, StoreError> {
        let found = found.map_err(|error| self.database().failed("look a credential up", &error))?;
        found.map(|row| self.credential(row)).transpose()
    }

    /// Writes down that a credential is being used, unless that was written a moment ago.
    pub async fn credential_used(&self, credential: &CredentialRecord) -> Result<(), StoreError> {
        const ACTION: &str = "write down that a credential was used";
        let now = Timestamp::now();
        if credential.last_used_at.is_some_and(|last| now.duration_since(last) < LAST_USED_WITHIN) {
            return Ok(());
        }
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("UPDATE credentials SET last_used_at = $2 WHERE id = $1").bind(credential.id.0);
        let written = query.bind(now.as_microsecond()).execute(&mut *transaction).await;
        written.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    async fn require_person(&self, connection: &mut SqliteConnection, name: &PersonName) -> Result<(), StoreError> {
        let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM people WHERE name = $1)").bind(name.as_str());
        let is_there: bool =
            query.fetch_one(connection).await.map_err(|error| self.database().failed("read a person", &error))?;
        if is_there { Ok(()) } else { Err(StoreError::NoSuchPerson(name.clone())) }
    }

    fn grant(&self, (app, role): (String, String)) -> Result<Grant, StoreError> {
        let unreadable = |cause: String| StoreError::unreadable(self.database().path(), "a person's role", cause);
        let app = (!app.is_empty()).then(|| app.parse()).transpose().map_err(|error: NameError| unreadable(error.to_string()))?;
        let role = role.parse().map_err(|error: coracle_model::person::RoleError| unreadable(error.to_string()))?;
        Ok(Grant { app, role })
    }

    fn credential(&self, row: CredentialRow) -> Result<(PersonName, CredentialRecord), StoreError> {
        let (id, person, label, fingerprint, key, digest, created_at, last_used_at) = row;
        let unreadable = |cause: &str| StoreError::unreadable(self.database().path(), &format!("credential {id}"), cause);
        let proof = match (fingerprint, key, digest) {
            (Some(fingerprint), Some(text), None) => Proof::Key { fingerprint, text },
            (None, None, Some(digest)) => {
                Proof::Token { digest: digest.try_into().map_err(|_| unreadable("the digest has another length"))? }
            }
            _ => return Err(unreadable("it is neither a key nor a token")),
        };
        let record = CredentialRecord {
            id: CredentialId(id),
            label,
            proof,
            created_at: self.moment(created_at)?,
            last_used_at: last_used_at.map(|moment| self.moment(moment)).transpose()?,
        };
        Ok((person.parse().map_err(|error| self.unreadable_person(error))?, record))
    }

    fn unreadable_person(&self, error: NameError) -> StoreError {
        StoreError::unreadable(self.database().path(), "a person", error)
    }
}
