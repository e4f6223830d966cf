//! What was connected when a branch was fetched, so that it goes live by that connection alone: who disconnects an app, or has another
//! branch deployed, is obeyed by what is on its way too.

use coracle_api::{Problem, ProblemKind};
use coracle_forge::Branch;
use coracle_model::AppName;
use coracle_store::ForgeRecord;

use crate::gate::Tip;
use crate::previews::shown;

/// A commit that was fetched, and by which connection.
pub(crate) struct Fetched {
    pub tip: Tip,
    pub connected: Connected,
}

/// A connection as it was when a branch was fetched by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    /// The app that is connected; a branch beside the one that is deployed goes into a preview of it.
    app: AppName,
    /// What its webhook's path ends with, which no other connection has.
    hook: String,
    /// The branch that was fetched.
    branch: String,
    /// Whether that was the one that is deployed.
    is_deployed: bool,
}

impl Connected {
    /// What is connected, for a branch that is about to be fetched.
    pub(crate) fn of(record: &ForgeRecord, branch: &Branch) -> Self {
        let (app, hook, branch) = (record.app.clone(), record.hook.clone(), branch.to_string());
        let is_deployed = record.branch == branch;
        Self { app, hook, branch, is_deployed }
    }

    /// The app that is connected.
    pub(crate) fn app(&self) -> &AppName {
        &self.app
    }

    /// Refuses what was fetched, unless the app is still connected with the same repository, and the branch means the same to it.
    pub(crate) fn check(&self, now: Option<&ForgeRecord>) -> Result<(), Problem> {
        let Self { app, hook, branch, is_deployed } = self;
        let (fetched, anew) = (shown(branch), format!("have deployed what is connected now: coracle forge deploy -a {app}"));
        let (detail, hint) = match now {
            None => (
                format!("{app} was disconnected from its repository after {fetched} had been fetched"),
                format!("connect it again: coracle forge connect URL -a {app}"),
            ),
            Some(now) if now.hook != *hook => {
                (format!("{app} was connected anew after {fetched} had been fetched: with {}", now.url), anew)
            }
            Some(now) if *is_deployed && now.branch != *branch => {
                (format!("{app} is deployed from {} by now, and this was fetched from {fetched}", shown(&now.branch)), anew)
            }
            Some(now) if !is_deployed && now.branch == *branch => {
                (format!("{app} is deployed from {fetched} by now, which has no preview any more"), anew)
            }
            Some(_) => return Ok(()),
        };
        Err(Problem::new(ProblemKind::Conflict, detail).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(hook: &str, branch: &str) -> ForgeRecord {
        ForgeRecord {
            app: "shop".parse().unwrap(),
            hook: hook.to_owned(),
            forge: "github".to_owned(),
            url: "ssh://git@github.com/ana/shop.git".to_owned(),
            branch: branch.to_owned(),
            api: "https://api.github.com".to_owned(),
            secret: "secret".into(),
            token: None,
            key: None,
            known_hosts: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            wanted: None,
            last: None,
        }
    }

    #[test]
    fn what_was_fetched_goes_live_while_the_connection_means_it() {
        let fetched = |branch: &str| Connected::of(&record("a", "main"), &branch.parse().unwrap());
        // What was changed of it beside that does not matter.
        let same = ForgeRecord { secret: "another".into(), wanted: Some(3), ..record("a", "main") };
        for branch in ["main", "feature/x"] {
            assert_eq!(fetched(branch).check(Some(&same)), Ok(()));
        }
        assert_eq!(fetched("feature/x").check(Some(&record("a", "release"))), Ok(()), "it is beside that one too");
        for (branch, now, why) in [
            ("main", None, "shop was disconnected from its repository after main had been fetched"),
            ("feature/x", None, "shop was disconnected from its repository after feature/x had been fetched"),
            ("main", Some(record("b", "main")), "shop was connected anew after main had been fetched"),
            ("feature/x", Some(record("b", "main")), "shop was connected anew after feature/x had been fetched"),
            ("main", Some(record("a", "release")), "shop is deployed from release by now, and this was fetched from main"),
            ("feature/x", Some(record("a", "feature/x")), "shop is deployed from feature/x by now"),
        ] {
            let problem = fetched(branch).check(now.as_ref()).unwrap_err();
            assert!(problem.detail.starts_with(why), "{}", problem.detail);
            assert_eq!(problem.kind, ProblemKind::Conflict);
            assert!(problem.hint.unwrap().contains("coracle forge "));
        }
    }
}
