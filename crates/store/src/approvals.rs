//! Deployments that wait for a person: they step aside, are decided about, and go on or end. And what an app's active source
//! demands of the next one.

use coracle_model::deployment::Recovery;
use coracle_model::{AppName, Approval, ApprovalRule, Decision, Deployment, DeploymentId, EnvName, Phase, ReleaseNumber, Secret};
use sqlx::{Sqlite, Transaction};

use crate::Store;
use crate::error::StoreError;
use crate::releases::encode_env;
use crate::seal::Record;

impl Store {
    /// What the app's active source demands of whatever comes next.
    pub async fn approval_rule(&self, app: &AppName) -> Result<Option<ApprovalRule>, StoreError> {
        let query = sqlx::query_scalar("SELECT approval_rule FROM apps WHERE name = $1").bind(app.as_str());
        let found: Option<Option<String>> = query
            .fetch_optional(self.database().readers())
            .await
            .map_err(|error| self.database().failed("read what an app demands", &error))?;
        let unreadable = |error| StoreError::unreadable(self.database().path(), &format!("what {app} demands"), error);
        found.flatten().map(|rule| serde_json::from_str(&rule)).transpose().map_err(unreadable)
    }

    /// Notes what a deployment makes of the app's rule when its release becomes active.
    pub async fn bring_approval_rule(&self, id: DeploymentId, rule: Option<ApprovalRule>) -> Result<(), StoreError> {
        const ACTION: &str = "note what an app will demand";
        let mut transaction = self.database().begin(ACTION).await?;
        self.running_within(&mut transaction, id).await?;
        sqlx::query("UPDATE deployments SET approval_rule = $2 WHERE id = $1")
            .bind(id.0)
            .bind(self.to_json(ACTION, &rule)?)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// The app demands what the deployment brings, and the deployment keeps what it demanded before, for the way back.
    pub(crate) async fn exchange_rule_within(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        deployment: &Deployment,
    ) -> Result<(), StoreError> {
        let failed = |error| self.database().failed("write down what an app demands", &error);
        let query = sqlx::query_as(
            "SELECT d.approval_rule, a.approval_rule FROM deployments d, apps a WHERE d.id = $1 AND a.name = d.app",
        );
        let (brings, has): (Option<String>, Option<String>) =
            query.bind(deployment.id.0).fetch_one(&mut **transaction).await.map_err(failed)?;
        let Some(brings) = brings else { return Ok(()) };
        sqlx::query("UPDATE apps SET approval_rule = NULLIF($2, 'null') WHERE name = $1")
            .bind(deployment.app.as_str())
            .bind(brings)
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
        sqlx::query("UPDATE deployments SET approval_rule = COALESCE($2, 'null') WHERE id = $1")
            .bind(deployment.id.0)
            .bind(has)
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// A deployment waits for a person from now on: it enters phase `approval`, and another one of the app may begin.
    pub async fn park_deployment(&self, id: DeploymentId, approval: &Approval) -> Result<(), StoreError> {
        const ACTION: &str = "have a deployment wait";
        let mut transaction = self.database().begin(ACTION).await?;
        let deployment = self.running_within(&mut transaction, id).await?;
        if deployment.phase > Phase::Approval || deployment.phase.recovery() != Recovery::Undo {
            return Err(StoreError::OutOfOrder { id, from: deployment.phase, to: Phase::Approval });
        }
        sqlx::query("UPDATE deployments SET phase = $2, parked = 1, approval = $3 WHERE id = $1")
            .bind(id.0)
            .bind(Phase::Approval.as_str())
            .bind(self.to_json(ACTION, approval)?)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Writes down what was decided about a deployment that waits. The first word counts: [`StoreError::NotWaiting`] if it does
    /// not wait, or not any more.
    pub async fn decide_deployment(&self, id: DeploymentId, decision: &Decision) -> Result<Deployment, StoreError> {
        const ACTION: &str = "decide about a deployment";
        let mut transaction = self.database().begin(ACTION).await?;
        let mut deployment = self.running_within(&mut transaction, id).await.map_err(|error| match error {
            StoreError::Ended(id) => StoreError::NotWaiting(id),
            other => other,
        })?;
        match &mut deployment.approval {
            Some(approval) if approval.decision.is_none() => approval.decision = Some(decision.clone()),
            _ => return Err(StoreError::NotWaiting(id)),
        }
        sqlx::query("UPDATE deployments SET approval = $2 WHERE id = $1")
            .bind(id.0)
            .bind(self.to_json(ACTION, &deployment.approval)?)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await?;
        Ok(deployment)
    }

    /// A deployment that was allowed goes on, on top of what is active now. [`StoreError::Busy`] while another one of the app is
    /// being worked on.
    pub async fn unpark_deployment(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        const ACTION: &str = "have a deployment go on";
        let mut transaction = self.database().begin(ACTION).await?;
        let deployment = self.running_within(&mut transaction, id).await?;
        if !deployment.approval.as_ref().and_then(|it| it.decision.as_ref()).is_some_and(|decision| decision.approved) {
            return Err(StoreError::NotWaiting(id));
        }
        if let Some(holder) = self.unfinished_within(&mut transaction, &deployment.app).await? {
            return Err(StoreError::Busy(Box::new(holder)));
        }
        let active = self.app_within(&mut transaction, &deployment.app).await?.active;
        sqlx::query("UPDATE deployments SET parked = 0, from_release = $2 WHERE id = $1")
            .bind(id.0)
            .bind(active.map(ReleaseNumber::get))
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await?;
        Ok(Deployment { from: active, ..deployment })
    }

    /// The app's deployment that waits for a person, if there is one.
    pub async fn parked_deployment(&self, app: &AppName) -> Result<Option<Deployment>, StoreError> {
        const SELECT: &str = "SELECT * FROM deployments WHERE app = $1 AND finished_at IS NULL AND parked = 1 ORDER BY id DESC";
        self.one_deployment(SELECT, app).await
    }

    /// Gives a release that nothing has run of yet the configuration as it is now.
    pub async fn renew_release_env(
        &self,
        app: &AppName,
        number: ReleaseNumber,
        env: &[(EnvName, Secret)],
    ) -> Result<(), StoreError> {
        const ACTION: &str = "renew the configuration of a release";
        let sealed = self.seal().seal(Record::Release(app, number), &encode_env(env)?)?;
        let mut transaction = self.database().begin(ACTION).await?;
        if self.app_within(&mut transaction, app).await?.active == Some(number) {
            return Err(StoreError::Active(app.clone(), number));
        }
        self.require_release(&mut transaction, app, number).await?;
        sqlx::query("UPDATE releases SET env = $3 WHERE app = $1 AND number = $2")
            .bind(app.as_str())
            .bind(number.get())
            .bind(sealed)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }
}
