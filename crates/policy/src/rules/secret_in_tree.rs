//! `secret-in-tree`: files with secrets that get into what is built.

use coracle_build::DockerIgnore;
use coracle_model::plan::Recipe;
use coracle_model::policy::Rule;

use super::container::is_everything;
use super::secret_in_image::{is_telling, sounds_secret};
use crate::key_format::{has_private_key, known_key};
use crate::observation::Observation;
use crate::subject::Looked;
use crate::walk;

/// The most files that are looked into, and the most that are told.
const MOST_READ: usize = 64;
const MOST_TOLD: usize = 5;
/// The most names that are compared with what is copied, and the most patterns of it: beyond these, everything is.
const MOST_NAMES: usize = 5_000;
const MOST_PATTERNS: usize = 200;

/// Examples of `.env` that are meant to be read by everybody.
const EXAMPLES: [&str; 8] = ["example", "sample", "template", "dist", "defaults", "schema", "tpl", "test"];
/// Folders of keys that open nothing.
const OF_TESTS: [&str; 9] = ["test", "tests", "testdata", "fixtures", "__tests__", "spec", "examples", "docs", "testing"];
/// What people write where a secret is to be filled in.
const PLACEHOLDERS: [&str; 10] =
    ["changeme", "change-me", "change_me", "your-", "your_", "<", "xxx", "placeholder", "todo", "example"];

/// What a name says about a file.
enum Kind {
    Variables,
    Key,
    Npm,
    History,
}

/// Files with secrets that get into what is built.
pub(super) fn observe(looked: &Looked<'_>) -> Vec<Observation> {
    let Some(copied) = Copied::of(looked) else { return Vec::new() };
    let mut candidates: Vec<(String, Kind)> = Vec::new();
    let mut names = 0;
    walk::files(looked.folder, |path, name| {
        let Some(kind) = kind(path, name) else { return };
        names += 1;
        let may_count = names <= MOST_NAMES && candidates.len() < MOST_READ;
        if may_count && !looked.subject.ignore.ignores(&looked.path(path)) && copied.has(path) {
            candidates.push((path.to_owned(), kind));
        }
    });
    let mut seen: Vec<Observation> = candidates.iter().filter_map(|(path, kind)| look_into(looked, path, kind)).collect();
    let more = seen.len().saturating_sub(MOST_TOLD);
    seen.truncate(MOST_TOLD);
    if let Some(last) = seen.last_mut().filter(|_| more > 0) {
        last.what += &format!("; and {more} more such files are");
    }
    seen
}

/// What of the tree gets into what is built.
struct Copied {
    ignore: DockerIgnore,
    /// What is named; `None`: everything.
    named: Option<DockerIgnore>,
}

impl Copied {
    /// `None` if nothing does.
    fn of(looked: &Looked<'_>) -> Option<Self> {
        let (path, named) = match (&looked.part.recipe, &looked.dockerfile) {
            (Recipe::Image { .. } | Recipe::Go(_) | Recipe::Rust(_), _) => return None,
            (Recipe::Dockerfile { path, .. }, Some((file, target))) => {
                // What earlier stages copy stays there.
                let copies =
                    file.used(*target).into_iter().filter(|at| at == target).flat_map(|at| &file.stages[at].instructions);
                let copies = copies.filter(|it| matches!(it.keyword.as_str(), "COPY" | "ADD") && it.flag("from").is_none());
                let sources: Vec<String> = copies.flat_map(|copy| copy.sources()).collect();
                if sources.is_empty() {
                    return None;
                }
                let everything = sources.len() > MOST_PATTERNS || sources.iter().any(|source| is_everything(source));
                // Sources of COPY are patterns of the same grammar.
                let named = || DockerIgnore::parse(&sources.join("\n"), path).ok();
                (path.as_str(), if everything { None } else { Some(named()?) })
            }
            (Recipe::Dockerfile { .. }, None) => return None,
            (Recipe::Static { root }, _) if root != "." => ("Dockerfile", DockerIgnore::parse(root, "build.root").ok()),
            _ => ("Dockerfile", None),
        };
        let ignore = DockerIgnore::for_dockerfile(looked.folder, path).ok()?;
        Some(Self { ignore, named })
    }

    fn has(&self, path: &str) -> bool {
        !self.ignore.ignores(path) && self.named.as_ref().is_none_or(|named| named.ignores(path))
    }
}

fn kind(path: &str, name: &str) -> Option<Kind> {
    if path.split('/').any(|folder| OF_TESTS.contains(&folder.to_ascii_lowercase().as_str())) {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let is_example = lower.split(['.', '-', '_']).any(|piece| EXAMPLES.contains(&piece));
    if name == ".git" {
        Some(Kind::History)
    } else if (lower == ".env" || lower.starts_with(".env.") || lower.ends_with(".env")) && !is_example {
        Some(Kind::Variables)
    } else if lower == ".npmrc" {
        Some(Kind::Npm)
    } else if matches!(lower.as_str(), "id_rsa" | "id_dsa" | "id_ecdsa" | "id_ed25519")
        || lower.ends_with(".pem")
        || lower.ends_with(".key")
        || lower.ends_with(".json")
            && (lower.contains("credential") || lower.contains("service-account") || lower.contains("service_account"))
    {
        Some(Kind::Key)
    } else {
        None
    }
}

fn look_into(looked: &Looked<'_>, path: &str, kind: &Kind) -> Option<Observation> {
    let at = looked.path(path);
    let dockerignore = looked.path(".dockerignore");
    let out = format!("take it out of the repository and name it in {dockerignore}");
    let seen = |what: String, mend: String| Observation::new(Rule::SecretInTree, looked.of_part(&what), mend);
    match kind {
        Kind::History => {
            let is_repository = looked.folder.join(path).join("HEAD").is_file();
            let what = "the repository's history gets into what is built, with everything that was ever removed from it";
            is_repository.then(|| seen(what.to_owned(), format!("name `.git` in {dockerignore}")).at(&at, None))
        }
        Kind::Key => {
            let text = walk::head(looked.folder, path);
            has_private_key(&text).then(|| seen("a private key gets into what is built".to_owned(), out).at(&at, None))
        }
        Kind::Npm => {
            let text = walk::head(looked.folder, path);
            let line = text.lines().position(|line| {
                let value = line.split_once('=').filter(|(name, _)| name.trim().to_ascii_lowercase().ends_with("_authtoken"));
                !line.trim_start().starts_with(['#', ';']) && value.is_some_and(|(_, value)| is_secret_value(value))
            })?;
            let what = "a registry's token gets into what is built".to_owned();
            let mend = "write ${NAME} for the token, and give it by `build.secrets`".to_owned();
            Some(seen(what, mend).at(&at, u32::try_from(line + 1).ok()))
        }
        Kind::Variables => {
            let text = walk::head(looked.folder, path);
            let (line, name) = text.lines().enumerate().find_map(|(number, line)| Some((number, variable(looked, line)?)))?;
            let what = format!("{name} gets into what is built");
            let mend = format!("set it with `coracle secrets set`; {out}");
            Some(seen(what, mend).at(&at, u32::try_from(line + 1).ok()))
        }
    }
}

/// What is secret in a line of an environment file.
fn variable(looked: &Looked<'_>, line: &str) -> Option<String> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
    let (name, value) = (name.trim(), value.trim().trim_matches(['"', '\'']));
    let is_own = |own: &str| is_telling(own) && own == value;
    if looked.subject.config.iter().any(|(_, own, is_secret)| *is_secret && is_own(own.expose())) {
        return Some(format!(
            "the value of {}, which is a secret of the app's own configuration,",
            crate::observation::plain(name)
        ));
    }
    if let Some(whose) = known_key(line) {
        return Some(whose.to_owned());
    }
    let has_password = value.contains("://") && value.contains('@') && is_telling(value);
    let is_secret = (sounds_secret(name) || has_password) && is_secret_value(value) && value.chars().count() >= 6;
    is_secret.then(|| format!("a secret ({})", crate::observation::plain(name)))
}

/// Whether something stands there that is neither filled in later nor to be filled in.
fn is_secret_value(value: &str) -> bool {
    let value = value.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    !value.is_empty() && !value.contains("${") && !value.starts_with('$') && !PLACEHOLDERS.iter().any(|word| value.contains(word))
}
