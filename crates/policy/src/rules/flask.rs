//! Flask's own server, and others that a script opens for whoever develops.

use crate::subject::Looked;

/// Options of `flask` that take a value.
const WITH_VALUE: [&str; 4] = ["-A", "--app", "-e", "--env-file"];
/// Servers for production: a script that has one decides by itself.
const SERVERS: [&str; 6] = ["waitress", "gunicorn", "hypercorn", "gevent", "eventlet", "cheroot"];

/// The most calls of a script that are looked at.
const MOST_CALLS: usize = 32;

/// The command of `flask --app shop run`.
pub(super) fn verb<'a>(rest: &[&'a str]) -> Option<&'a str> {
    let mut words = rest.iter().copied();
    while let Some(word) = words.next() {
        match word {
            word if WITH_VALUE.contains(&word) => drop(words.next()),
            word if word.starts_with('-') => {}
            word => return Some(word),
        }
    }
    None
}

/// The server for development that a script opens when it is run: what, and where.
pub(super) fn script(looked: &Looked<'_>, word: &str) -> Option<(String, String, u32)> {
    let relative = word.trim_start_matches("./").trim_start_matches('/');
    // An image has its files below a folder of its own: `/app/shop.py`.
    let names = [relative, relative.split_once('/').map_or(relative, |(_, rest)| rest), relative.rsplit('/').next()?];
    let name = names.into_iter().find(|name| name.ends_with(".py") && looked.source.is_file(name))?;
    let text = looked.read(name)?;
    if SERVERS.iter().any(|server| text.contains(server)) {
        return None;
    }
    let starts = |line: &str| [".run(", "run_simple("].iter().any(|call| line.contains(call));
    for (number, line) in code(&text).filter(|(_, line)| starts(line)).take(MOST_CALLS) {
        let line_number = u32::try_from(number + 1).ok()?;
        let statement = line.trim();
        if let Some((object, _)) = statement.split_once(".run(")
            && is_name(object)
            && is_flask(looked, &text, object)
        {
            return Some((format!("{object}.run()"), name.to_owned(), line_number));
        }
        if statement.starts_with("run_simple(") && text.contains("werkzeug") {
            return Some(("werkzeug's run_simple()".to_owned(), name.to_owned(), line_number));
        }
        if statement.starts_with("uvicorn.run(") && reloads(&text, number) {
            return Some(("uvicorn.run(reload=True)".to_owned(), name.to_owned(), line_number));
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The lines of a Python text that are code: neither comments nor within a text of several lines.
pub(super) fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut within: Option<&str> = None;
    text.lines().enumerate().filter(move |(_, line)| {
        let began_within = within.is_some();
        let mut rest = *line;
        loop {
            let next = match within {
                Some(quote) => rest.find(quote).map(|at| (at, quote)),
                None => ["\"\"\"", "'''"].into_iter().filter_map(|quote| rest.find(quote).map(|at| (at, quote))).min(),
            };
            let Some((at, quote)) = next else { break };
            within = if within.is_some() { None } else { Some(quote) };
            rest = &rest[at + quote.len()..];
        }
        !began_within && !line.trim_start().starts_with('#')
    })
}

/// Whether a name of a script is an app of Flask's or Quart's, as far as its text and those beside it tell.
fn is_flask(looked: &Looked<'_>, text: &str, object: &str) -> bool {
    let makes = |text: &str| ["Flask(", "Quart("].iter().any(|class| text.contains(class));
    for (_, line) in code(text) {
        let line = line.trim();
        if let Some((target, value)) = line.split_once('=') {
            let target = target.split(':').next().unwrap_or(target).trim();
            let is_made = makes(value) || value.contains("create_app(") || value.contains("make_app(");
            if target == object && is_made {
                let mentions = text.contains("flask") || text.contains("quart") || uses_flask(looked);
                return makes(value) || mentions;
            }
        }
        let imported = line.strip_prefix("from ").and_then(|rest| rest.split_once(" import "));
        if let Some((module, names)) = imported
            && names.split(',').any(|name| name.trim().trim_matches(['(', ')']).split(" as ").last() == Some(object))
        {
            let path = module.trim().trim_start_matches('.').replace('.', "/");
            let files = [format!("{path}.py"), format!("{path}/__init__.py")];
            return files.iter().filter_map(|file| looked.read(file)).any(|text| makes(&text));
        }
    }
    false
}

/// Whether Flask is among what is required.
fn uses_flask(looked: &Looked<'_>) -> bool {
    ["requirements.txt", "pyproject.toml", "Pipfile"]
        .iter()
        .filter_map(|file| looked.read(file))
        .any(|text| text.lines().any(|line| line.trim_start().trim_start_matches('"').to_ascii_lowercase().starts_with("flask")))
}

/// Whether the call that begins on this line asks for reloading.
fn reloads(text: &str, line: usize) -> bool {
    let call: String = text.lines().skip(line).take(20).collect::<Vec<_>>().join(" ");
    let mut depth = 0_usize;
    let end = call.char_indices().find(|(_, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        *c == ')' && depth == 0
    });
    let call = &call[..end.map_or(call.len(), |(at, _)| at)];
    call.split(',').any(|argument| argument.replace(' ', "").contains("reload=True"))
}
