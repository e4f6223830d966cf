//! Dockerfiles for trees that have none, fit to be kept: dependencies in a layer of their own before the source, so that a
//! changed line reinstalls nothing; a user that is not root; a health check that asks what Coracle asks.
//!
//! Whatever comes out of the tree or the manifest (names of files, versions, commands) stands in JSON or is a number, so that
//! no instruction of theirs gets in. Steps are argument vectors without a shell in between.

mod command;
mod compiled;
mod health;
mod node;
mod python;
mod site;
#[cfg(test)]
mod tests;

use coracle_model::BuildPlan;
use coracle_model::plan::{PythonDependencies, Recipe, Serving};
use coracle_model::text::one_line;
use serde_json::Value;

use crate::detect::PlanError;
use health::Prober;
pub(crate) use site::static_server;

/// The port that what is built listens on, unless the manifest has another.
pub const DEFAULT_PORT: u16 = 8080;

/// The user that apps run as in images that bring none.
const USER: &str = "10001:10001";

/// What programs run on that bring everything with them.
const DEBIAN: &str = "debian:bookworm-slim";

/// A Dockerfile for the docker engine; `None` for recipes that bring their own or need none.
///
/// The same plan gives the same text, wherever it is asked for. Build it with the tree as its context. Its `CMD` is the plan's
/// `web`, for whoever runs the image by hand; the engine gives each process its own command.
pub fn generate(plan: &BuildPlan) -> Option<String> {
    let image = Image { serving: &plan.serving };
    let body = match &plan.recipe {
        Recipe::Dockerfile { .. } | Recipe::Image { .. } => return None,
        Recipe::Python(app) => python::stages(app, &image),
        Recipe::Node(app) => node::stages(app, &image),
        Recipe::Go(app) => compiled::go(app, &image),
        Recipe::Rust(app) => compiled::rust(app, &image),
        Recipe::Static { root } => site::stage(root, &image),
        Recipe::Plain => plain(&image),
    };
    let reason = one_line(&plan.reason, 500);
    Some(format!(
        "# Written by Coracle: {reason}.\n\
         # An app without a Dockerfile is built from this very text. Keep it as Dockerfile, and it is yours to change.\n\n{body}"
    ))
}

/// The port that `web` of a plan listens on.
pub fn port(plan: &BuildPlan) -> u16 {
    Image { serving: &plan.serving }.port()
}

/// Refuses what cannot be said in a Dockerfile without being taken for something else: the engine reads patterns, quotes and
/// variables in the names of files to be copied.
pub(crate) fn check(plan: &BuildPlan) -> Result<(), PlanError> {
    let named: Vec<&String> = match &plan.recipe {
        Recipe::Python(app) => match &app.dependencies {
            PythonDependencies::Requirements { files } => files.iter().collect(),
            _ => app.local.iter().collect(),
        },
        Recipe::Static { root } => vec![root],
        _ => Vec::new(),
    };
    let means_more = |c: char| c.is_control() || "*?[]\\$\"'".contains(c);
    match named.iter().find(|name| name.contains(means_more)) {
        None => Ok(()),
        Some(name) => Err(PlanError::Unsuitable {
            message: format!("the name {name:?} has a character that means something else in a Dockerfile"),
            hint: "rename it, or bring a Dockerfile".to_owned(),
        }),
    }
}

/// What all images have in common.
struct Image<'a> {
    serving: &'a Serving,
}

impl Image<'_> {
    fn port(&self) -> u16 {
        self.serving.port.unwrap_or(DEFAULT_PORT)
    }

    /// What an image says of itself. It stands before the source: a changed line of that makes none of it anew.
    fn says(&self, prober: Prober) -> String {
        let Some(command) = &self.serving.command else { return String::new() };
        let port = self.port();
        let check = health::check(prober, self.serving, port);
        let command = command::instruction(command, port);
        format!(
            "# Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.\n\
             EXPOSE {port}\n{check}{command}"
        )
    }
}

/// A step as an argument vector.
fn run(argv: &[&str]) -> String {
    format!("RUN {}\n", Value::from(argv))
}

fn copy(paths: &[&str], to: &str) -> String {
    let all: Vec<_> = paths.iter().copied().chain([to]).collect();
    format!("COPY {}\n", Value::from(all))
}

/// A folder that belongs to the app's user, which has no entry in the image's list of users.
fn home() -> String {
    let (uid, gid) = USER.split_once(':').unwrap_or((USER, USER));
    format!("ENV HOME=/app\n{}WORKDIR /app\n", run(&["install", "-d", "-o", uid, "-g", gid, "/app"]))
}

/// The source, as the last of all, and who runs it.
fn source_of(user: &str) -> String {
    format!("# Not as root; and the source comes last, since it is what changes.\nUSER {user}\nCOPY --chown={user} . .\n")
}

fn plain(image: &Image<'_>) -> String {
    format!("FROM {DEBIAN}\n{}{}{}", home(), image.says(Prober::Bash), source_of(USER))
}
