//! What a release runs is pushed to the app's registry before it goes live, and called `latest` there once it is.

use std::time::Duration;

use coracle_model::{AppSpec, DeploymentKind, EngineKind, Phase, ReleaseNumber};
use tokio_util::sync::CancellationToken;

use super::making::build_failure;
use super::{Candidacy, Failure, Rollout};
use crate::error::OrchestratorError;

/// How long calling it `latest` may take: its layers are there by then.
const LATEST_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The tag of what is live.
const LATEST: &str = "latest";

/// What cannot be pushed is said before anything is built.
pub(super) fn check_registry(spec: &AppSpec, engine: EngineKind) -> Result<(), OrchestratorError> {
    let Some(registry) = &spec.registry else { return Ok(()) };
    let refused = |why: &str| {
        let message = format!("nothing can be pushed to {}: {why}", registry.push);
        Err(OrchestratorError::refused(message, "take [registry] out of coracle.toml"))
    };
    if engine == EngineKind::Process {
        return refused("the process engine makes no images");
    }
    if spec.is_stack() {
        return refused("the app consists of several images of compose files, and [registry] names a place for one");
    }
    Ok(())
}

/// What a plan says of it.
pub(crate) fn planned_push(spec: &AppSpec) -> Option<String> {
    let registry = spec.registry.as_ref()?;
    let otherwise = if registry.required { "" } else { " (goes live without it, if need be)" };
    Some(format!("pushed to {} before it goes live{otherwise}, and as {LATEST} when it is", registry.push))
}

/// The tag of a release: the commit it was made of if that names it in full, else its number.
fn tag_of(commit: Option<&str>, number: ReleaseNumber) -> String {
    let whole = |commit: &&str| (7..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    commit.filter(whole).map_or_else(|| number.to_string(), str::to_owned)
}

impl Rollout<'_> {
    /// Pushes what was made, unless the registry has it already. Going back and changes of configuration make nothing.
    pub(super) async fn push_image(&self, candidacy: &mut Candidacy) -> Result<(), Failure> {
        let release = &candidacy.release;
        let Some(registry) = release.spec.registry.clone() else { return Ok(()) };
        let is_there = release.artifact.registry.as_ref().is_some_and(|image| image.repository == registry.push);
        if is_there || !matches!(self.deployment.kind, DeploymentKind::Deploy) {
            return Ok(());
        }
        self.enter(Phase::Push).await?;
        let tag = tag_of(candidacy.orders.as_ref().and_then(|orders| orders.commit()), release.number);
        match self.push_as(candidacy, &tag, self.cancel).await {
            Ok(image) => {
                self.note(format!("pushed: {image}"));
                self.core.store.note_pushed(&release.app, release.number, &image).await?;
                candidacy.release.artifact.registry = Some(image);
                Ok(())
            }
            Err(Failure::Release { cause, .. }) if !registry.required => {
                self.note(format!("{cause}; it goes live all the same, since registry.required is false"));
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Lets `latest` mean what is live. It is live already, so what fails here is told and undoes nothing.
    pub(super) async fn push_latest(&self, candidacy: &Candidacy) {
        let Some(registry) = &candidacy.release.spec.registry else { return };
        let never = CancellationToken::new();
        let pushed = tokio::time::timeout(LATEST_LIMIT, self.push_as(candidacy, LATEST, &never)).await;
        match pushed {
            Ok(Ok(image)) => self.note(format!("{}:{LATEST} is {} now", registry.push, image.digest)),
            Ok(Err(Failure::Release { cause, .. })) => self.note(format!("{LATEST} was not moved: {cause}")),
            Ok(Err(failure)) => self.note(format!("{LATEST} was not moved: {failure:?}")),
            Err(_) => self.note(format!("{LATEST} was not moved: it took longer than {} s", LATEST_LIMIT.as_secs())),
        }
    }

    async fn push_as(
        &self,
        candidacy: &Candidacy,
        tag: &str,
        cancel: &CancellationToken,
    ) -> Result<coracle_model::PinnedImage, Failure> {
        let Candidacy { engine, release, .. } = candidacy;
        let Some(registry) = &release.spec.registry else {
            return Err(Failure::release("no registry is named", "name one under [registry] in coracle.toml"));
        };
        let to =
            registry.push.tagged(tag).map_err(|error| Failure::release(error.to_string(), "see [registry] in coracle.toml"))?;
        let logins = match registry.own_login {
            true => self.core.own_logins(&release.app).await?,
            false => self.core.logins(&release.app).await?,
        };
        let (sink, tail) = self.output();
        let pushed = engine.builder.push(&release.artifact.id, &to, &logins, &sink, cancel).await;
        pushed.map_err(|error| build_failure(error, tail.lines()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tag_is_a_whole_commit_or_the_releases_number() {
        let number = ReleaseNumber::new(7).unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(tag_of(Some(commit), number), commit);
        for other in [None, Some("0123456-dirty"), Some("v1.0"), Some("abc"), Some("../x")] {
            assert_eq!(tag_of(other, number), "v7", "{other:?}");
        }
    }
}
