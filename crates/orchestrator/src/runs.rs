//! Runs of pipelines: what is written down while one goes on, where, and for how long that is kept.
//!
//! ```text
//! <mounts>/<app>/runs/<deployment>/log             lines of JSON, in the order in which they were written
//! <mounts>/<app>/runs/<deployment>/artifacts/…     what its steps handed over, by the digests of their names
//! <mounts>/<app>/handed/…                          the same by the steps' keys, for those that need not run again
//! ```

mod book;
mod reader;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use coracle_model::{AppName, DeploymentId, Phase, run};
use coracle_pipeline_runner::Shelf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use coracle_engine::Stream;

pub(crate) use book::RunBook;
pub use reader::RunLog;

use crate::core::Core;
use crate::mounts::Mounts;

/// How many runs of an app keep their logs and artifacts, beside those of its releases that are kept.
const RUNS_KEPT: usize = 50;
/// The most bytes that those have together.
const MOST_BYTES: u64 = 512 << 20;

/// A line in the log of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLine {
    /// When it was written.
    pub at: Timestamp,
    /// By which step; `(build)` and `(release)` are those of the deployment itself.
    pub step: String,
    /// Where to.
    pub stream: Stream,
    /// The text, without the values of secrets.
    pub text: String,
    /// It is of a part of the deployment that has its name in common with a step: that name alone means the step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares_name: bool,
}

/// What a part of the deployment itself is called among the steps: `(build)`. No step can be called that.
pub(crate) fn of_phase(phase: Phase) -> String {
    format!("({phase})")
}

impl RunLine {
    /// Whether it is of the step that a person names: `test` is every combination of its matrix, `build` the deployment's own unless
    /// a step is called that.
    pub fn is_of(&self, name: &str) -> bool {
        if self.shares_name { self.step == name } else { run::is_called(&self.step, name) }
    }
}

impl Mounts {
    fn runs(&self, app: &AppName) -> PathBuf {
        self.of_app(app).join("runs")
    }

    pub(crate) fn run(&self, app: &AppName, id: DeploymentId) -> PathBuf {
        self.runs(app).join(id.0.to_string())
    }

    /// Where what a step handed over is kept with its run.
    pub(crate) fn run_artifact(&self, app: &AppName, id: DeploymentId, step: &str) -> PathBuf {
        let name = &blake3::hash(step.as_bytes()).to_hex()[..16];
        self.run(app, id).join("artifacts").join(format!("{name}.tar.gz"))
    }

    /// What steps handed over, for those that need not run again.
    pub(crate) fn shelf(&self, app: &AppName) -> Shelf {
        Shelf::new(self.of_app(app).join("handed"))
    }

    /// Removes the logs and artifacts of runs that are too old or too large, never those in `but`.
    fn forget_runs(&self, app: &AppName, but: &BTreeSet<DeploymentId>) -> io::Result<()> {
        let entries = match fs::read_dir(self.runs(app)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let ids = entries.filter_map(|entry| Some(DeploymentId(entry.ok()?.file_name().to_str()?.parse().ok()?)));
        let mut ids: Vec<DeploymentId> = ids.filter(|id| !but.contains(id)).collect();
        ids.sort_by_key(|id| std::cmp::Reverse(*id));
        let mut bytes: u64 = 0;
        for (nth, id) in ids.into_iter().enumerate() {
            let place = self.run(app, id);
            bytes = bytes.saturating_add(size_of(&place)?);
            // The newest stays, however large it is.
            if nth > 0 && (nth >= RUNS_KEPT || bytes > MOST_BYTES) {
                fs::remove_dir_all(&place)?;
            }
        }
        Ok(())
    }
}

fn size_of(place: &std::path::Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += if facts.is_dir() { size_of(&entry.path())? } else { facts.len() };
    }
    Ok(bytes)
}

impl Core {
    /// Removes what runs left that nobody will ask for any more.
    pub(crate) async fn forget_runs(&self, app: &AppName) {
        let kept = async {
            let releases: BTreeSet<_> = self.store.releases(app).await?.into_iter().map(|release| release.number).collect();
            let deployments = self.store.deployments(app, u32::MAX).await?;
            Ok::<_, coracle_store::StoreError>(
                deployments.into_iter().filter(|it| releases.contains(&it.to)).map(|it| it.id).collect::<BTreeSet<_>>(),
            )
        };
        let kept = match kept.await {
            Ok(kept) => kept,
            Err(error) => return tracing::warn!(%app, %error, "what runs left cannot be looked through"),
        };
        let (mounts, owned) = (self.mounts.clone(), app.clone());
        let forgetting = tokio::task::spawn_blocking(move || mounts.forget_runs(&owned, &kept)).await;
        if let Err(error) = forgetting.map_err(io::Error::other).flatten() {
            tracing::warn!(%app, %error, "what runs left stays longer than it should");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn old_runs_go_unless_their_releases_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mounts, app) = (Mounts::new(dir.path().to_owned()), "shop".parse().unwrap());
        mounts.forget_runs(&app, &BTreeSet::new()).unwrap();
        let newest = RUNS_KEPT as i64 + 5;
        for id in 1..=newest {
            fs::create_dir_all(mounts.run(&app, DeploymentId(id))).unwrap();
            fs::write(mounts.run(&app, DeploymentId(id)).join("log"), "x").unwrap();
        }
        // A sparse file counts as what somebody would read of it.
        let large = fs::File::create(mounts.run(&app, DeploymentId(10)).join("log")).unwrap();
        large.set_len(MOST_BYTES).unwrap();
        mounts.forget_runs(&app, &BTreeSet::from([DeploymentId(2)])).unwrap();
        let left: Vec<i64> = (1..=newest).filter(|id| mounts.run(&app, DeploymentId(*id)).exists()).collect();
        let expected: Vec<i64> = std::iter::once(2).chain(11..=newest).collect();
        assert_eq!(left, expected);
    }
}
