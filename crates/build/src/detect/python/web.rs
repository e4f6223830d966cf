//! The command that serves a Python app for which nobody wrote one down.

use std::collections::BTreeSet;

use coracle_model::CommandLine;
use coracle_model::command::Piece;

use crate::detect::{PlanError, Suggested, Tree, command, unsuitable};

/// Files that are likely to hold the application object.
const MODULES: [&str; 12] = [
    "app.py",
    "main.py",
    "wsgi.py",
    "asgi.py",
    "application.py",
    "server.py",
    "api.py",
    "run.py",
    "app/__init__.py",
    "app/main.py",
    "src/app.py",
    "src/main.py",
];
/// Names an application object bears, the usual one first.
const OBJECTS: [&str; 4] = ["app", "application", "api", "server"];
/// Classes whose objects speak ASGI.
const ASGI: [&str; 6] = ["FastAPI(", "Starlette(", "Quart(", "Litestar(", "Sanic(", "BlackSheep("];
/// Classes whose objects speak WSGI.
const WSGI: [&str; 2] = ["Flask(", "Bottle("];

/// The two interfaces between server and app (PEP 3333; the ASGI specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    Wsgi,
    Asgi,
}

/// An application object that was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// As servers want it: `app:app`, `shop.wsgi:application`, `app:create_app()`.
    object: String,
    interface: Interface,
    /// The file it is in.
    file: String,
}

/// The servers that are installed where an app has none of its own, with the versions that have been tried.
const ADDED: [(&str, &str); 2] = [("gunicorn", "gunicorn==27.0.1"), ("uvicorn", "uvicorn==0.54.0")];

/// The command that serves the app of the tree, and the server to install for it where `names` has none.
pub(super) fn command_for(tree: &Tree<'_>, names: &BTreeSet<String>) -> Result<(Suggested, Option<String>), PlanError> {
    let mut found = django(tree)?;
    for file in MODULES {
        if found.is_some() {
            break;
        }
        found = in_module(file, &tree.source.read(file)?.unwrap_or_default());
    }
    if let Some(found) = found {
        if let Some(suggested) = server(&found, names, tree.host()) {
            return Ok((suggested, None));
        }
        let program = if found.interface == Interface::Asgi { "uvicorn" } else { "gunicorn" };
        let requirement = ADDED.iter().find(|(name, _)| *name == program).map_or(program, |(_, requirement)| *requirement);
        if let Some(mut suggested) = server(&found, &BTreeSet::from([program.to_owned()]), tree.host()) {
            suggested.reason += &format!("; no server for it is among the dependencies, so {requirement} is added");
            return Ok((suggested, Some(requirement.to_owned())));
        }
    }
    match listening_script(tree)? {
        Some(Script::Serves(script)) => {
            let reason = format!("web runs {script}, which reads PORT");
            Ok((Suggested { command: command(&["python", "-u", &script]), reason }, None))
        }
        Some(Script::Develops(script, sign)) => {
            let message = format!("{script} reads PORT, but begins a development server ({sign}), which must not serve");
            Err(unsuitable(message, line_to_write(tree.host())))
        }
        None => {
            let message = format!(
                "this is a Python app, but nothing says how to run it: looked for a Procfile, for manage.py with a wsgi.py beside \
                 it, for an object called {} or made of a framework in {}, and for a script that reads PORT",
                OBJECTS.join(", "),
                MODULES.join(", ")
            );
            Err(unsuitable(message, line_to_write(tree.host())))
        }
    }
}

fn line_to_write(host: &str) -> String {
    format!("write a Procfile with a line such as `web: gunicorn --bind {host}:$PORT app:app`")
}

/// The server that a command begins with, where the dependencies do not bring it.
pub(super) fn missing(names: &BTreeSet<String>, command: &CommandLine) -> Result<Option<String>, PlanError> {
    let Some([Piece::Text(program)]) = command.words.first().map(|word| word.0.as_slice()) else { return Ok(None) };
    let known = ADDED.iter().find(|(name, _)| name == program && !names.contains(*name));
    Ok(known.map(|(_, requirement)| (*requirement).to_owned()))
}

/// Django's project: the folder beside `manage.py` with the server's entry.
fn django(tree: &Tree<'_>) -> Result<Option<Found>, PlanError> {
    if !tree.source.is_file("manage.py") {
        return Ok(None);
    }
    for (entry, interface) in [("wsgi", Interface::Wsgi), ("asgi", Interface::Asgi)] {
        for package in tree.source.packages() {
            let file = format!("{package}/{entry}.py");
            if tree.source.read(&file)?.is_some_and(|text| text.contains("application")) {
                return Ok(Some(Found { object: format!("{package}.{entry}:application"), interface, file }));
            }
        }
    }
    Ok(None)
}

/// The application object that a module makes at its top level, or the function that makes it.
fn in_module(file: &str, text: &str) -> Option<Found> {
    let module = file.strip_suffix(".py")?.trim_end_matches("/__init__").replace('/', ".");
    let asgi_file = file.ends_with("asgi.py") || ASGI.iter().any(|class| text.contains(class));
    let interface = if asgi_file { Interface::Asgi } else { Interface::Wsgi };
    let found = |object: String| Found { object: format!("{module}:{object}"), interface, file: file.to_owned() };
    for object in OBJECTS {
        if text.lines().any(|line| assigns(line, object)) {
            return Some(found(object.to_owned()));
        }
    }
    if let Some(object) = text.lines().find_map(made_of_framework) {
        return Some(found(object.to_owned()));
    }
    let factory = ["create_app", "make_app"].into_iter().find(|name| text.contains(&format!("\ndef {name}(")));
    factory.filter(|_| interface == Interface::Wsgi && text.contains("Flask(")).map(|name| found(format!("{name}()")))
}

/// The name that a line at the top level gives an application object of a known framework, whatever it is called:
/// `shop = Flask(__name__)`, `shop = fastapi.FastAPI()`.
fn made_of_framework(line: &str) -> Option<&str> {
    let (name, value) = line.split_once('=')?;
    let name = name.split(':').next()?.trim_end();
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let value = value.trim_start();
    let class = value.find('(').map(|end| value[..=end].rsplit('.').next().unwrap_or_default())?;
    (is_name && ASGI.iter().chain(&WSGI).any(|known| *known == class)).then_some(name)
}

/// Whether a line at the top level gives this name an object that something made: `app = Flask(__name__)`,
/// `app: FastAPI = make()`, `from shop import app`; or defines it: `def app(environ, start_response):`.
fn assigns(line: &str, object: &str) -> bool {
    if let Some(imported) = line.strip_prefix("from ").and_then(|line| line.split_once(" import ")) {
        return imported.1.split(',').any(|name| name.trim() == object || name.trim().ends_with(&format!(" as {object}")));
    }
    let defined = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ");
    if let Some(rest) = defined.and_then(|line| line.strip_prefix(object)) {
        return rest.trim_start().starts_with('(');
    }
    let Some(rest) = line.strip_prefix(object).map(str::trim_start) else { return false };
    let value = match rest.strip_prefix(':') {
        Some(annotated) => annotated.split_once('=').map(|(_, value)| value),
        None => rest.strip_prefix('=').filter(|value| !value.starts_with('=')),
    };
    value.is_some_and(|value| value.contains('('))
}

/// The command for the first server that is among the dependencies and speaks the app's interface.
fn server(found: &Found, names: &BTreeSet<String>, host: &str) -> Option<Suggested> {
    let bind = format!("{host}:$PORT");
    let listen = format!("--listen={host}:$PORT");
    let object = found.object.as_str();
    let (uvicorn, gunicorn) = (["uvicorn", "--host", host, "--port", "$PORT", object], ["gunicorn", "--bind", &bind, object]);
    let hypercorn = ["hypercorn", "--bind", &bind, object];
    let daphne = ["daphne", "-b", host, "-p", "$PORT", object];
    let waitress = ["waitress-serve", &listen, object];
    let candidates: [&[&str]; 3] = match found.interface {
        Interface::Asgi => [&uvicorn, &hypercorn, &daphne],
        Interface::Wsgi => [&gunicorn, &waitress, &hypercorn],
    };
    let package = |program: &str| if program == "waitress-serve" { "waitress".to_owned() } else { program.to_owned() };
    let words = candidates.into_iter().find(|words| names.contains(&package(words[0])))?;
    // A factory is a call; only gunicorn and waitress (with --call) take one.
    if object.ends_with("()") && words[0] != "gunicorn" {
        return None;
    }
    Some(Suggested { command: command(words), reason: format!("web is {} for {} in {}", words[0], object, found.file) })
}

/// A script that opens its port by itself.
enum Script {
    /// It serves.
    Serves(String),
    /// It begins a server that is for development, as this piece of it tells.
    Develops(String, &'static str),
}

fn listening_script(tree: &Tree<'_>) -> Result<Option<Script>, PlanError> {
    for file in MODULES.iter().filter(|file| !file.contains('/')) {
        let text = tree.source.read(file)?.unwrap_or_default();
        let reads_port = ["\"PORT\"", "'PORT'"].iter().any(|name| text.contains(name));
        if reads_port && text.contains("environ") | text.contains("getenv") {
            let sign = development_server(&text);
            let script = (*file).to_owned();
            return Ok(Some(sign.map_or_else(|| Script::Serves(script.clone()), |sign| Script::Develops(script.clone(), sign))));
        }
    }
    Ok(None)
}

/// What tells that a script begins a server for development: a framework's own, or one that reloads.
fn development_server(text: &str) -> Option<&'static str> {
    let runs = text.contains(".run(");
    let is_flask = text.contains("import flask") || text.contains("from flask");
    match () {
        () if runs && is_flask => Some("Flask's `run`"),
        () if runs && text.contains("reload=True") => Some("`reload=True`"),
        () if text.contains("runserver") => Some("`runserver`"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn application_objects_are_recognised_at_the_top_level_only() {
        for line in [
            "app = Flask(__name__)",
            "app=FastAPI()",
            "app: Flask = make()",
            "from shop import db, app",
            "from x import y as app",
            "def app(e, s):",
        ] {
            assert!(assigns(line, "app"), "{line}");
        }
        for line in
            ["  app = Flask()", "application = Flask()", "app == x()", "app.run()", "app = None", "import app", "def apple():"]
        {
            assert!(!assigns(line, "app"), "{line}");
        }
    }

    #[test]
    fn modules_are_named_as_python_imports_them() {
        let object = |file: &str, text: &str| in_module(file, text).map(|found| (found.object, found.interface));
        assert_eq!(object("app.py", "app = Flask(__name__)\n"), Some(("app:app".to_owned(), Interface::Wsgi)));
        assert_eq!(object("app/__init__.py", "app = Flask(__name__)"), Some(("app:app".to_owned(), Interface::Wsgi)));
        assert_eq!(object("app/main.py", "app = FastAPI()"), Some(("app.main:app".to_owned(), Interface::Asgi)));
        assert_eq!(object("wsgi.py", "application = get()"), Some(("wsgi:application".to_owned(), Interface::Wsgi)));
        let factory = "from flask import Flask\ndef create_app():\n    app = Flask(__name__)\n    return app\n";
        assert_eq!(object("app.py", factory), Some(("app:create_app()".to_owned(), Interface::Wsgi)));
        assert_eq!(object("app.py", "print()"), None);
        assert_eq!(object("main.py", "shop = Flask(__name__)\n"), Some(("main:shop".to_owned(), Interface::Wsgi)));
        assert_eq!(object("main.py", "shop: X = fastapi.FastAPI()\n"), Some(("main:shop".to_owned(), Interface::Asgi)));
        assert_eq!(object("main.py", "shop = NotFlask()\nx == Flask()"), None);
    }
}
