//! Previews: branches of an app that get an app of their own, and what ends them: the branch, the app, or their time.
//!
//! What an app's previews are is believed of its active release alone, so that a branch gives itself nothing; what runs in one,
//! the branch says. A preview begins with the configuration that the section `[previews]` names, reaches nothing beyond itself,
//! whoever pushes, and is deployed by its branch alone.

mod confinement;
pub(crate) mod expected;
mod keeper;
mod naming;

use std::sync::Arc;

use coracle_api::{Problem, ProblemKind};
use coracle_git_door::Door;
use coracle_model::{AppName, CopiedConfig, EnvName, HostPattern, HostTemplate, PreviewPolicy, text};
use coracle_orchestrator::HostOrchestrator;
use coracle_store::{ConfigEntry, PreviewAdmission, PreviewRecord, Store, StoreError, WantedPreview};
use tokio::sync::Notify;

use crate::deployments::Deployments;
use crate::problems;

pub(crate) use confinement::confine;

/// Bytes of the longest name of a branch that gets a preview.
const LONGEST_BRANCH: usize = 255;

/// All previews of this server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Previews {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    orchestrator: HostOrchestrator,
    deployments: Deployments,
    door: Door,
    /// Told when something may have to end earlier than was known.
    wake: Notify,
}

/// What becomes of a branch that has come.
#[derive(Debug)]
pub(crate) enum Came {
    /// The app has no previews.
    NoPreviews,
    /// The branch gets none, for this reason: a sentence's end.
    Without(String),
    /// It has this preview, into which the commit is to be deployed by [`Work::Preview`](crate::deployments::Work::Preview).
    Preview(Admitted),
}

/// A preview that is there, and waits for the commit to be deployed into it.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// The preview on record; its `app` is what is deployed.
    pub record: PreviewRecord,
    /// The commit.
    pub commit: String,
    /// What whoever pushed is to know, one sentence each.
    pub notes: Vec<String>,
}

impl Previews {
    pub(crate) fn new(store: Store, orchestrator: HostOrchestrator, deployments: Deployments, door: Door) -> Self {
        Self { inner: Arc::new(Inner { store, orchestrator, deployments, door, wake: Notify::new() }) }
    }

    /// A branch of an app that is not the one to deploy names a commit. Makes its preview, or lets it live on; deploys nothing yet.
    ///
    /// Whoever calls this has seen to it that the commit may come: that it was pushed by somebody with a role in the app, or to
    /// the app's own repository. (What others offer to it, from forks, never comes here.)
    pub(crate) async fn branch_came(&self, app: &AppName, branch: &str, commit: &str) -> Result<Came, Problem> {
        let store = &self.inner.store;
        let told = |error: StoreError| problems::store(&error);
        let Some((policy, hosts)) = policy(store, app).await.map_err(told)? else { return Ok(Came::NoPreviews) };
        if branch.len() > LONGEST_BRANCH {
            return Ok(Came::Without(format!("its name is longer than {LONGEST_BRANCH} bytes")));
        }
        if !policy.covers(branch) {
            return Ok(Came::Without("[previews] of the release that is live names no such branch".to_owned()));
        }
        let names = names(app, branch, &policy, &hosts)?;
        let (config, mut notes) = match store.preview_of(app, branch).await.map_err(told)? {
            Some(_) => (Vec::new(), Vec::new()),
            None => copied(&policy, store.config(app).await.map_err(told)?),
        };
        let wanted = WantedPreview { parent: app, branch, names: &names, ttl: policy.ttl, max: policy.max, config: &config };
        let record = match store.admit_preview(&wanted).await.map_err(told)? {
            PreviewAdmission::Made(record) => record,
            PreviewAdmission::Renewed(record) => {
                notes.clear();
                record
            }
            PreviewAdmission::Full(branches) => return Ok(Came::Without(full(app, policy.max, &branches))),
            PreviewAdmission::Taken => {
                let tried: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
                return Ok(Came::Without(format!("the names that it could have are other apps': {}", tried.join(", "))));
            }
        };
        self.inner.wake.notify_one();
        notes.insert(0, format!("a preview of {app}: {}, until {} after the last push", record.app, policy.ttl));
        Ok(Came::Preview(Admitted { record, commit: commit.to_owned(), notes }))
    }

    /// Whether the release that is live names a branch as one of those that get a preview.
    pub(crate) async fn are_wanted(&self, app: &AppName, branch: &str) -> Result<bool, StoreError> {
        let policy = policy(&self.inner.store, app).await?;
        Ok(policy.is_some_and(|(policy, _)| branch.len() <= LONGEST_BRANCH && policy.covers(branch)))
    }

    /// A branch is gone, and its preview with it: with data, configuration, routes and images. Answers with what it was called,
    /// if there was one. What cannot be ended at once is ended as soon as it can.
    pub(crate) async fn branch_gone(&self, app: &AppName, branch: &str) -> Result<Option<AppName>, Problem> {
        let preview = self.inner.store.preview_of(app, branch).await.map_err(|error| problems::store(&error))?;
        let Some(preview) = preview else { return Ok(None) };
        self.end(&preview.app).await?;
        Ok(Some(preview.app))
    }

    /// The preview of a branch lives on from now, for as long as after a push.
    pub(crate) async fn extend(&self, app: &AppName, branch: &str) -> Result<PreviewRecord, Problem> {
        let store = &self.inner.store;
        let told = |error: StoreError| problems::store(&error);
        let preview = self.of_branch(app, branch).await?;
        match store.extend_preview(&preview.app).await.map_err(told)? {
            Some(expires_at) => Ok(PreviewRecord { expires_at, ..preview }),
            None => Err(Problem::new(ProblemKind::Conflict, format!("the preview of {} is ending", shown(branch)))
                .hint("push the branch again to have another")),
        }
    }

    /// The preview of a branch.
    pub(crate) async fn of_branch(&self, app: &AppName, branch: &str) -> Result<PreviewRecord, Problem> {
        let preview = self.inner.store.preview_of(app, branch).await.map_err(|error| problems::store(&error))?;
        preview.ok_or_else(|| {
            Problem::new(ProblemKind::NotFound, format!("{app} has no preview of a branch {}", shown(branch)))
                .hint(format!("`coracle previews -a {app}` lists them"))
        })
    }

    /// Ends all previews of an app that is gone itself.
    pub(crate) async fn end_those_of(&self, app: &AppName) -> Result<(), Problem> {
        let all = self.inner.store.previews(Some(app)).await.map_err(|error| problems::store(&error))?;
        let ending = all.iter().map(|preview| self.end(&preview.app));
        futures::future::join_all(ending).await.into_iter().collect()
    }
}

/// What an app's active release says of previews, and the hosts it is reached at.
async fn policy(store: &Store, app: &AppName) -> Result<Option<(PreviewPolicy, Vec<HostPattern>)>, StoreError> {
    let record = match store.app(app).await {
        Ok(record) => record,
        Err(StoreError::NoSuchApp(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(active) = record.active else { return Ok(None) };
    let spec = store.release(app, active).await?.spec;
    // A preview has none of its own.
    Ok(spec.previews.map(|policy| (*policy, spec.http.hosts)))
}

/// The variables that previews of an app run with.
pub(crate) async fn variables(store: &Store, app: &AppName) -> Result<PreviewVariables, StoreError> {
    Ok(policy(store, app).await?.map(|(policy, _)| policy.env).unwrap_or_default())
}

/// Plain variables, by name.
pub(crate) type PreviewVariables = std::collections::BTreeMap<EnvName, String>;

/// Refuses a release of a preview that lacks these secrets, and says how the preview gets them: setting them in the app that it is a
/// preview of is not enough.
pub(crate) async fn require_none(store: &Store, preview: &PreviewRecord, missing: Vec<&EnvName>) -> Result<(), Problem> {
    if missing.is_empty() {
        return Ok(());
    }
    let told = |error: StoreError| problems::store(&error);
    let of_parent: Vec<EnvName> = match store.config(&preview.parent).await {
        Ok(config) => config.into_iter().map(|entry| entry.name).collect(),
        Err(StoreError::NoSuchApp(_)) => Vec::new(),
        Err(error) => return Err(told(error)),
    };
    Err(lacking(preview, &missing, &of_parent))
}

/// What is said of secrets that a preview lacks. One that is live keeps its own configuration; the first release of one brings it.
fn lacking(preview: &PreviewRecord, missing: &[&EnvName], of_parent: &[EnvName]) -> Problem {
    let PreviewRecord { app, parent, branch, .. } = preview;
    let listed = |names: &[&EnvName], between: &str| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(between);
    let unset: Vec<&EnvName> = missing.iter().copied().filter(|name| !of_parent.contains(name)).collect();
    let hint = match (&preview.commit, unset.as_slice()) {
        (Some(_), _) => format!("coracle secrets set {} -a {app}", listed(missing, " ")),
        (None, unset) => {
            let set = match unset {
                [] => String::new(),
                unset => format!("coracle secrets set {} -a {parent}; then ", listed(unset, " ")),
            };
            let named = missing.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            format!(
                "{set}name what previews get under [previews] of the coracle.toml that is live (secrets = [{named}]), and push {} again",
                shown(branch)
            )
        }
    };
    let detail = format!("required and not set in the preview {app}: {}", listed(missing, ", "));
    Problem::new(ProblemKind::Invalid, detail).hint(hint)
}

/// What a preview may be called and where it is reached then, the best name first.
fn names(
    app: &AppName,
    branch: &str,
    policy: &PreviewPolicy,
    hosts: &[HostPattern],
) -> Result<Vec<(AppName, HostPattern)>, Problem> {
    let own = hosts.iter().find(|host| !host.as_str().starts_with('*') && *host.as_str() != format!("{app}.localhost"));
    let template = policy.host.clone().or_else(|| own.and_then(HostTemplate::beneath));
    let mut all = Vec::new();
    for (name, part) in naming::candidates(app, branch) {
        let host = match &template {
            Some(template) => template.host(&name, &part),
            None => format!("{name}.localhost").parse().ok(),
        };
        all.extend(host.map(|host| (name, host)));
    }
    match all.is_empty() {
        false => Ok(all),
        true => Err(Problem::new(ProblemKind::Invalid, "the hosts of previews are longer than hosts can be")
            .hint("choose a shorter `host` under [previews]")),
    }
}

/// What of an app's configuration a preview begins with, and what is said about the rest.
fn copied(policy: &PreviewPolicy, all: Vec<ConfigEntry>) -> (Vec<ConfigEntry>, Vec<String>) {
    let mut copied = Vec::new();
    let mut withheld = Vec::new();
    for entry in all {
        let is_named = policy.secrets.contains(&entry.name);
        let is_plain = match &policy.config {
            // What is named is meant, however it looks.
            CopiedConfig::Named(names) => !entry.secret && names.contains(&entry.name),
            CopiedConfig::Copy => !entry.secret && !looks_secret(entry.name.as_str(), entry.value.expose()),
            CopiedConfig::None => false,
        };
        match is_named || is_plain {
            true => copied.push(entry),
            false => withheld.push(entry.name.to_string()),
        }
    }
    let note = match withheld.as_slice() {
        [] => Vec::new(),
        names => vec![format!(
            "not copied of the configuration: {} (`config` and `secrets` under [previews] name what is, `env` gives others)",
            names.join(", ")
        )],
    };
    (copied, note)
}

/// Whether a value that was set plainly is better not handed on: what it is called, or that a password stands in an address.
fn looks_secret(name: &str, value: &str) -> bool {
    const WORDS: [&str; 9] = ["SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "TOKEN", "CREDENTIAL", "PRIVATE", "APIKEY", "DSN"];
    let name = name.to_ascii_uppercase();
    let has_password = value.match_indices("://").any(|(at, mark)| {
        let rest = &value[at + mark.len()..];
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    has_password
        || WORDS.iter().any(|word| name.contains(word))
        || name.split('_').any(|word| matches!(word, "KEY" | "PWD" | "PASS"))
}

fn full(app: &AppName, max: u16, branches: &[String]) -> String {
    let shown: Vec<String> = branches.iter().take(10).map(|branch| shown(branch)).collect();
    format!(
        "{app} has {} of at most {max} ({}); end one: coracle previews remove BRANCH -a {app}",
        branches.len(),
        shown.join(", ")
    )
}

/// A branch's name as it is told: without what a terminal would obey, and without what turns the direction of writing.
pub(crate) fn shown(branch: &str) -> String {
    text::one_line(branch, 100)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use coracle_model::Secret;

    fn entry(name: &str, value: &str, secret: bool) -> ConfigEntry {
        ConfigEntry { name: name.parse().unwrap(), value: Secret::new(value), secret, updated_at: jiff::Timestamp::UNIX_EPOCH }
    }

    fn policy(config: CopiedConfig, secrets: &[&str]) -> PreviewPolicy {
        PreviewPolicy {
            branches: vec!["**".parse().unwrap()],
            host: None,
            ttl: coracle_model::Lifetime::USUAL,
            max: 5,
            config,
            secrets: secrets.iter().map(|name| name.parse().unwrap()).collect(),
            env: PreviewVariables::new(),
        }
    }

    #[test]
    fn a_branch_is_told_without_what_turns_it() {
        assert_eq!(shown("fix/\u{202e}niam\x1b[2J"), "fix/\u{fffd}niam\u{fffd}[2J");
    }

    #[test]
    fn secrets_are_copied_only_by_name() {
        let all = || {
            vec![
                entry("LOG_LEVEL", "debug", false),
                entry("DATABASE_URL", "postgres://shop:hunter2@db/shop", false),
                entry("STRIPE_KEY", "sk_live_1", false),
                entry("SESSION", "x", true),
                entry("PEPPER", "y", true),
            ]
        };
        let names = |config, secrets: &[&str]| {
            let (copied, notes) = copied(&policy(config, secrets), all());
            assert!(notes.iter().all(|note| !note.contains("hunter2")));
            copied.iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(CopiedConfig::Copy, &[]), ["LOG_LEVEL"]);
        assert_eq!(names(CopiedConfig::None, &[]), [""; 0]);
        assert_eq!(names(CopiedConfig::None, &["SESSION"]), ["SESSION"]);
        let named = CopiedConfig::Named(vec!["DATABASE_URL".parse().unwrap(), "PEPPER".parse().unwrap()]);
        assert_eq!(names(named, &[]), ["DATABASE_URL"]);
    }

    #[test]
    fn a_preview_that_lacks_secrets_says_how_it_gets_them() {
        let mut preview = PreviewRecord {
            app: "shop-fix".parse().unwrap(),
            parent: "shop".parse().unwrap(),
            branch: "fix".to_owned(),
            host: "shop-fix.localhost".parse().unwrap(),
            commit: None,
            ttl: 3600,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            pushed_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let (one, two): (EnvName, EnvName) = ("S1".parse().unwrap(), "S2".parse().unwrap());
        let hint =
            |preview: &PreviewRecord, missing: &[&EnvName]| lacking(preview, missing, std::slice::from_ref(&one)).hint.unwrap();
        let naming = "name what previews get under [previews] of the coracle.toml that is live";
        assert_eq!(hint(&preview, &[&one]), format!("{naming} (secrets = [\"S1\"]), and push fix again"));
        let set = "coracle secrets set S2 -a shop; then";
        assert_eq!(hint(&preview, &[&one, &two]), format!("{set} {naming} (secrets = [\"S1\", \"S2\"]), and push fix again"));
        preview.commit = Some("0".repeat(40));
        assert_eq!(hint(&preview, &[&one, &two]), "coracle secrets set S1 S2 -a shop-fix");
    }

    #[test]
    fn what_holds_a_password_looks_like_a_secret() {
        for (name, value, looks) in [
            ("LOG_LEVEL", "debug", false),
            ("MONKEY", "x", false),
            ("HOMEPAGE", "https://shop.example/a@b:c", false),
            ("URL", "https://user@shop.example/", false),
            ("URL", "redis://:pw@cache:6379/0", true),
            ("AWS_ACCESS_KEY_ID", "x", true),
            ("session_secret", "x", true),
            ("SENTRY_DSN", "https://abc@sentry.example/1", true),
        ] {
            assert_eq!(looks_secret(name, value), looks, "{name}={value}");
        }
    }

    #[test]
    fn a_preview_is_reached_beneath_its_app_or_where_the_section_says() {
        let app: AppName = "shop".parse().unwrap();
        let host = |policy: &PreviewPolicy, hosts: &[&str]| {
            let hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
            names(&app, "feature/x", policy, &hosts).unwrap()[0].1.to_string()
        };
        let mut policy = policy(CopiedConfig::Copy, &[]);
        assert_eq!(host(&policy, &["shop.localhost"]), "shop-feature-x.localhost");
        assert_eq!(host(&policy, &["*"]), "shop-feature-x.localhost");
        assert_eq!(host(&policy, &["*.example.com", "shop.example.com"]), "feature-x.shop.example.com");
        policy.host = Some("{branch}.preview.example.com".parse().unwrap());
        assert_eq!(host(&policy, &["shop.example.com"]), "feature-x.preview.example.com");
    }
}
