//! Node.js: `package.json`, its lock file, and how it starts.

mod script;
mod version;

use coracle_model::plan::{NodeApp, PackageManager, Recipe};
use serde_json::Value;

use super::{PlanError, Recognised, Suggested, Tree, command, unsuitable};

pub(crate) use version::DEFAULT as DEFAULT_VERSION;

/// Lock files, and whose they are. Of two of the same manager the first is the one that it reads.
const LOCKS: [(&str, PackageManager); 4] = [
    ("npm-shrinkwrap.json", PackageManager::Npm),
    ("package-lock.json", PackageManager::Npm),
    ("pnpm-lock.yaml", PackageManager::Pnpm),
    ("yarn.lock", PackageManager::Yarn),
];
/// Lock files of managers that are not known.
const FOREIGN_LOCKS: [&str; 2] = ["bun.lock", "bun.lockb"];

/// Files in which managers are told where packages come from and how they are laid out.
const SETTINGS: [&str; 2] = [".npmrc", ".yarnrc.yml"];

/// A `package.json`.
pub(super) struct Package(Value);

impl Package {
    pub(super) fn read(tree: &Tree<'_>) -> Result<Option<Self>, PlanError> {
        let Some(text) = tree.source.read("package.json")? else { return Ok(None) };
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if value.is_object() => Ok(Some(Self(value))),
            Ok(_) => Err(unsuitable("package.json is not an object", "see `npm help package.json`")),
            Err(error) => Err(unsuitable(format!("package.json is not valid JSON: {error}"), "mend it and deploy again")),
        }
    }

    fn script(&self, name: &str) -> Option<&str> {
        self.0["scripts"][name].as_str().filter(|script| !script.trim().is_empty())
    }

    /// The program's first file, as Node.js itself would find it.
    fn main(&self, tree: &Tree<'_>) -> Option<String> {
        let named = self.0["main"].as_str().map(|main| main.trim_start_matches("./"));
        let candidates = named.into_iter().chain(["index.js", "server.js", "app.js"]);
        let fits = |path: &&str| !path.starts_with(['-', '/']) && tree.source.is_file(path);
        candidates.into_iter().find(fits).map(str::to_owned)
    }

    pub(super) fn can_start(&self, tree: &Tree<'_>) -> bool {
        self.script("start").is_some() || self.main(tree).is_some()
    }

    pub(super) fn recognised(&self, tree: &Tree<'_>) -> Result<Recognised, PlanError> {
        let locks: Vec<_> = LOCKS.into_iter().filter(|(file, _)| tree.source.is_file(file)).collect();
        let other = locks.iter().find(|(_, manager)| *manager != locks[0].1);
        if let (Some((one, its)), Some((other, others))) = (locks.first(), other) {
            let (its, others) = (its.program(), others.program());
            let message = format!("there are lock files of two package managers: {one} ({its}) and {other} ({others})");
            return Err(unsuitable(message, "remove the one that is not kept up to date, and deploy again"));
        }
        let foreign = FOREIGN_LOCKS.iter().find(|lock| tree.source.is_file(lock));
        let reason = match (locks.first(), foreign) {
            (Some((lock, _)), _) => format!("found package.json and {lock}"),
            (None, Some(foreign)) => format!("found package.json; {foreign} is not read, so versions are not locked"),
            (None, None) => "found package.json without a lock file, so versions are not locked".to_owned(),
        };
        let (manager, manager_version) = self.manager(tree, locks.first().map(|(_, manager)| *manager))?;
        let app = NodeApp {
            manager,
            manager_version,
            lock: locks.first().map(|(lock, _)| (*lock).to_owned()),
            has_build_script: self.script("build").is_some(),
            version: version::wanted(tree, self.0["engines"]["node"].as_str())?,
            settings: SETTINGS.into_iter().filter(|file| tree.source.is_file(file)).map(str::to_owned).collect(),
            needs_tree: self.names_folders(tree),
        };
        Ok(Recognised { recipe: Recipe::Node(app), reason })
    }

    /// Whether packages of the tree itself are among the dependencies.
    fn names_folders(&self, tree: &Tree<'_>) -> bool {
        let lists = ["dependencies", "devDependencies", "optionalDependencies"];
        let mut versions = lists.iter().filter_map(|list| self.0[list].as_object()).flat_map(|list| list.values());
        let is_here = |version: &Value| {
            let version = version.as_str().unwrap_or_default();
            ["file:", "link:", "portal:", "workspace:", "patch:", "./", "../"].iter().any(|begin| version.starts_with(begin))
        };
        !self.0["workspaces"].is_null() || tree.source.is_file("pnpm-workspace.yaml") || versions.any(is_here)
    }

    /// What installs the packages: whose the lock file is, else what `packageManager` names (`pnpm@9.12.0+sha512.…`).
    fn manager(&self, tree: &Tree<'_>, locked: Option<PackageManager>) -> Result<(PackageManager, Option<String>), PlanError> {
        let named = self.0["packageManager"].as_str().and_then(|text| text.split_once('@'));
        let version = named.map(|(_, version)| version.split('+').next().unwrap_or(version)).filter(|text| is_release(text));
        let of_name = match named.map(|(name, _)| name) {
            Some("pnpm") => Some(PackageManager::Pnpm),
            Some("yarn") => Some(PackageManager::Yarn),
            Some("npm") => Some(PackageManager::Npm),
            _ => None,
        };
        let mut manager = locked.or(of_name).unwrap_or(PackageManager::Npm);
        let version = version.filter(|_| of_name == Some(manager)).map(str::to_owned);
        if manager == PackageManager::Yarn {
            let lock = tree.source.read("yarn.lock")?.unwrap_or_default();
            let is_old = version.as_deref().map_or(!lock.contains("__metadata:"), |version| version.starts_with("1."));
            manager = if is_old { PackageManager::Yarn } else { PackageManager::YarnBerry };
        }
        Ok((manager, version))
    }

    pub(super) fn web_command(&self, tree: &Tree<'_>) -> Result<Suggested, PlanError> {
        let start = self.script("start");
        if let Some(server) = start.and_then(script::development_server) {
            let message =
                format!("the `start` script of package.json begins a development server ({server}), which must not serve");
            let hint = "let `start` begin what serves (`node server.js`), or write a Procfile with a `web:` line; for a site that a \
                        build script writes, name its folder as build.root and `builder = \"static\"` in coracle.toml";
            return Err(unsuitable(message, hint));
        }
        if start.is_some() {
            let command = command(&["npm", "start"]);
            return Ok(Suggested { command, reason: "web is its `start` script".to_owned() });
        }
        match self.main(tree) {
            Some(main) => Ok(Suggested { command: command(&["node", &main]), reason: format!("web runs {main}") }),
            None => Err(no_start()),
        }
    }
}

/// Three numbers, and nothing that could be anything else where it is put.
fn is_release(text: &str) -> bool {
    text.split('.').count() == 3
        && text.split('.').all(|piece| (1..=5).contains(&piece.len()) && piece.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn no_start() -> PlanError {
    let message = "package.json has no `start` script and names no `main` file that is there";
    unsuitable(message, "write a Procfile with a line such as `web: node server.js`, or add a `start` script")
}
