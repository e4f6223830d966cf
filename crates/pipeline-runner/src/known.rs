//! Whether a job need run at all.

use coracle_pipeline::{Inputs, Job, Key, StepImage, TreeFiles};

use crate::bench::{Bench, Materials};
use crate::failure::StepFailure;
use crate::shelf::Parcel;

/// What is known of a job before it runs.
pub(crate) struct Known {
    pub(crate) key: Key,
    /// When it passed with the same, in a word, and what it handed over then.
    pub(crate) before: Option<(String, Option<Parcel>)>,
}

impl Bench<'_> {
    pub(crate) async fn known(
        &self,
        job: &Job,
        materials: &Materials,
        files: &TreeFiles,
        handed: &[Parcel],
    ) -> Result<Known, StepFailure> {
        let ground = self.ground;
        let services: Vec<String> = materials.services.iter().map(|artifact| artifact.id.to_string()).collect();
        let handed: Vec<String> = handed.iter().map(|parcel| parcel.facts.digest.clone()).collect();
        let image = match (&job.step.image, &ground.of_app) {
            (StepImage::App, Some(of_app)) => of_app.recipe.clone(),
            _ => materials.artifact.to_string(),
        };
        let key = job.key(&Inputs {
            image: &image,
            services: &services,
            tree: files,
            env: &ground.env,
            secrets: &self.secrets_of(job),
            told: &ground.told.always,
            handed: &handed,
        });
        if ground.fresh || job.step.always {
            return Ok(Known { key, before: None });
        }
        let Some(when) = ground.memory.passed(&key).await else { return Ok(Known { key, before: None }) };
        if job.step.artifacts.is_empty() {
            return Ok(Known { key, before: Some((when, None)) });
        }
        // What it hands over is wanted as much as that it passes: without it, it runs again.
        let (shelf, name) = (ground.shelf.clone(), key.as_str().to_owned());
        let parcel = tokio::task::spawn_blocking(move || shelf.find(&name)).await.ok().flatten();
        Ok(Known { key, before: parcel.map(|parcel| (when, Some(parcel))) })
    }
}
