//! Steps of pipelines that succeeded, so that they need not run again with the same.

use coracle_model::{AppName, Artifact, ArtifactId, ReleaseNumber};
use jiff::Timestamp;

use crate::Store;
use crate::error::StoreError;

/// How many successes of each app are remembered; those used last.
pub const STEPS_KEPT: u32 = 256;

/// A step that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedStep {
    /// What it was run with: a digest.
    pub key: String,
    /// What it is called, for people.
    pub step: String,
    /// The release it was run for. It may be gone.
    pub release: ReleaseNumber,
    /// The images beside the app's own that it was run with.
    pub images: Vec<ArtifactId>,
}

impl Store {
    /// The release for which a step succeeded that was run with the same; it counts as used now.
    pub async fn passed_step(&self, app: &AppName, key: &str) -> Result<Option<ReleaseNumber>, StoreError> {
        const ACTION: &str = "look for a step";
        const TOUCH: &str = "UPDATE steps SET used_at = $3 WHERE app = $1 AND key = $2 RETURNING release";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query_scalar(TOUCH).bind(app.as_str()).bind(key).bind(Timestamp::now().as_microsecond());
        let found: Option<u32> =
            query.fetch_optional(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await?;
        found.map(|number| self.release_number(number)).transpose()
    }

    /// Writes down that a step succeeded, and forgets the app's that were not used for longest beyond [`STEPS_KEPT`].
    pub async fn record_step(&self, app: &AppName, passed: &PassedStep) -> Result<(), StoreError> {
        const ACTION: &str = "write down a step";
        const UPSERT: &str = "INSERT INTO steps (app, key, step, release, images, used_at) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (app, key) DO UPDATE SET
                step = excluded.step, release = excluded.release, images = excluded.images, used_at = excluded.used_at";
        const FORGET: &str = "DELETE FROM steps WHERE app = $1 AND key NOT IN
            (SELECT key FROM steps WHERE app = $1 ORDER BY used_at DESC, key LIMIT $2)";
        let failed = |error| self.database().failed(ACTION, &error);
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(UPSERT)
            .bind(app.as_str())
            .bind(&passed.key)
            .bind(&passed.step)
            .bind(passed.release.get())
            .bind(self.to_json(ACTION, &passed.images)?)
            .bind(Timestamp::now().as_microsecond());
        query.execute(&mut *transaction).await.map_err(failed)?;
        let forget = sqlx::query(FORGET).bind(app.as_str()).bind(STEPS_KEPT);
        forget.execute(&mut *transaction).await.map_err(failed)?;
        self.database().commit(ACTION, transaction).await
    }

    /// Keeps what a reference that a step names was fetched as, for its next run.
    pub async fn keep_step_image(
        &self,
        app: &AppName,
        reference: &str,
        artifact: &Artifact,
        release: ReleaseNumber,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "keep the image of a step";
        const SET: &str = "INSERT INTO step_images (app, reference, artifact, release) VALUES ($1, $2, $3, $4)
            ON CONFLICT (app, reference) DO UPDATE SET artifact = excluded.artifact, release = excluded.release";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query(SET).bind(app.as_str()).bind(reference).bind(self.to_json(ACTION, artifact)?).bind(release.get());
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// What a reference that a step names was fetched as before.
    pub async fn kept_step_image(&self, app: &AppName, reference: &str) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query_scalar::<_, String>("SELECT artifact FROM step_images WHERE app = $1 AND reference = $2");
        let text = query.bind(app.as_str()).bind(reference).fetch_optional(self.database().readers()).await;
        let text = text.map_err(|error| self.database().failed("look for the image of a step", &error))?;
        let unreadable = |error| StoreError::unreadable(self.database().path(), &format!("an image of a step of {app}"), error);
        text.map(|text| serde_json::from_str(&text).map_err(unreadable)).transpose()
    }

    /// Forgets the images of steps that were last used for a release before this one.
    pub async fn forget_step_images(&self, app: &AppName, before: ReleaseNumber) -> Result<(), StoreError> {
        const ACTION: &str = "forget images of steps";
        let mut transaction = self.database().begin(ACTION).await?;
        let query = sqlx::query("DELETE FROM step_images WHERE app = $1 AND release < $2").bind(app.as_str()).bind(before.get());
        query.execute(&mut *transaction).await.map_err(|error| self.database().failed(ACTION, &error))?;
        self.database().commit(ACTION, transaction).await
    }

    /// The images that the remembered steps of an app were run with, and those that are kept for steps, each once.
    pub async fn step_images(&self, app: &AppName) -> Result<Vec<ArtifactId>, StoreError> {
        let query = sqlx::query_scalar::<_, String>("SELECT DISTINCT images FROM steps WHERE app = $1").bind(app.as_str());
        let texts = query.fetch_all(self.database().readers()).await;
        let texts = texts.map_err(|error| self.database().failed("list the images of steps", &error))?;
        let mut images = std::collections::BTreeSet::new();
        for text in texts {
            let list: Vec<ArtifactId> = serde_json::from_str(&text)
                .map_err(|error| StoreError::unreadable(self.database().path(), &format!("a step of {app}"), error))?;
            images.extend(list);
        }
        let query = sqlx::query_scalar::<_, String>("SELECT artifact FROM step_images WHERE app = $1").bind(app.as_str());
        let kept = query.fetch_all(self.database().readers()).await;
        for text in kept.map_err(|error| self.database().failed("list the images of steps", &error))? {
            let artifact: Artifact = serde_json::from_str(&text).map_err(|error| {
                StoreError::unreadable(self.database().path(), &format!("an image of a step of {app}"), error)
            })?;
            images.insert(artifact.id);
        }
        Ok(images.into_iter().collect())
    }
}
