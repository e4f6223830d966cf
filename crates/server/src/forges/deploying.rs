//! One turn of a lane: fetch the branch, deploy what it names, tell what came of it.

use std::sync::Arc;

use coracle_api::{ChangeOptions, DeploymentEvent, Outcome, Phase, Problem, ProblemKind};
use coracle_forge::{Branch, Forge, RepositoryUrl, Scheme, State};
use coracle_git_door as git;
use coracle_model::AppName;
use coracle_model::text::one_line;
use coracle_store::{ForgeRecord, LastEvent, StoreError};
use jiff::Timestamp;

use super::reporting::Reporting;
use super::{Connected, Fetched, Forges, Lane, Means};
use crate::deployments::Work;
use crate::gate::{self, Tip};
use crate::journal::Journal;

/// Characters of what is kept about the last event.
const LONGEST_WORD: usize = 500;

/// What came of a commit.
pub(super) struct End {
    pub state: State,
    /// What came of it, for those who may see the app.
    pub word: String,
    /// What came of it, for whoever reads the forge's pages, which may be everybody: nothing that an app or a tool has printed.
    pub told: String,
    /// Where it is reached.
    pub url: Option<String>,
}

impl Forges {
    /// Deploys what the branch names now. Whatever goes wrong is told, and is the end of this turn alone.
    pub(super) async fn carry_out(&self, app: &AppName, lane: &Lane) {
        let means = &self.inner.means;
        let record = match means.store.forge(app).await {
            Ok(Some(record)) => record,
            // It was disconnected, or destroyed, in the meantime.
            Ok(None) => return,
            Err(error) => return tracing::error!(%app, %error, "the connection with a repository cannot be read"),
        };
        if record.wanted.is_none() {
            // An earlier turn has fetched it after it was asked for, or another branch has been connected since.
            return;
        }
        let branch = match record.branch.parse::<Branch>() {
            Ok(branch) => branch,
            Err(error) => return self.conclude(app, None, End::failure(error.to_string(), "it cannot be fetched"), None).await,
        };
        let fetched = self.fetch(&record, &branch, lane).await;
        if !self.is_connected(&Connected::of(&record, &branch)).await {
            // It was disconnected, destroyed, or connected otherwise, while it was being fetched.
            return;
        }
        let (commit, end, reporting) = match fetched {
            Ok(fetched) => {
                let commit = fetched.tip.commit.clone();
                let (end, reporting) = self.deploy_fetched(&record, fetched, lane).await;
                (Some(commit), end, Some(reporting))
            }
            Err(word) => (None, End::failure(word, "it cannot be fetched"), None),
        };
        self.conclude(app, commit, end, reporting).await;
        // What the server's stop called off, the next start takes up; what made way for something newer, the next turn.
        if !means.stop.is_cancelled()
            && !lane.waits().deployed
            && let Err(error) = means.store.forge_is_done(&record).await
        {
            tracing::warn!(%app, %error, "what was done for a forge will be done again at the next start");
        }
    }

    /// Writes down what came of an event, and tells the forge.
    pub(super) async fn conclude(&self, app: &AppName, commit: Option<git::ObjectId>, end: End, reporting: Option<Reporting>) {
        let failed = end.state == State::Failure;
        let word = one_line(&end.word, LONGEST_WORD);
        tracing::info!(%app, commit = commit.as_ref().map(git::ObjectId::as_str), word, "what came of a forge's event");
        let last = LastEvent { at: Timestamp::now(), commit: commit.map(|commit| commit.to_string()), word, failed };
        if let Err(error) = self.inner.means.store.record_forge_event(app, &last).await {
            tracing::warn!(%app, %error, "what came of a forge's event is not written down");
        }
        if let Some(reporting) = reporting {
            reporting.end(self, last, end);
        }
    }

    /// Whether a connection is still there, and means the same.
    pub(super) async fn is_connected(&self, connected: &Connected) -> bool {
        let app = connected.app();
        match self.inner.means.store.forge(app).await.map(|now| connected.check(now.as_ref())) {
            Ok(Ok(())) => true,
            Ok(Err(problem)) => {
                tracing::info!(%app, detail = problem.detail, "what was fetched is not deployed");
                self.forget_of_nobody(app).await;
                false
            }
            Err(error) => {
                tracing::error!(%app, %error, "the connection with a repository cannot be read");
                false
            }
        }
    }

    /// What was fetched for an app that has gone meanwhile is not to wait for the next one of its name.
    async fn forget_of_nobody(&self, app: &AppName) {
        let Means { store, door, .. } = &self.inner.means;
        if matches!(store.app(app).await, Err(StoreError::NoSuchApp(_)))
            && let Err(error) = door.remove(app).await
        {
            tracing::warn!(%app, %error, "what was fetched for an app that is gone stays");
        }
    }

    /// The commit that a branch names now, in the app's own repository; or why there is none, in a sentence.
    pub(super) async fn fetch(&self, record: &ForgeRecord, branch: &Branch, lane: &Lane) -> Result<Fetched, String> {
        let origin = origin(record)?;
        let means = &self.inner.means;
        // First this, so that who waits for the app's other lane keeps no other app from fetching.
        let _alone = lane.fetching.lock().await;
        let _place = self.inner.fetches.acquire().await.map_err(|error| error.to_string())?;
        let fetched = means.door.fetch(&record.app, &origin, branch.as_str()).await;
        let commit = fetched
            .map_err(|error| format!("{} cannot be fetched: {}", record.url, one_line(&error.to_string(), LONGEST_WORD)))?;
        let gone = || "the app's repository is gone".to_owned();
        let repository = means.door.repository(&record.app).ok_or_else(gone)?;
        // Whoever can push there is not the administrator here.
        let tip = Tip { repository, commit, branch: branch.to_string(), trusted: false, by: None };
        Ok(Fetched { tip, connected: Connected::of(record, branch) })
    }

    async fn deploy_fetched(&self, record: &ForgeRecord, fetched: Fetched, lane: &Lane) -> (End, Reporting) {
        let means = &self.inner.means;
        let commit = &fetched.tip.commit;
        let (app, short) = (&record.app, commit.as_str()[..12].to_owned());
        let is_live = gate::live_commit(&means.store, app).await.ok().flatten().as_deref() == Some(commit.as_str());
        let reporting = Reporting::begin(self, record, app, commit, is_live);
        let end = if is_live {
            End::of(State::Success, format!("{short} is live already"))
        } else {
            let options = ChangeOptions { detach: true, wait: true };
            let journal = means.deployments.begin(app.clone(), Work::Fetched(fetched), options);
            follow(&journal, Some(lane), &short).await
        };
        (end, reporting)
    }
}

/// Follows a deployment to its end. While it has not begun, or waits for a person, something newer in the lane takes its place.
pub(super) async fn follow(journal: &Arc<Journal>, lane: Option<&Lane>, commit: &str) -> End {
    let (mut reader, mut url, mut superseded, mut asks) = (journal.reader(), None, false, false);
    let mut last = (None, None);
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = newer(lane), if !superseded => {
                if is_waited_for(lane) && (asks || journal.deployment().is_none()) {
                    superseded = true;
                    journal.cancel.cancel();
                }
                continue;
            }
        };
        let Some((_, event)) = next else { break };
        match &*event {
            DeploymentEvent::Phase { phase } => {
                asks = *phase == Phase::Approval;
                if asks && is_waited_for(lane) {
                    superseded = true;
                    journal.cancel.cancel();
                }
            }
            DeploymentEvent::Live { urls, .. } => url = urls.first().cloned(),
            DeploymentEvent::Ended { outcome, problem } => last = (outcome.clone(), problem.clone()),
            _ => {}
        }
    }
    let (outcome, problem) = last;
    if superseded && !matches!(outcome, Some(Outcome::Succeeded)) {
        return End::of(State::Cancelled, format!("{commit}: a newer push took its place"));
    }
    ended(commit, outcome.as_ref(), problem.as_ref(), url)
}

async fn newer(lane: Option<&Lane>) {
    match lane {
        Some(lane) => lane.came.notified().await,
        None => std::future::pending().await,
    }
}

fn is_waited_for(lane: Option<&Lane>) -> bool {
    lane.is_some_and(|lane| lane.waits().deployed)
}

fn ended(commit: &str, outcome: Option<&Outcome>, problem: Option<&Problem>, url: Option<String>) -> End {
    let because = |usual: &str| one_line(problem.map_or(usual, |problem| &problem.detail), LONGEST_WORD);
    let end = match outcome {
        Some(Outcome::Succeeded) => End::of(State::Success, format!("{commit} is live")),
        Some(Outcome::Unchanged) => End::of(State::Success, format!("{commit} changes nothing")),
        Some(Outcome::Cancelled { phase }) => End {
            told: format!("{commit}: called off ({phase})"),
            ..End::of(State::Cancelled, format!("{commit}: {}", because("called off")))
        },
        Some(Outcome::Failed { phase, .. } | Outcome::Interrupted { phase, .. }) => {
            End::failure(format!("{commit}: {}", because("it failed")), &format!("{commit}: it failed ({phase})"))
        }
        None => {
            let told = problem.map_or("It ended without a word", |problem| problem.kind.title());
            let state = match problem.is_some_and(|problem| problem.kind == ProblemKind::Cancelled) {
                true => State::Cancelled,
                false => State::Failure,
            };
            let word = format!("{commit}: {}", because("it ended without a word"));
            End { told: format!("{commit}: {told}"), ..End::of(state, word) }
        }
    };
    End { url, ..end }
}

impl End {
    /// One that everybody may read as it is.
    pub(super) fn of(state: State, word: String) -> Self {
        Self { state, told: word.clone(), word, url: None }
    }

    pub(super) fn failure(word: String, told: &str) -> Self {
        Self { told: told.to_owned(), ..Self::of(State::Failure, word) }
    }
}

/// How git gets to a connection's repository.
fn origin(record: &ForgeRecord) -> Result<git::Origin, String> {
    let url: RepositoryUrl = record.url.parse().map_err(|error| format!("{error}"))?;
    let forge: Forge = record.forge.parse().map_err(|error| format!("{error}"))?;
    let means = match (url.scheme(), &record.key, &record.token) {
        (Scheme::Ssh, Some(key), _) => {
            git::Means::Key { private: key.private.clone(), known_hosts: record.known_hosts.clone().unwrap_or_default() }
        }
        (Scheme::Ssh, None, _) => return Err("there is no key for it: connect it again".to_owned()),
        (Scheme::Https | Scheme::Http, _, Some(token)) => {
            git::Means::Token { user: forge.token_user().to_owned(), token: token.clone() }
        }
        (Scheme::Https | Scheme::Http, _, None) => git::Means::Open,
    };
    Ok(git::Origin { url: url.to_string(), means })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_told_in_a_harmless_sentence() {
        let problem = Problem::new(ProblemKind::DeploymentFailed, "build failed: \u{1b}[2J\nx");
        let failed = Outcome::Failed { phase: Phase::Build, cause: String::new(), evidence: Vec::new() };
        let end = ended("abc", Some(&failed), Some(&problem), None);
        assert_eq!((end.state, end.word.as_str()), (State::Failure, "abc: build failed: \u{fffd}[2J x"));
        assert_eq!(end.told, "abc: it failed (build)");
        let refused = Problem::new(ProblemKind::Invalid, "the commit has submodules");
        assert_eq!(ended("abc", None, Some(&refused), None).state, State::Failure);
        let called_off = Problem::new(ProblemKind::Cancelled, "called off while waiting");
        assert_eq!(ended("abc", None, Some(&called_off), None).state, State::Cancelled);
        assert_eq!(ended("abc", Some(&Outcome::Succeeded), None, None).word, "abc is live");
    }
}
