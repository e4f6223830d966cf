//! What a step hands over, taken from where it worked. That place is as hostile as the step: see [`coracle_build::parcel`].

use std::path::Path;

use coracle_build::parcel::{self, ParcelError, ParcelFacts, ParcelLimits};
use coracle_engine::Handed;
use coracle_pipeline::{Job, Key, Step};

use crate::attempt::Place;
use crate::bench::Bench;
use crate::failure::StepFailure;
use crate::shelf::Parcel;

/// The most bytes of a container's files that are looked through for artifacts, below each of the paths.
pub(crate) const TAKEN_LIMIT: u64 = 1 << 30;

impl Bench<'_> {
    /// Takes what a step that has passed hands over, and keeps it.
    pub(crate) async fn take_artifacts(&self, job: &Job, place: &Place, key: &Key) -> Result<Parcel, StepFailure> {
        let (step, root, key) = (job.step.clone(), place.root.clone(), key.as_str().to_owned());
        let (workspace, handed, shelf) = (place.workspace.clone(), place.handed.clone(), self.ground.shelf.clone());
        let taking = tokio::task::spawn_blocking(move || {
            let packed = root.join("parcel");
            let facts = match (workspace, handed) {
                (Some(workspace), _) => pack(&step, &workspace, &packed),
                (None, Some(handed)) => from_engine(&step, &handed, &packed),
                (None, None) => Ok(ParcelFacts::default()),
            }?;
            let kept = shelf.keep(&key, &packed, &facts);
            Ok((kept.map_err(|source| ParcelError::Io { path: packed, source })?, facts.left_out))
        });
        let taken = taking.await.unwrap_or_else(|error| Err(ParcelError::Damaged(error.to_string())));
        let (parcel, left_out) = taken.map_err(|error| {
            let hint = format!("name fewer files in `artifacts`, or see that the disk has room; then `{}`", self.ground.again);
            StepFailure::new(format!("the step {job} passed, and its artifacts cannot be kept: {error}"), hint)
        })?;
        if !left_out.is_empty() {
            self.ground.note(format!("{job}: left out of its artifacts: {}", left_out.join(", ")));
        }
        if parcel.facts.files == 0 {
            let patterns: Vec<String> = job.step.artifacts.iter().map(ToString::to_string).collect();
            self.ground.note(format!("{job}: there is no file that its artifacts name ({})", patterns.join(", ")));
        }
        Ok(parcel)
    }
}

fn pack(step: &Step, folder: &Path, to: &Path) -> Result<ParcelFacts, ParcelError> {
    parcel::pack(folder, &step.artifact_roots(), &|path| step.hands_over(path), to, ParcelLimits::default())
}

/// What an engine has taken out, or left as a directory of the machine.
fn from_engine(step: &Step, handed: &Handed, to: &Path) -> Result<ParcelFacts, ParcelError> {
    if handed.taken.is_empty() {
        return pack(step, &handed.scratch.join(Handed::WORK), to);
    }
    let sifted = handed.scratch.join("sifted");
    std::fs::create_dir(&sifted).map_err(|source| ParcelError::Io { path: sifted.clone(), source })?;
    let mut left_out = Vec::new();
    for (number, root) in handed.taken.iter().enumerate() {
        let archive = handed.archive(number);
        if archive.exists() {
            // An engine names what it takes by the last part of the path.
            let above = root.rsplit_once('/').map_or("", |(above, _)| above);
            let wanted = |path: &str| step.hands_over(path);
            left_out.extend(parcel::sift(&archive, above, &wanted, &sifted, ParcelLimits::default())?.left_out);
        }
    }
    let mut facts = pack(step, &sifted, to)?;
    facts.left_out.extend(left_out);
    Ok(facts)
}
