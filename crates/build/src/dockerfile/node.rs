//! Node.js.

use coracle_model::plan::{NodeApp, PackageManager};
use serde_json::Value;

use super::health::Prober;
use super::{Image, copy, run, source_of};
use crate::detect::node::DEFAULT_VERSION;

/// The user that the official images bring.
const USER: &str = "node:node";

/// The managers that have been tried, for apps that name no version of theirs.
const PNPM: &str = "9.15.9";
const YARN: &str = "1.22.22";
const YARN_BERRY: &str = "4.12.0";

pub(super) fn stages(app: &NodeApp, image: &Image<'_>) -> String {
    let base = format!("node:{}-slim", app.version.as_deref().unwrap_or(DEFAULT_VERSION));
    let mut out = packages(app, &base);
    if app.has_build_script {
        out += &build(app);
    }
    out += &format!("FROM {base}\nENV NODE_ENV=production npm_config_update_notifier=false\n");
    out += &run(&["install", "-d", "-o", "node", "-g", "node", "/app"]);
    out += "WORKDIR /app\n";
    if !app.needs_tree {
        out += "COPY --from=packages /app/node_modules ./node_modules\n";
    }
    out += &image.says(Prober::Node);
    match (app.needs_tree, app.has_build_script) {
        (false, false) => out + &source_of(USER),
        (needs_tree, _) => {
            let stage = if needs_tree && !app.has_build_script { "packages" } else { "build" };
            out + &format!(
                "# Not as root; and what is made of the source comes last, since it is what changes.\nUSER {USER}\nCOPY --from={stage} --chown={USER} /app ./\n"
            )
        }
    }
}

/// The stage that installs what the app needs when it runs.
fn packages(app: &NodeApp, base: &str) -> String {
    let mut out = format!(
        "# Packages are installed in a stage of their own: the manager's cache stays out of the image.\n\
         FROM {base} AS packages\nWORKDIR /app\n{}",
        manager(app)
    );
    out += &match app.needs_tree {
        true => "# Some packages lie in the tree, so every change of it installs them all again.\nCOPY . .\n".to_owned(),
        false => {
            let files: Vec<&str> = ["package.json"].into_iter().chain(app.lock.as_deref()).collect();
            let settings = app.settings.iter().map(String::as_str).filter(|file| matches!(*file, ".npmrc" | ".yarnrc.yml"));
            let files = copy(&files.into_iter().chain(settings).collect::<Vec<_>>(), "./");
            format!(
                "# What lists the packages, and nothing else: a changed line of the source installs nothing anew. The app's own\n\
                 # scripts have nothing to run on yet.\n{files}{}",
                run(&["npm", "pkg", "delete", "scripts"])
            )
        }
    };
    out += &run(install(app, false));
    // Nothing is made where nothing is listed.
    out + &run(&["mkdir", "-p", "node_modules"]) + "\n"
}

/// The stage that runs the build script, with development dependencies, none of which gets further.
fn build(app: &NodeApp) -> String {
    let mut out = "# The build script needs what is for development, which goes again when it is done.\nFROM packages AS build\n"
        .to_owned();
    out += &run(install(app, true));
    if !app.needs_tree {
        out += "COPY . .\n";
    }
    out += &run(&["npm", "run", "build"]);
    out += &match app.needs_tree {
        true => run(install(app, false)),
        false => run(&["rm", "-rf", "node_modules"]),
    };
    out + "\n"
}

/// The manager, where the image does not bring the right one.
fn manager(app: &NodeApp) -> String {
    let version = |usual: &'static str| app.manager_version.as_deref().unwrap_or(usual).to_owned();
    let package = match app.manager {
        PackageManager::Npm => return String::new(),
        PackageManager::Pnpm => format!("pnpm@{}", version(PNPM)),
        PackageManager::Yarn => format!("yarn@{}", version(YARN)),
        PackageManager::YarnBerry => format!("@yarnpkg/cli-dist@{}", version(YARN_BERRY)),
    };
    // Packages lie where Node.js itself looks for them, whatever the manager would rather do.
    let settings =
        if app.manager == PackageManager::YarnBerry { "ENV YARN_NODE_LINKER=node-modules YARN_ENABLE_TELEMETRY=0\n" } else { "" };
    // The official images have a Yarn already, which is in the way.
    format!("{settings}RUN {}\n", Value::from(["npm", "install", "--global", "--force", &package].as_slice()))
}

fn install(app: &NodeApp, with_development: bool) -> &'static [&'static str] {
    match (app.manager, app.lock.is_some(), with_development) {
        (PackageManager::Npm, true, false) => &["npm", "ci", "--omit=dev", "--no-audit", "--no-fund"],
        (PackageManager::Npm, true, true) => &["npm", "ci", "--no-audit", "--no-fund"],
        (PackageManager::Npm, false, false) => &["npm", "install", "--omit=dev", "--no-audit", "--no-fund"],
        (PackageManager::Npm, false, true) => &["npm", "install", "--no-audit", "--no-fund"],
        (PackageManager::Pnpm, true, false) => &["pnpm", "install", "--frozen-lockfile", "--prod"],
        (PackageManager::Pnpm, true, true) => &["pnpm", "install", "--frozen-lockfile", "--prod=false"],
        (PackageManager::Pnpm, false, false) => &["pnpm", "install", "--prod"],
        (PackageManager::Pnpm, false, true) => &["pnpm", "install", "--prod=false"],
        (PackageManager::Yarn, true, false) => &["yarn", "install", "--frozen-lockfile", "--production"],
        (PackageManager::Yarn, true, true) => &["yarn", "install", "--frozen-lockfile", "--production=false"],
        (PackageManager::Yarn, false, false) => &["yarn", "install", "--production"],
        (PackageManager::Yarn, false, true) => &["yarn", "install", "--production=false"],
        (PackageManager::YarnBerry, _, false) => &["yarn", "workspaces", "focus", "--all", "--production"],
        (PackageManager::YarnBerry, true, true) => &["yarn", "install", "--immutable"],
        (PackageManager::YarnBerry, false, true) => &["yarn", "install"],
    }
}
