//! Programs that are compiled: Go and Rust. Images of them are made with the toolchain's own image; the process engine builds
//! neither, since the machine it runs on is not where compilers are.

use coracle_model::plan::{GoApp, Recipe, RustApp};
use toml::{Table, Value};

use super::versions::Range;
use super::{PlanError, Recognised, Suggested, Tree, command, unsuitable};

/// The oldest Go and Rust that are built with: what came before knows too little of what lock files and manifests say today.
const OLDEST_GO: (u32, u32) = (1, 17);
const OLDEST_RUST: (u32, u32) = (1, 56);

/// A program, and how it was recognised.
pub(super) struct Compiled {
    pub(super) recognised: Recognised,
    program: String,
}

impl Compiled {
    pub(super) fn web_command(&self) -> Suggested {
        Suggested { command: command(&[&self.program]), reason: format!("web is {}", self.program) }
    }
}

/// Whether the tree is one of a compiled program.
pub(super) fn recognise(tree: &Tree<'_>) -> Result<Option<Compiled>, PlanError> {
    if let Some(text) = tree.source.read("go.mod")? {
        return go(tree, &text).map(Some);
    }
    match tree.source.read("Cargo.toml")? {
        Some(text) => rust(tree, &text).map(Some),
        None => Ok(None),
    }
}

fn go(tree: &Tree<'_>, text: &str) -> Result<Compiled, PlanError> {
    let directive =
        |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix([' ', '\t']).map(str::trim));
    let module = directive("module").unwrap_or_default().trim_matches('"');
    let last = module.rsplit('/').find(|piece| !is_major(piece)).unwrap_or_default();
    let written = directive("go").unwrap_or("1.17");
    let version = release("go.mod", "Go", written, OLDEST_GO)?;
    let has_main = |folder: &str| tree.source.files_in(folder).iter().any(|file| is_main(tree, file));
    let (package, program) = if has_main(".") {
        (".".to_owned(), last.to_owned())
    } else {
        let mut commands: Vec<_> =
            tree.source.folders_in("cmd").into_iter().filter(|name| has_main(&format!("cmd/{name}"))).collect();
        let likely = |name: &String| *name == last || name == "web" || name == "server";
        if commands.len() > 1 && commands.iter().filter(|name| likely(name)).count() == 1 {
            commands.retain(likely);
        }
        match <[String; 1]>::try_from(commands) {
            Ok([name]) => (format!("./cmd/{name}"), name),
            Err(several) if several.is_empty() => {
                let message =
                    "this is a Go module without a program: looked for `package main` in the root and in the folders of cmd";
                return Err(unsuitable(message, "bring a Dockerfile"));
            }
            Err(several) => {
                let message = format!("this Go module has several programs: cmd/{}", several.join(", cmd/"));
                return Err(unsuitable(message, "call one of them as the module is called, or bring a Dockerfile"));
            }
        }
    };
    let program = speakable("go.mod", program)?;
    let names_folders = text.split_whitespace().any(|word| word.starts_with("./") || word.starts_with("../"));
    let fetches = tree.source.is_file("go.sum") && !names_folders && !tree.source.is_folder("vendor");
    let recipe = Recipe::Go(GoApp { package, program: program.clone(), version, fetches });
    Ok(Compiled { recognised: Recognised { recipe, reason: "found go.mod".to_owned() }, program })
}

/// Whether a file is of a program's package and not one of its tests.
fn is_main(tree: &Tree<'_>, file: &str) -> bool {
    let text = || tree.source.read(file).ok().flatten().unwrap_or_default();
    file.ends_with(".go") && !file.ends_with("_test.go") && text().lines().any(|line| line.trim_end() == "package main")
}

/// `v2` and the like, with which a module's path may end.
fn is_major(piece: &str) -> bool {
    piece.strip_prefix('v').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn rust(tree: &Tree<'_>, text: &str) -> Result<Compiled, PlanError> {
    let manifest: Table =
        text.parse().map_err(|error| unsuitable(format!("Cargo.toml cannot be read: {error}"), "mend it and deploy again"))?;
    let Some(package) = manifest.get("package").and_then(Value::as_table) else {
        let message = "Cargo.toml is of a workspace without a package of its own, so it is not clear which program to build";
        return Err(unsuitable(message, "bring a Dockerfile, or deploy the program's own folder"));
    };
    if !tree.source.is_file("Cargo.lock") {
        return Err(unsuitable(
            "there is a Cargo.toml, but no Cargo.lock",
            "run `cargo generate-lockfile`, commit it and deploy again",
        ));
    }
    let text_of = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    let binaries: Vec<_> =
        manifest.get("bin").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table).collect();
    let program = match binaries.as_slice() {
        [] => text_of(package, "name"),
        [one] => text_of(one, "name"),
        several => text_of(package, "default-run").or_else(|| several.first().and_then(|first| text_of(first, "name"))),
    };
    let program = speakable("Cargo.toml", program.unwrap_or_default())?;
    let paths_in = |key: &str| {
        let listed = manifest.get(key).and_then(Value::as_table).into_iter().flat_map(Table::values);
        listed.filter_map(Value::as_table).any(|dependency| dependency.contains_key("path"))
    };
    let is_simple = binaries.is_empty()
        && tree.source.is_file("src/main.rs")
        && !["workspace", "lib", "patch"].iter().any(|key| manifest.contains_key(*key))
        && !package.contains_key("build")
        && !["dependencies", "build-dependencies", "dev-dependencies"].into_iter().any(paths_in);
    let version = rust_version(tree, package)?;
    let recipe = Recipe::Rust(RustApp { program: program.clone(), version, is_simple });
    Ok(Compiled { recognised: Recognised { recipe, reason: "found Cargo.toml and Cargo.lock".to_owned() }, program })
}

/// The version of a `rust-toolchain` file. A `rust-version` is a lower bound, which the newest meets.
fn rust_version(tree: &Tree<'_>, package: &Table) -> Result<Option<String>, PlanError> {
    for path in ["rust-toolchain.toml", "rust-toolchain"] {
        let Some(text) = tree.source.read(path)? else { continue };
        let document: Option<Table> = text.parse().ok();
        let channel = document.as_ref().and_then(|document| document.get("toolchain")?.get("channel")?.as_str());
        let channel = channel.unwrap_or_else(|| text.lines().next().unwrap_or_default()).trim();
        return match channel {
            "stable" | "" => Ok(None),
            channel => release(path, "Rust", channel, OLDEST_RUST).map(Some),
        };
    }
    if let Some(bound) = package.get("rust-version").and_then(Value::as_str) {
        release("Cargo.toml", "Rust", bound, OLDEST_RUST)?;
    }
    Ok(None)
}

/// The line of releases that a version means: `1.22` of `1.22.3`.
fn release(path: &str, language: &str, written: &str, oldest: (u32, u32)) -> Result<String, PlanError> {
    let numbers: Option<Vec<u32>> = written.split('.').map(|piece| piece.parse().ok()).collect();
    let line = match numbers.as_deref() {
        Some([first, second] | [first, second, _]) => Some((*first, *second)),
        _ => None,
    };
    let at_least = Range::parse(&format!(">={}.{}, <2", oldest.0, oldest.1));
    match line.filter(|line| at_least.is_some_and(|range| range.admits(&[line.0, line.1]))) {
        Some((first, second)) => Ok(format!("{first}.{second}")),
        None => {
            let written: String = written.chars().take(40).collect();
            let message =
                format!("{path} asks for {language} {written:?}, and what is supported is {}.{} and later", oldest.0, oldest.1);
            Err(unsuitable(message, format!("name such a version in {path}, or bring a Dockerfile")))
        }
    }
}

/// A program's name as it may stand in a path and a command.
fn speakable(path: &str, name: String) -> Result<String, PlanError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !name.is_empty() && !name.starts_with(['-', '.']) && name.bytes().all(is_plain) {
        return Ok(name);
    }
    let name: String = name.chars().take(40).collect();
    Err(unsuitable(
        format!("{path} does not tell what its program is called: {name:?} cannot be a program's name"),
        "bring a Dockerfile",
    ))
}
