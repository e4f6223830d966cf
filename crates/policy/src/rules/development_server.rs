//! `development-server`: what the release runs is meant for whoever develops it.

use std::collections::BTreeMap;

use coracle_model::policy::Rule;
use serde_json::Value;

use super::{django, flask};
use crate::observation::{Observation, plain};
use crate::shell::{self, Simple};
use crate::subject::{Looked, Program};

/// How often a command may lead to another (a script of package.json, a script of the tree).
const DEEPEST: usize = 4;

/// A command that starts such a server.
pub(super) struct Started {
    /// What it is, in a word or two: `flask run`.
    pub(super) what: String,
    /// Words of its line, to find it by.
    words: Vec<String>,
    /// Where it stands, if that is not where the command stands.
    pub(super) place: Option<(String, u32)>,
}

impl Started {
    fn new(what: impl Into<String>, words: &[&str]) -> Self {
        Self { what: what.into(), words: words.iter().map(|word| (*word).to_owned()).collect(), place: None }
    }

    fn at(self, file: &str, line: u32) -> Self {
        Self { place: Some((file.to_owned(), line)), ..self }
    }
}

const MEND: &str = "start a server for production (gunicorn, uvicorn, waitress, a build and its server), or write no command and let \
                    Coracle choose";

/// What is started, by the commands of the release or else by its image.
pub(super) fn observe(looked: &Looked<'_>) -> Vec<Observation> {
    if looked.part.keeps_data {
        return Vec::new();
    }
    let mut seen: Vec<Observation> = Vec::new();
    for program in &looked.part.programs {
        let (argv, of_image) = argv(looked, program);
        let Some(started) = starts(looked, &argv, &mut program.env.iter().cloned().collect(), 0) else { continue };
        let sentence = looked.of_part(&format!("{} is a server for development", plain(&started.what)));
        let one = Observation::new(Rule::DevelopmentServer, sentence, MEND);
        let place = started.place.clone().or_else(|| place(looked, program, of_image, &started));
        seen.push(match place {
            Some((file, line)) => one.at(looked.path(&file), line),
            None => one,
        });
    }
    seen.extend(variables(looked));
    seen.extend(django::debug(looked));
    seen
}

/// The argument vector of a program, and whether its image says it.
fn argv(looked: &Looked<'_>, program: &Program) -> (Vec<String>, bool) {
    let of_image = |keyword: &str| -> Vec<String> {
        match (&looked.part.facts, &looked.dockerfile) {
            (Some(facts), _) if keyword == "CMD" => facts.command.clone(),
            (Some(facts), _) => facts.entrypoint.clone(),
            (None, Some((file, target))) => file.effective(*target, keyword).0.map(|it| it.argv()).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    };
    if program.argv.is_empty() {
        let (mut argv, command) = (of_image("ENTRYPOINT"), of_image("CMD"));
        argv.extend(command);
        return (argv, true);
    }
    let mut argv = if program.behind_entrypoint { of_image("ENTRYPOINT") } else { Vec::new() };
    argv.extend(program.argv.iter().cloned());
    (argv, false)
}

/// The line that a command stands on: the first of its file that has its words.
fn place(looked: &Looked<'_>, program: &Program, of_image: bool, started: &Started) -> Option<(String, u32)> {
    if of_image {
        let (file, target) = looked.dockerfile.as_ref()?;
        let command = file.effective(*target, "CMD").0.or_else(|| file.effective(*target, "ENTRYPOINT").0)?;
        let coracle_model::plan::Recipe::Dockerfile { path, .. } = &looked.part.recipe else { return None };
        return Some((path.clone(), command.line));
    }
    // Compose files lie in the root, whatever folder a part is built from.
    let file = program.file.filter(|_| looked.part.folder.is_empty())?;
    let text = looked.read(file)?;
    let line = text.lines().position(|line| started.words.iter().all(|word| line.contains(word.as_str())))?;
    Some((file.to_owned(), u32::try_from(line + 1).ok()?))
}

/// What an argument vector starts.
fn starts(looked: &Looked<'_>, argv: &[String], env: &mut BTreeMap<String, String>, depth: usize) -> Option<Started> {
    if depth > DEEPEST || !looked.may_go_on() {
        return None;
    }
    let argv = unwrapped(argv, env);
    let (first, rest) = argv.split_first()?;
    let name = program_name(first);
    if matches!(name, "sh" | "bash" | "dash" | "ash" | "zsh") {
        let is_c = |word: &&str| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c');
        return match rest.iter().position(is_c) {
            Some(at) => rest.get(at + 1).and_then(|text| of_text(looked, &shell::commands(text), None, env, depth)),
            None => script(looked, rest.iter().find(|word| !word.starts_with('-'))?, env, depth),
        };
    }
    if let Some(started) = script(looked, first, env, depth) {
        return Some(started);
    }
    match name {
        "npm" | "pnpm" | "yarn" | "bun" => of_package(looked, name, rest, env, depth),
        _ => known(looked, name, rest),
    }
}

/// The last part of a path: `flask` of `/venv/bin/flask`.
fn program_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Without what only starts another program.
fn unwrapped<'a>(argv: &'a [String], env: &mut BTreeMap<String, String>) -> Vec<&'a str> {
    let mut words: Vec<&str> = argv.iter().map(String::as_str).collect();
    loop {
        let Some(first) = words.first().copied() else { return words };
        let skip = match program_name(first) {
            _ if is_assignment(first) => {
                if let Some((name, value)) = first.split_once('=') {
                    env.insert(name.to_owned(), value.to_owned());
                }
                1
            }
            "exec" | "nohup" | "time" | "command" | "env" | "dumb-init" | "tini" | "catatonit" | "nice" | "sudo" | "setpriv" => {
                let flags = words[1..].iter().take_while(|word| word.starts_with('-') && **word != "--").count();
                1 + flags + usize::from(words.get(1 + flags) == Some(&"--"))
            }
            "gosu" | "su-exec" | "s6-setuidgid" | "chpst" => 2,
            "poetry" | "uv" | "pipenv" | "pdm" | "rye" | "hatch" if words.get(1) == Some(&"run") => {
                2 + words[2..].iter().take_while(|word| word.starts_with('-')).count()
            }
            "npx" | "bunx" => 1 + words[1..].iter().take_while(|word| word.starts_with('-')).count(),
            "pnpm" | "yarn" | "npm" if matches!(words.get(1), Some(&"exec" | &"dlx" | &"x")) => {
                2 + words[2..].iter().take_while(|word| word.starts_with('-')).count()
            }
            "bundle" if words.get(1) == Some(&"exec") => 2,
            // A module is run as a program of its name; one that is a script of the tree is looked at as such.
            name if is_python(name) => match words.iter().position(|word| *word == "-m") {
                Some(at) if words[1..at].iter().all(|word| word.starts_with('-')) => {
                    words.drain(..=at);
                    if let Some(module) = words.first_mut()
                        && *module == "http.server"
                    {
                        *module = "python-http.server";
                    }
                    return words;
                }
                _ => return words,
            },
            _ => return words,
        };
        words.drain(..skip.min(words.len()));
    }
}

fn is_python(name: &str) -> bool {
    name.strip_prefix("python").is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// What the commands of a shell's text start. Where it may start something else as well (a script that decides), what it
/// starts is not known.
fn of_text(
    looked: &Looked<'_>,
    commands: &[Simple],
    file: Option<&str>,
    env: &mut BTreeMap<String, String>,
    depth: usize,
) -> Option<Started> {
    let mut first = None;
    for command in commands {
        if serves_production(&command.words) {
            return None;
        }
        if first.is_none()
            && let Some(started) = starts(looked, &command.words, env, depth + 1)
        {
            let place = started.place.clone();
            first = Some(match (file, place) {
                (Some(file), None) => started.at(file, command.line),
                _ => started,
            });
        }
    }
    first
}

/// Whether a command starts a server for production, and not to develop with it.
fn serves_production(words: &[String]) -> bool {
    let words = unwrapped(words, &mut BTreeMap::new()).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let name = words.first().map(|word| program_name(word)).unwrap_or_default();
    let servers =
        ["gunicorn", "uvicorn", "hypercorn", "waitress-serve", "daphne", "granian", "uwsgi", "nginx", "apache2-foreground"];
    servers.contains(&name) && !words.iter().any(|word| word == "--reload")
}

/// What a script of the tree starts. An image has it at some place of its own, but by its name.
fn script(looked: &Looked<'_>, word: &str, env: &mut BTreeMap<String, String>, depth: usize) -> Option<Started> {
    let relative = word.trim_start_matches("./").trim_start_matches('/');
    let is_script = |text: &String| {
        let first = text.lines().next().unwrap_or_default();
        relative.ends_with(".sh") || first.starts_with("#!") && (first.contains("/sh") || first.contains("bash"))
    };
    let mut names = vec![relative];
    if let Some((_, name)) = relative.rsplit_once('/') {
        names.push(name);
    }
    let name = names.into_iter().find(|name| !name.is_empty() && looked.source.is_file(name))?;
    let text = looked.read(name).filter(is_script)?;
    of_text(looked, &shell::commands(&text), Some(name), env, depth + 1)
}

/// What a package manager starts: a script of package.json.
fn of_package(
    looked: &Looked<'_>,
    manager: &str,
    rest: &[&str],
    env: &mut BTreeMap<String, String>,
    depth: usize,
) -> Option<Started> {
    let mut words = rest.iter().filter(|word| !word.starts_with('-'));
    let first = *words.next()?;
    let name = match first {
        "run" | "run-script" => *words.next()?,
        name => name,
    };
    let package = looked.read("package.json").and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let script = package.as_ref().and_then(|package| package["scripts"][name].as_str());
    let Some(script) = script else {
        let is_run = matches!(first, "run" | "run-script") || manager == "yarn";
        return (package.is_none() && is_run && name == "dev")
            .then(|| Started::new(format!("{manager} {first} dev"), &[manager, "dev"]));
    };
    let started = of_text(looked, &shell::commands(script), None, env, depth + 1)?;
    let line = looked.read("package.json")?.lines().position(|line| line.contains(&format!("\"{name}\"")) && line.contains(':'));
    let what =
        format!("{} (by `{manager} {}`)", started.what, if first == name { name.to_owned() } else { format!("{first} {name}") });
    let place = started.place.or_else(|| Some(("package.json".to_owned(), u32::try_from(line? + 1).ok()?)));
    Some(Started { what, place, words: started.words })
}

/// Servers for development, by their programs.
fn known(looked: &Looked<'_>, name: &str, rest: &[&str]) -> Option<Started> {
    let has = |word: &str| rest.contains(&word);
    let verb = || rest.iter().copied().find(|word| !word.starts_with('-'));
    let is = |verbs: &[&str]| verb().is_some_and(|verb| verbs.contains(&verb));
    let by = |what: &str| Some(Started::new(what, &what.split(' ').collect::<Vec<_>>()));
    let with_verb = |verbs: &[&str]| is(verbs).then(|| format!("{name} {}", verb().unwrap_or_default())).and_then(|it| by(&it));
    match name {
        "flask" | "quart" => flask::verb(rest).filter(|verb| *verb == "run").and_then(|_| by(&format!("{name} run"))),
        "django" | "django-admin" | "manage.py" => django::verb(rest).and_then(|verb| by(&format!("{name} {verb}"))),
        "uvicorn" | "gunicorn" | "hypercorn" | "granian" if has("--reload") => by(&format!("{name} --reload")),
        "fastapi" => with_verb(&["dev"]),
        "sanic" if has("--dev") || has("-d") => by("sanic --dev"),
        "python-http.server" => Some(Started::new("python -m http.server", &["http.server"])),
        "php" if has("-S") => by("php -S"),
        "php" => (rest.first() == Some(&"artisan") && has("serve")).then(|| by("artisan serve")).flatten(),
        "vite" => match verb() {
            None => by("vite"),
            Some("dev" | "serve" | "preview") => with_verb(&["dev", "serve", "preview"]),
            // A folder.
            Some(verb) if !matches!(verb, "build" | "optimize") => by("vite"),
            Some(_) => None,
        },
        "next" | "nuxt" | "nuxi" | "astro" | "remix" | "react-router" | "svelte-kit" | "wrangler" | "vinxi" => {
            with_verb(&["dev"])
        }
        "gatsby" => with_verb(&["develop"]),
        "ng" | "vue-cli-service" | "webpack" | "mkdocs" | "jekyll" => with_verb(&["serve"]),
        "hugo" => with_verb(&["serve", "server"]),
        "react-scripts" => with_verb(&["start"]),
        "cargo" => with_verb(&["watch"]),
        "tsx" => with_verb(&["watch"]),
        "nest" if has("--watch") => by("nest --watch"),
        "node" if has("--watch") => by("node --watch"),
        "nodemon" | "ts-node-dev" | "tsnd" | "webpack-dev-server" | "live-server" | "browser-sync" | "watchmedo" | "air" => {
            by(name)
        }
        name if is_python(name) => {
            let script = rest.iter().position(|word| !word.starts_with('-'))?;
            match program_name(rest[script]) {
                "manage.py" => django::verb(&rest[script + 1..]).and_then(|verb| by(&format!("manage.py {verb}"))),
                _ => flask::script(looked, rest[script]).map(|(what, file, line)| Started::new(what, &[]).at(&file, line)),
            }
        }
        // `python -m shop`: a package or a module of the tree.
        module if rest.iter().all(|word| word.starts_with('-')) => {
            let path = module.replace('.', "/");
            let found =
                [format!("{path}/__main__.py"), format!("{path}.py")].into_iter().find(|path| looked.source.is_file(path));
            let found = found.filter(|_| !module.is_empty() && !module.contains('/'))?;
            flask::script(looked, &found).map(|(what, file, line)| Started::new(what, &[]).at(&file, line))
        }
        _ => None,
    }
}

/// Variables that make a server one for development.
fn variables(looked: &Looked<'_>) -> Vec<Observation> {
    let mut all: Vec<(&str, &str, String)> = Vec::new();
    for (name, value) in looked.part.facts.iter().flat_map(|facts| &facts.env) {
        all.push((name, value, "its image".to_owned()));
    }
    for (name, value) in &looked.part.env {
        let file = if looked.part.name.is_some() { "the compose file" } else { "[env] in coracle.toml" };
        all.push((name, value, file.to_owned()));
    }
    for (name, value, _) in looked.subject.config {
        all.push((name.as_str(), value.expose(), "the app's configuration".to_owned()));
    }
    for program in &looked.part.programs {
        all.extend(program.env.iter().map(|(name, value)| (name.as_str(), value.as_str(), "its command".to_owned())));
    }
    // What is said last counts: `config set` comes before the manifest, and the manifest before the image.
    let mut last: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for (name, value, whose) in all {
        last.insert(name, (value, whose));
    }
    let is_on = |value: &str| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on" | "t" | "y");
    let set = last.into_iter().filter(|(name, (value, _))| match *name {
        "FLASK_ENV" | "QUART_ENV" => value.eq_ignore_ascii_case("development"),
        "FLASK_DEBUG" | "QUART_DEBUG" => is_on(value),
        _ => false,
    });
    set.map(|(name, (_, whose))| {
        let sentence = looked.of_part(&format!("{name} makes this a development environment, by {whose}"));
        Observation::new(Rule::DevelopmentServer, sentence, format!("take {name} out of {whose}"))
    })
    .collect()
}
