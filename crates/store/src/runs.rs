//! Runs of pipelines: what became of each step. They go with their deployments.

use coracle_model::{AppName, Deployment, DeploymentId, StepRun};
use sqlx::FromRow;

use crate::Store;
use crate::error::StoreError;

/// A run on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// The deployment that it belongs to; its number is the run's.
    pub deployment: Deployment,
    /// Where it came from.
    pub source: RunSource,
    /// What became of its steps.
    pub steps: Vec<StepRun>,
}

/// Where a run's source came from, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunSource {
    /// The commit.
    pub commit: Option<String>,
    /// The branch or tag.
    pub reference: Option<String>,
    /// Who asked for it.
    pub person: Option<String>,
}

struct Row {
    deployment: i64,
    revision: Option<String>,
    reference: Option<String>,
    person: Option<String>,
    steps: String,
}

impl<'r> FromRow<'r, sqlx::sqlite::SqliteRow> for Row {
    fn from_row(row: &'r sqlx::sqlite::SqliteRow) -> Result<Self, sqlx::Error> {
        use sqlx::Row as _;
        Ok(Self {
            deployment: row.try_get("deployment")?,
            revision: row.try_get("revision")?,
            reference: row.try_get("reference")?,
            person: row.try_get("person")?,
            steps: row.try_get("steps")?,
        })
    }
}

impl Store {
    /// Writes down that a deployment has a run.
    pub async fn begin_run(&self, id: DeploymentId, app: &AppName, source: &RunSource) -> Result<(), StoreError> {
        const ACTION: &str = "begin a run";
        const INSERT: &str =
            "INSERT INTO runs (deployment, app, revision, reference, person, steps) VALUES ($1, $2, $3, $4, $5, '[]')";
        let mut transaction = self.database().begin(ACTION).await?;
        let query =
            sqlx::query(INSERT).bind(id.0).bind(app.as_str()).bind(&source.commit).bind(&source.reference).bind(&source.person);
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// Writes down what became of the steps of a run so far.
    pub async fn set_run_steps(&self, id: DeploymentId, steps: &[StepRun]) -> Result<(), StoreError> {
        const ACTION: &str = "write down the steps of a run";
        let mut transaction = self.database().begin(ACTION).await?;
        let query =
            sqlx::query("UPDATE runs SET steps = $2 WHERE deployment = $1").bind(id.0).bind(self.to_json(ACTION, &steps)?);
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// The latest runs of an app, newest first.
    pub async fn runs(&self, app: &AppName, limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        const SELECT: &str = "SELECT deployment, revision, reference, person, steps FROM runs WHERE app = $1
            ORDER BY deployment DESC LIMIT $2";
        let query = sqlx::query_as::<_, Row>(SELECT).bind(app.as_str()).bind(limit);
        let rows = query.fetch_all(self.database().readers()).await;
        let rows = rows.map_err(|error| self.database().failed("list runs", &error))?;
        if rows.is_empty() {
            self.app(app).await?;
        }
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            records.extend(self.run_record(row).await?);
        }
        Ok(records)
    }

    /// The run of a deployment; `None` if it has none, or is not there.
    pub async fn run(&self, id: DeploymentId) -> Result<Option<RunRecord>, StoreError> {
        const SELECT: &str = "SELECT deployment, revision, reference, person, steps FROM runs WHERE deployment = $1";
        let row = sqlx::query_as::<_, Row>(SELECT).bind(id.0).fetch_optional(self.database().readers()).await;
        match row.map_err(|error| self.database().failed("read a run", &error))? {
            Some(row) => self.run_record(row).await,
            None => Ok(None),
        }
    }

    async fn run_record(&self, row: Row) -> Result<Option<RunRecord>, StoreError> {
        let id = DeploymentId(row.deployment);
        let Some(deployment) = self.deployment(id).await? else { return Ok(None) };
        let steps = serde_json::from_str(&row.steps)
            .map_err(|error| StoreError::unreadable(self.database().path(), &format!("the run {id}"), error))?;
        let source = RunSource { commit: row.revision, reference: row.reference, person: row.person };
        Ok(Some(RunRecord { deployment, source, steps }))
    }
}
