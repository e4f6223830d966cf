//! The rules. Each looks at one part, and says what it sees; how much that weighs is not its affair.

mod container;
mod development_server;
mod django;
mod flask;
mod image_name;
mod secret_in_image;
mod secret_in_tree;
#[cfg(test)]
mod tests;
mod unpinned;

use coracle_model::policy::Rule;

use crate::observation::Observation;
use crate::subject::Looked;

/// What a rule is about, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// What it looks for.
    pub looks_for: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What it leads to unless somebody says otherwise.
    pub by_default: &'static str,
}

/// What a rule is about.
pub fn explain(rule: Rule) -> Explanation {
    let (looks_for, why) = match rule {
        Rule::Root => (
            "an image whose programs run as root",
            "whoever breaks into the app is root in its container, and closer to the machine",
        ),
        Rule::Latest => (
            "images named without a tag, or by `latest`",
            "the next build may be made from something else, and nobody can say what this one was made from",
        ),
        Rule::Health => (
            "something that receives requests and has no health check, neither in its image nor by http.health",
            "a release counts as ready as soon as it takes a connection, even if it answers every request with an error",
        ),
        Rule::SecretInImage => (
            "values of the app's own configuration, and keys of well-known formats, in an image's history, variables and labels",
            "whoever gets the image can read them, and no later layer takes them away again",
        ),
        Rule::SecretInTree => (
            "files with secrets (`.env`, private keys, `.git`) that get into what is built",
            "whoever gets the image, or reads files through the app, has them",
        ),
        Rule::Ignore => (
            "a Dockerfile that copies everything, without a .dockerignore or .coracleignore",
            "secrets, history and caches get into the image by accident, and every changed file builds it anew",
        ),
        Rule::DevelopmentServer => (
            "commands of the release that start a server for development, or one that reloads or debugs",
            "it is slow, serves one at a time, or shows source and a console to whoever provokes an error",
        ),
        Rule::Unpinned => (
            "requirements without exact versions, and no lock file",
            "the next build may install other versions, whether or not they work",
        ),
    };
    let by_default = match rule {
        Rule::SecretInImage => "warn; block where it is a value of the app's own configuration",
        _ => "warn",
    };
    Explanation { looks_for, why, by_default }
}

/// The most that one rule says of a part: who writes hundreds of wrong lines need not hear of each.
const MOST_TOLD: usize = 8;

/// What the rules see of a part.
pub(crate) fn ask(looked: &Looked<'_>) -> Vec<Observation> {
    let mut all = Vec::new();
    if looked.is_first {
        all.extend(few(container::root(looked)));
        all.extend(few(container::latest(looked)));
        all.extend(few(container::ignore(looked)));
        all.extend(few(secret_in_image::observe(looked)));
        all.extend(few(secret_in_tree::observe(looked)));
        all.extend(few(unpinned::observe(looked)));
    }
    all.extend(few(container::health(looked)));
    all.extend(few(development_server::observe(looked)));
    all
}

/// The first of several, what is sure before the rest.
fn few(mut seen: Vec<Observation>) -> Vec<Observation> {
    seen.sort_by_key(|one| !one.surely);
    let more = seen.len().saturating_sub(MOST_TOLD);
    seen.truncate(MOST_TOLD);
    if let Some(last) = seen.last_mut().filter(|_| more > 0) {
        last.what += &format!("; and {more} more like this");
    }
    seen
}
