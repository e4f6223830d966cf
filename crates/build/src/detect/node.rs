//! Node.js: `package.json` and its lock.

use coracle_model::plan::Recipe;
use serde_json::Value;

use super::{PlanError, Recognised, Suggested, Tree, command, unsuitable};

/// Lock files that `npm ci` reads.
const LOCKS: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];
/// Lock files of other package managers, which npm does not read.
const FOREIGN_LOCKS: [&str; 3] = ["yarn.lock", "pnpm-lock.yaml", "bun.lock"];

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

    fn has_script(&self, name: &str) -> bool {
        self.0["scripts"][name].as_str().is_some_and(|script| !script.trim().is_empty())
    }

    /// The program's first file, as Node.js itself would find it.
    fn main(&self, tree: &Tree<'_>) -> Option<String> {
        let named = self.0["main"].as_str().map(|main| main.trim_start_matches("./"));
        let candidates = named.into_iter().chain(["index.js", "server.js", "app.js"]);
        let fits = |path: &&str| !path.starts_with(['-', '/']) && tree.source.is_file(path);
        candidates.into_iter().find(fits).map(str::to_owned)
    }

    pub(super) fn can_start(&self, tree: &Tree<'_>) -> bool {
        self.has_script("start") || self.main(tree).is_some()
    }

    pub(super) fn recognised(&self, tree: &Tree<'_>) -> Recognised {
        let lock = LOCKS.iter().find(|lock| tree.source.is_file(lock)).map(|lock| (*lock).to_owned());
        let foreign = FOREIGN_LOCKS.iter().find(|lock| tree.source.is_file(lock));
        let reason = match (&lock, foreign) {
            (Some(lock), _) => format!("found package.json and {lock}"),
            (None, Some(foreign)) => format!("found package.json; {foreign} is not read, so versions are not locked"),
            (None, None) => "found package.json without a lock file, so versions are not locked".to_owned(),
        };
        Recognised { recipe: Recipe::Node { lock, has_build_script: self.has_script("build") }, reason }
    }

    pub(super) fn web_command(&self, tree: &Tree<'_>) -> Result<Suggested, PlanError> {
        if self.has_script("start") {
            let command = command(&["npm", "start"]);
            return Ok(Suggested { command, reason: "web is its `start` script".to_owned() });
        }
        match self.main(tree) {
            Some(main) => Ok(Suggested { command: command(&["node", &main]), reason: format!("web runs {main}") }),
            None => Err(no_start()),
        }
    }
}

pub(super) fn no_start() -> PlanError {
    let message = "package.json has no `start` script and names no `main` file that is there";
    unsuitable(message, "write a Procfile with a line such as `web: node server.js`, or add a `start` script")
}
