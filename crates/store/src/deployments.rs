//! Deployments: how far each one came, written down before it goes on.

use coracle_model::deployment::Recovery;
use coracle_model::{AppName, Deployment, DeploymentId, DeploymentKind, Outcome, Phase, ReleaseNumber};
use jiff::Timestamp;
use sqlx::{FromRow, Sqlite, SqliteConnection, Transaction};

use crate::Store;
use crate::config::ConfigChange;
use crate::error::StoreError;

/// How many deployments of each app are remembered.
pub const HISTORY: u32 = 200;

struct Row {
    id: i64,
    app: String,
    kind: String,
    to: u32,
    from: Option<u32>,
    phase: String,
    outcome: Option<String>,
    started_at: i64,
    finished_at: Option<i64>,
    approval: Option<String>,
}

impl<'r> FromRow<'r, sqlx::sqlite::SqliteRow> for Row {
    fn from_row(row: &'r sqlx::sqlite::SqliteRow) -> Result<Self, sqlx::Error> {
        use sqlx::Row as _;
        Ok(Self {
            id: row.try_get("id")?,
            app: row.try_get("app")?,
            kind: row.try_get("kind")?,
            to: row.try_get("to_release")?,
            from: row.try_get("from_release")?,
            phase: row.try_get("phase")?,
            outcome: row.try_get("outcome")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            approval: row.try_get("approval")?,
        })
    }
}

impl Store {
    /// Writes down that a deployment begins, in phase `validate`, and takes the next release number for it.
    /// [`StoreError::Busy`] if another one of the same app is being worked on; one that waits for a person is not.
    pub async fn begin_deployment(&self, app: &AppName, kind: DeploymentKind) -> Result<Deployment, StoreError> {
        const ACTION: &str = "begin a deployment";
        const INSERT: &str = "INSERT INTO deployments (app, kind, to_release, from_release, phase, started_at)
            VALUES ($1, $2, $3, $4, $5, $6) RETURNING *";
        let failed = |error| self.database().failed(ACTION, &error);
        let mut transaction = self.database().begin(ACTION).await?;
        let record = self.app_within(&mut transaction, app).await?;
        if let Some(holder) = self.unfinished_within(&mut transaction, app).await? {
            return Err(StoreError::Busy(Box::new(holder)));
        }
        let next = "UPDATE apps SET last_release = last_release + 1 WHERE name = $1 RETURNING last_release";
        let query = sqlx::query_scalar(next).bind(app.as_str());
        let to: u32 = query.fetch_one(&mut *transaction).await.map_err(failed)?;
        let row = sqlx::query_as::<_, Row>(INSERT)
            .bind(app.as_str())
            .bind(kind.to_string())
            .bind(to)
            .bind(record.active.map(ReleaseNumber::get))
            .bind(Phase::Validate.as_str())
            .bind(Timestamp::now().as_microsecond())
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        self.database().commit(ACTION, transaction).await?;
        self.deployment_record(row)
    }

    /// Writes down that a phase begins. Phases come in their order; one may be left out, and the present one begun again.
    /// The step from before the switch to the switch is [`Store::activate`]'s, and the step back [`Store::revert`]'s:
    /// anything else is [`StoreError::OutOfOrder`].
    pub async fn enter_phase(&self, id: DeploymentId, phase: Phase) -> Result<(), StoreError> {
        const ACTION: &str = "enter a phase";
        let mut transaction = self.database().begin(ACTION).await?;
        let deployment = self.running_within(&mut transaction, id).await?;
        if phase < deployment.phase || phase.recovery() != deployment.phase.recovery() {
            return Err(StoreError::OutOfOrder { id, from: deployment.phase, to: phase });
        }
        self.set_phase(&mut transaction, id, phase).await?;
        self.database().commit(ACTION, transaction).await
    }

    /// The commit point of a deployment: in one transaction the phase becomes `switch`, the deployment's release the app's
    /// active one, and the app's configuration what these changes make of it.
    pub async fn activate(&self, id: DeploymentId, changes: &[ConfigChange]) -> Result<(), StoreError> {
        const ACTION: &str = "activate a release";
        let mut transaction = self.database().begin(ACTION).await?;
        let deployment = self.running_within(&mut transaction, id).await?;
        if deployment.phase.recovery() == Recovery::Complete {
            return Err(StoreError::OutOfOrder { id, from: deployment.phase, to: Phase::Switch });
        }
        self.require_release(&mut transaction, &deployment.app, deployment.to).await?;
        self.set_active(&mut transaction, &deployment.app, Some(deployment.to)).await?;
        self.change_config_within(&mut transaction, &deployment.app, changes).await?;
        self.exchange_rule_within(&mut transaction, &deployment).await?;
        self.set_phase(&mut transaction, id, Phase::Switch).await?;
        self.database().commit(ACTION, transaction).await
    }

    /// Takes an activation back after the new release failed while it was watched: in one transaction the release that was
    /// active before (the deployment's `from`) is active again, the configuration is changed back by `changes`, and the
    /// phase becomes `start`, so that a crash from here on undoes the new release.
    pub async fn revert(&self, id: DeploymentId, changes: &[ConfigChange]) -> Result<(), StoreError> {
        const ACTION: &str = "revert an activation";
        let mut transaction = self.database().begin(ACTION).await?;
        let deployment = self.running_within(&mut transaction, id).await?;
        if deployment.phase.recovery() == Recovery::Undo {
            return Err(StoreError::OutOfOrder { id, from: deployment.phase, to: Phase::Start });
        }
        if let Some(from) = deployment.from {
            self.require_release(&mut transaction, &deployment.app, from).await?;
        }
        self.set_active(&mut transaction, &deployment.app, deployment.from).await?;
        self.change_config_within(&mut transaction, &deployment.app, changes).await?;
        self.exchange_rule_within(&mut transaction, &deployment).await?;
        self.set_phase(&mut transaction, id, Phase::Start).await?;
        self.database().commit(ACTION, transaction).await
    }

    /// Writes down how a deployment ended, and forgets the app's oldest ones beyond [`HISTORY`]. One that changed nothing gives
    /// its release number back: nobody has seen anything of it.
    pub async fn finish_deployment(&self, id: DeploymentId, outcome: &Outcome) -> Result<(), StoreError> {
        const ACTION: &str = "end a deployment";
        const FORGET: &str = "DELETE FROM deployments WHERE app = $1 AND finished_at IS NOT NULL AND id NOT IN
            (SELECT id FROM deployments WHERE app = $1 ORDER BY id DESC LIMIT $2)";
        const GIVE_BACK: &str = "UPDATE apps SET last_release = last_release - 1 WHERE name = $1 AND last_release = $2
            AND NOT EXISTS (SELECT 1 FROM releases WHERE app = $1 AND number = $2)";
        let failed = |error| self.database().failed(ACTION, &error);
        let mut transaction = self.database().begin(ACTION).await?;
        let deployment = self.running_within(&mut transaction, id).await?;
        sqlx::query("UPDATE deployments SET outcome = $2, finished_at = $3 WHERE id = $1")
            .bind(id.0)
            .bind(self.to_json(ACTION, outcome)?)
            .bind(Timestamp::now().as_microsecond())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        if *outcome == Outcome::Unchanged {
            sqlx::query(GIVE_BACK)
                .bind(deployment.app.as_str())
                .bind(deployment.to.get())
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        let forget = sqlx::query(FORGET).bind(deployment.app.as_str()).bind(HISTORY);
        forget.execute(&mut *transaction).await.map_err(failed)?;
        self.database().commit(ACTION, transaction).await
    }

    /// One deployment.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        let connection = self.database().readers().acquire().await;
        let mut connection = connection.map_err(|error| self.database().failed("read a deployment", &error))?;
        self.deployment_within(&mut connection, id).await
    }

    /// The latest deployments of an app, newest first.
    pub async fn deployments(&self, app: &AppName, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        let query = sqlx::query_as::<_, Row>("SELECT * FROM deployments WHERE app = $1 ORDER BY id DESC LIMIT $2");
        let rows = query.bind(app.as_str()).bind(limit).fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("list deployments", &error))?;
        if rows.is_empty() {
            self.app(app).await?;
        }
        rows.into_iter().map(|row| self.deployment_record(row)).collect()
    }

    /// Deployments of all apps that have not ended, oldest first.
    pub async fn unfinished_deployments(&self) -> Result<Vec<Deployment>, StoreError> {
        let query = sqlx::query_as::<_, Row>("SELECT * FROM deployments WHERE finished_at IS NULL ORDER BY id");
        let rows = query.fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("list unfinished deployments", &error))?;
        rows.into_iter().map(|row| self.deployment_record(row)).collect()
    }

    /// The first of an app's that a query finds.
    pub(crate) async fn one_deployment(&self, select: &'static str, app: &AppName) -> Result<Option<Deployment>, StoreError> {
        let query = sqlx::query_as::<_, Row>(select).bind(app.as_str());
        let row = query.fetch_optional(self.database().readers()).await;
        row.map_err(|error| self.database().failed("look for a deployment", &error))?
            .map(|row| self.deployment_record(row))
            .transpose()
    }

    async fn deployment_within(
        &self,
        connection: &mut SqliteConnection,
        id: DeploymentId,
    ) -> Result<Option<Deployment>, StoreError> {
        let query = sqlx::query_as::<_, Row>("SELECT * FROM deployments WHERE id = $1").bind(id.0);
        let row = query.fetch_optional(connection).await;
        let row = row.map_err(|error| self.database().failed("read a deployment", &error))?;
        row.map(|row| self.deployment_record(row)).transpose()
    }

    /// A deployment that exists and has not ended.
    pub(crate) async fn running_within(
        &self,
        connection: &mut SqliteConnection,
        id: DeploymentId,
    ) -> Result<Deployment, StoreError> {
        let deployment = self.deployment_within(connection, id).await?.ok_or(StoreError::NoSuchDeployment(id))?;
        if deployment.outcome.is_none() { Ok(deployment) } else { Err(StoreError::Ended(id)) }
    }

    /// The deployment of the app that is being worked on.
    pub(crate) async fn unfinished_within(
        &self,
        connection: &mut SqliteConnection,
        app: &AppName,
    ) -> Result<Option<Deployment>, StoreError> {
        let query = sqlx::query_as::<_, Row>("SELECT * FROM deployments WHERE app = $1 AND finished_at IS NULL AND parked = 0");
        let row = query.bind(app.as_str()).fetch_optional(connection).await;
        let row = row.map_err(|error| self.database().failed("look for a running deployment", &error))?;
        row.map(|row| self.deployment_record(row)).transpose()
    }

    async fn set_phase(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        id: DeploymentId,
        phase: Phase,
    ) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE deployments SET phase = $2 WHERE id = $1").bind(id.0).bind(phase.as_str());
        let done = query.execute(&mut **transaction).await;
        done.map(drop).map_err(|error| self.database().failed("write down a phase", &error))
    }

    async fn set_active(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        app: &AppName,
        active: Option<ReleaseNumber>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE apps SET active = $2 WHERE name = $1").bind(app.as_str());
        let done = query.bind(active.map(ReleaseNumber::get)).execute(&mut **transaction).await;
        done.map(drop).map_err(|error| self.database().failed("write down the active release", &error))
    }

    fn deployment_record(&self, row: Row) -> Result<Deployment, StoreError> {
        let id = DeploymentId(row.id);
        let unreadable =
            |cause: &dyn std::fmt::Display| StoreError::unreadable(self.database().path(), &format!("deployment {id}"), cause);
        let phase = Phase::ALL.into_iter().find(|phase| phase.as_str() == row.phase);
        let outcome = row.outcome.map(|outcome| serde_json::from_str(&outcome)).transpose();
        let approval = row.approval.map(|approval| serde_json::from_str(&approval)).transpose();
        Ok(Deployment {
            id,
            app: row.app.parse().map_err(|error| unreadable(&error))?,
            kind: kind_named(&row.kind).ok_or_else(|| unreadable(&format!("kind {:?}", row.kind)))?,
            to: self.release_number(row.to)?,
            from: row.from.map(|number| self.release_number(number)).transpose()?,
            phase: phase.ok_or_else(|| unreadable(&format!("phase {:?}", row.phase)))?,
            outcome: outcome.map_err(|error| unreadable(&error))?,
            started_at: self.moment(row.started_at)?,
            finished_at: row.finished_at.map(|moment| self.moment(moment)).transpose()?,
            approval: approval.map_err(|error| unreadable(&error))?,
        })
    }
}

fn kind_named(word: &str) -> Option<DeploymentKind> {
    use DeploymentKind::{Config, Deploy, Restart, Rollback};
    [Deploy, Config, Rollback, Restart].into_iter().find(|kind| kind.to_string() == word)
}
