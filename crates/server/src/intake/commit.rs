//! Source trees out of a repository: what `coracle deploy` would send of a commit's files.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use coracle_api::{Problem, ProblemKind};
use coracle_build::{archive, compose_ignore, source_ignore};
use coracle_git_door::Archive;
use coracle_model::Manifest;
use tokio_util::sync::CancellationToken;

use super::{Copy, IntakeLimits, Tree, directory, read_manifest, refused, unusable};
use crate::{compose, problems};

/// How long a commit's files may take to be written.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Unpacks a commit's files into a new directory in `incoming`, without what the ignore file leaves out.
pub(crate) async fn check_out(
    incoming: &Path,
    mut commit: Archive,
    limits: IntakeLimits,
    cancel: &CancellationToken,
) -> Result<Tree, Problem> {
    let internal = |cause: String| Problem::new(ProblemKind::Internal, format!("the commit's files cannot be read: {cause}"));
    let reader = commit.reader().ok_or_else(|| internal("they were read before".to_owned()))?;
    let reader = reader.into_owned_fd().map_err(|error| internal(error.to_string()))?;
    // A thread of its own reads it, and waits for what is not there yet.
    rustix::io::ioctl_fionbio(&reader, false).map_err(|error| internal(error.to_string()))?;
    let incoming = incoming.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || unpack(&incoming, File::from(reader), limits));
    let both = async {
        let tree = unpacking.await.map_err(|error| internal(error.to_string()))?;
        // What is refused explains why git could not write it all.
        let tree = tree?;
        commit.end().await.map_err(|error| problems::door(&error))?;
        Ok(tree)
    };
    // Given up, git is ended, and with it what is read from it.
    match cancel.run_until_cancelled(tokio::time::timeout(LONGEST, both)).await {
        Some(Ok(done)) => done,
        Some(Err(_)) => Err(Problem::new(ProblemKind::TimedOut, "reading the commit's files takes too long")),
        None => Err(Problem::new(ProblemKind::Cancelled, "called off before it began; nothing changed for the app")),
    }
}

fn unpack(incoming: &Path, reader: File, limits: IntakeLimits) -> Result<Tree, Problem> {
    let (dir, path) = directory(incoming)?;
    let facts = archive::unpack_tar(reader, &path, limits.unpacked).map_err(|error| refused(&error))?;
    let by_compose = is_described_by_compose(&path, limits.manifest_bytes);
    let rules = if by_compose { compose_ignore } else { source_ignore };
    let ignore = rules(&path).map_err(|error| Problem::new(ProblemKind::Invalid, error.to_string()))?;
    archive::prune(&path, &ignore).map_err(|error| unusable(&path, &error))?;
    // Compose files are read again when the configuration changes, from what was sent.
    let kept = dir.path().join("sent.tar.gz");
    let keeping =
        by_compose.then(|| Copy::begin(kept.clone(), limits.kept_bytes)).transpose().map_err(|error| unusable(&kept, &error))?;
    let kept = keeping.and_then(|mut copy| {
        let packed = archive::pack(&path, &ignore, &mut copy).is_ok() && copy.flush().is_ok();
        packed.then_some(kept)
    });
    tracing::debug!(entries = facts.entries, bytes = facts.bytes, "a commit has been checked out");
    Ok(Tree { dir, path, archive: kept })
}

/// Whether compose files describe the tree, in any of its environments. A manifest that cannot be read is told of when it is read
/// in earnest.
fn is_described_by_compose(tree: &Path, limit: u64) -> bool {
    let usual = compose::usual_file(tree).is_some();
    let manifest = read_manifest(tree.join("coracle.toml"), limit).ok().and_then(|text| Manifest::parse(&text).ok());
    let Some(manifest) = manifest else { return usual };
    let mut environments = manifest.environments().into_iter().map(Some).chain([None]);
    environments.any(|environment| manifest.is_described_by_compose(environment, usual))
}
