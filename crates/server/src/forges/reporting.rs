//! What a forge is told of a commit: that it is being deployed, and what came of that. Nothing of it holds a deployment up or makes
//! it fail; what goes wrong with it is told beside.

use std::time::Duration;

use coracle_forge::{Api, ApiError, Forge, Report, RepositoryUrl, State, Target};
use coracle_git_door::ObjectId;
use coracle_model::{AppName, text};
use coracle_store::{ForgeRecord, LastEvent};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Forges;
use super::deploying::End;

/// How long the forge may take to be told of an end.
const LONGEST: Duration = Duration::from_secs(120);

/// How long the forge may take to be told, once the server stops.
const AT_THE_END: Duration = Duration::from_secs(5);

/// What is told about one commit; nothing, where there is no token.
pub(super) struct Reporting(Option<Telling>);

struct Telling {
    app: AppName,
    api: Api,
    target: Target,
    report: Report,
    /// Where the server is, for whoever wants to know more.
    public_url: Option<String>,
    stop: CancellationToken,
    /// Tells that it is under way; the number that the forge has given the deployment, and what went wrong.
    begun: AbortOnDropHandle<(Option<u64>, Option<ApiError>)>,
}

impl Reporting {
    /// Begins to tell what becomes of a commit in an app: the one that is connected, or a preview of it. `brief`: nothing is under
    /// way, only its end is told.
    pub(super) fn begin(forges: &Forges, record: &ForgeRecord, into: &AppName, commit: &ObjectId, brief: bool) -> Self {
        let (Some(target), Ok(commit)) = (target(record), commit.as_str().parse()) else { return Self(None) };
        let public_url = forges.public_url().map(str::to_owned);
        let (state, description) = (State::Pending, "being deployed".to_owned());
        let report = Report { commit, app: into.to_string(), state, description, link: public_url.clone() };
        let (api, stop) = (forges.inner.api.clone(), forges.inner.means.stop.clone());
        let begun = AbortOnDropHandle::new(tokio::spawn({
            let (api, target, report, stop) = (api.clone(), target.clone(), report.clone(), stop.clone());
            async move {
                match brief {
                    true => (None, None),
                    false => stop.run_until_cancelled(begin(&api, &target, &report)).await.unwrap_or_default(),
                }
            }
        }));
        Self(Some(Telling { app: record.app.clone(), api, target, report, public_url, stop, begun }))
    }

    /// Tells the end, while other things go on; what goes wrong with it is added to what is kept of the event.
    pub(super) fn end(self, forges: &Forges, last: LastEvent, end: End) {
        let Some(telling) = self.0 else { return };
        let (store, app) = (forges.inner.means.store.clone(), telling.app.clone());
        forges.inner.means.tasks.spawn(async move {
            let Some(trouble) = telling.end(&end).await else { return };
            let word = format!("{}; {trouble}", last.word);
            if let Err(error) = store.amend_forge_event(&app, last.at, &word).await {
                tracing::warn!(%app, %error, "that a forge is not told is not written down");
            }
        });
    }
}

impl Telling {
    /// What went wrong with telling, in a few words.
    async fn end(self, end: &End) -> Option<String> {
        let Self { api, target, mut report, public_url, stop, begun, .. } = self;
        let cut = async {
            stop.cancelled().await;
            tokio::time::sleep(AT_THE_END).await;
        };
        let telling = async {
            let (number, trouble) = begun.await.unwrap_or_default();
            report.state = end.state;
            report.description.clone_from(&end.told);
            report.link = end.url.clone().filter(|url| !text::leads_home(url)).or(public_url);
            let told = api.status(&target, &report).await;
            let told = match number {
                Some(number) => told.and(api.deployment_status(&target, number, &report).await),
                None => told,
            };
            told.err().or(trouble)
        };
        let trouble = tokio::select! {
            trouble = tokio::time::timeout(LONGEST, telling) => trouble.unwrap_or_default()?,
            () = cut => return None,
        };
        tracing::warn!(app = report.app, %trouble, "a forge is not told");
        Some(format!("{} was not told of it: {trouble}", target.forge.title()))
    }
}

async fn begin(api: &Api, target: &Target, report: &Report) -> (Option<u64>, Option<ApiError>) {
    let told = api.status(target, report).await;
    if let Err(error @ ApiError::Unreachable { .. }) = told {
        return (None, Some(error));
    }
    match api.deployment(target, report).await {
        Ok(Some(number)) => {
            let told = told.and(api.deployment_status(target, number, report).await);
            (Some(number), told.err())
        }
        Ok(None) => (None, told.err()),
        // A token may well allow statuses alone.
        Err(ApiError::Refused { status: 403 | 404 | 409 | 422, .. }) => (None, told.err()),
        Err(error) => (None, told.err().or(Some(error))),
    }
}

fn target(record: &ForgeRecord) -> Option<Target> {
    let forge: Forge = record.forge.parse().ok()?;
    let url: RepositoryUrl = record.url.parse().ok()?;
    let (api, token) = (record.api.parse().ok()?, record.token.clone()?);
    Some(Target { forge, api, repository: repository_name(forge, url.full_name()).to_owned(), token })
}

/// What a repository is called at its forge: GitLab has groups in groups, the others an owner and a name, and what stands before is
/// the forge's own path.
fn repository_name(forge: Forge, path: &str) -> &str {
    let begin = path.rmatch_indices('/').nth(1).filter(|_| forge != Forge::GitLab);
    begin.map_or(path, |(at, _)| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_called_as_their_forges_call_them() {
        for (forge, path, name) in [
            (Forge::GitHub, "ana/shop", "ana/shop"),
            (Forge::GitHub, "shop", "shop"),
            (Forge::Forgejo, "forge/ana/shop", "ana/shop"),
            (Forge::GitLab, "group/sub/shop", "group/sub/shop"),
        ] {
            assert_eq!(repository_name(forge, path), name);
        }
    }
}
