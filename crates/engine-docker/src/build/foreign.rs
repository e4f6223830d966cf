//! Images of other apps: they lie on the machine under names that can be guessed, and whoever may build one app must not get at
//! another's program by them. `coracle promote` is the way from app to app, since it asks for a role in both.

use std::collections::BTreeMap;

use coracle_engine::{BuildError, BuildRequest, NamedContext};
use coracle_model::plan::Recipe;
use coracle_model::{AppName, ImageReference};

/// How deep arguments may name each other.
const DEEPEST: usize = 8;

/// Refuses what names an image of another app. What the Dockerfile names is looked at by [`check_dockerfile`].
pub(super) fn check(request: &BuildRequest) -> Result<(), BuildError> {
    match &request.plan.recipe {
        Recipe::Image { reference, .. } => refuse(&request.app, reference),
        Recipe::Dockerfile { extras, .. } => extras.cache_from.iter().try_for_each(|image| refuse(&request.app, image)),
        _ => Ok(()),
    }?;
    let images = request.contexts.values().filter_map(|context| match context {
        // An id is what another part of the same app was built into.
        NamedContext::Image(image) if !image.starts_with("sha256:") => Some(image),
        _ => None,
    });
    images.into_iter().try_for_each(|image| refuse(&request.app, image))
}

/// The same of everything that a Dockerfile takes files from, with the arguments that it is built with. Answers the images among
/// it.
pub(super) fn check_dockerfile(request: &BuildRequest, text: &str) -> Result<Vec<ImageReference>, BuildError> {
    let Recipe::Dockerfile { args, .. } = &request.plan.recipe else { return Ok(Vec::new()) };
    let stages = request.contexts.keys().cloned().collect();
    images(&request.app, text, args, stages)
}

fn images(
    app: &AppName,
    text: &str,
    args: &BTreeMap<String, String>,
    stages: Vec<String>,
) -> Result<Vec<ImageReference>, BuildError> {
    // Whichever it is that continues a line: who reads it decides, and may decide otherwise than we would.
    for escape in ['\\', '`'] {
        sources(text, escape, args, stages.clone()).iter().try_for_each(|image| refuse(app, image))?;
    }
    Ok(sources(text, escape_of(text), args, stages).iter().filter_map(|image| image.parse().ok()).collect())
}

fn refuse(app: &AppName, image: &str) -> Result<(), BuildError> {
    let Ok(reference) = image.parse::<ImageReference>() else { return Ok(()) };
    match reference.names_an_app() {
        Some(other) if other != app.as_str() => Err(BuildError::CannotBuild(format!(
            "{reference} is an image of the app {other}, and no app is made from another's; `coracle promote {other} {app}` takes over \
             what it runs, with a role in both"
        ))),
        _ => Ok(()),
    }
}

/// What instructions take files from: `FROM`, `--from=` and `from=` of mounts, with arguments filled in. Stages are left out.
fn sources(text: &str, escape: char, args: &BTreeMap<String, String>, mut stages: Vec<String>) -> Vec<String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut found = Vec::new();
    for line in lines(text, escape) {
        let mut words = line.split_whitespace();
        let mut first = words.next().unwrap_or_default().to_ascii_uppercase();
        if first == "ONBUILD" {
            first = words.next().unwrap_or_default().to_ascii_uppercase();
        }
        match first.as_str() {
            "ARG" | "ENV" => {
                for word in words {
                    let (name, default) = word.split_once('=').unwrap_or((word, ""));
                    let value = args.get(name).cloned().unwrap_or_else(|| fill_in(&unquoted(default), &known, 0));
                    known.insert(name.to_owned(), value);
                }
            }
            "FROM" => {
                let mut words = words.skip_while(|word| word.starts_with("--"));
                found.extend(words.next().map(|word| fill_in(&unquoted(word), &known, 0)));
                if words.next().is_some_and(|word| word.eq_ignore_ascii_case("AS")) {
                    stages.extend(words.next().map(str::to_owned));
                }
            }
            "COPY" | "ADD" | "RUN" => {
                let flags = words.take_while(|word| word.starts_with("--"));
                let from = flags.flat_map(|flag| flag.split([',', ' '])).filter_map(|piece| {
                    let piece = piece.trim_start_matches("--").trim_start_matches("mount=");
                    piece.strip_prefix("from=")
                });
                found.extend(from.map(|image| fill_in(&unquoted(image), &known, 0)));
            }
            _ => {}
        }
    }
    // The name of a stage has no slash, as those of apps' images have.
    let is_stage = |image: &String| {
        let is_number = image.bytes().all(|byte| byte.is_ascii_digit());
        is_number || image.eq_ignore_ascii_case("scratch") || stages.iter().any(|stage| stage.eq_ignore_ascii_case(image))
    };
    found.retain(|image| image.contains('/') || !is_stage(image));
    found
}

/// What continues a line, as the directive at the head says.
fn escape_of(text: &str) -> char {
    text.lines()
        .take_while(|line| line.trim_start().starts_with('#'))
        .filter_map(|line| line.trim_start_matches(['#', ' ', '\t']).split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("escape"))
        .and_then(|(_, value)| value.trim().chars().next())
        .unwrap_or('\\')
}

/// Lines without comments and empty ones, which both end nothing; those that go on put together.
fn lines(text: &str, escape: char) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let line = line.trim_end();
        let last = all.last_mut().unwrap_or_else(|| unreachable!("there is always one"));
        match line.strip_suffix(escape) {
            Some(begun) => last.push_str(begun),
            None => {
                last.push_str(line);
                all.push(String::new());
            }
        }
    }
    all
}

/// Without quotes, wherever they stand: `"$NAME":v3` is one word.
fn unquoted(text: &str) -> String {
    text.replace(['"', '\''], "")
}

/// `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`. Of what is written otherwise the name's value is taken: what may be
/// an app's image is rather taken for one.
fn fill_in(text: &str, known: &BTreeMap<String, String>, depth: usize) -> String {
    let Some(at) = text.find('$').filter(|_| depth < DEEPEST) else { return text.to_owned() };
    let (before, rest) = (&text[..at], &text[at + 1..]);
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let (value, after) = match rest.strip_prefix('{') {
        Some(inner) => {
            let end = closing(inner);
            let (inside, after) = (&inner[..end], inner.get(end + 1..).unwrap_or_default());
            let length = inside.find(|it| !is_name(it)).unwrap_or(inside.len());
            let (name, operation) = inside.split_at(length);
            let value = known.get(name).filter(|value| !value.is_empty());
            let word = |operation: &str| fill_in(operation, known, depth + 1);
            let value = match operation.trim_start_matches(':') {
                operation if operation.starts_with('+') => value.map(|_| word(&operation[1..])).unwrap_or_default(),
                operation if operation.starts_with('-') => value.cloned().unwrap_or_else(|| word(&operation[1..])),
                _ => value.cloned().unwrap_or_default(),
            };
            (value, after)
        }
        None => {
            let length = rest.find(|it| !is_name(it)).unwrap_or(rest.len());
            (known.get(&rest[..length]).cloned().unwrap_or_default(), &rest[length..])
        }
    };
    format!("{before}{value}{}", fill_in(after, known, depth))
}

/// Where the brace that was opened is closed.
fn closing(text: &str) -> usize {
    let mut open = 1;
    for (at, it) in text.char_indices() {
        match it {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is_refused(text: &str) -> bool {
        let args = [("GIVEN".to_owned(), "coracle-0a/other".to_owned())].into();
        images(&"shop".parse().unwrap(), text, &args, Vec::new()).is_err()
    }

    #[test]
    fn another_apps_image_is_found_however_it_is_written() {
        for text in [
            "FROM coracle-0a/other:v3",
            "from --platform=linux/amd64 docker.io/coracle-0a/other:v3 AS x",
            "FROM \\\n  coracle-0a/other:v3",
            "# escape=`\nFROM `\n  coracle-0a/other:v3",
            "FROM \\\n\n  coracle-0a/other:v3",
            "# hello\n# escape=`\nFROM \\\n  coracle-0a/other:v3",
            "FROM python\nCOPY --from=coracle-0a/other:v3 /app /app",
            "FROM python\nCOPY --chown=1:1 --from=localhost/coracle-0a/other /app /app",
            "FROM python\nRUN --mount=type=bind,from=coracle-0a/other:v3,target=/x cp -r /x /y",
            "FROM python\nRUN --mount=from=coracle-0a/other:v3,target=/x cp -r /x /y",
            "FROM python\nONBUILD COPY --from=coracle-0a/other:v3 / /",
            "ARG A=coracle-0a\nARG B=$A/other\nFROM ${B}:v3",
            "ARG A\nFROM ${A:-coracle-0a/other}:v3",
            "ARG A=1\nFROM ${A:+coracle-0a/other:v3}",
            "ARG GIVEN\nFROM $GIVEN:v3",
            "ARG GIVEN=python\nFROM \"$GIVEN\":v3",
            "FROM python AS a\nFROM a\nCOPY --from='coracle-0a/other:v3' / /",
        ] {
            assert!(is_refused(text), "{text}");
        }
    }

    #[test]
    fn stages_are_no_images() {
        let text = "FROM python:3 AS base\nFROM base AS Build\nFROM scratch\nCOPY --from=build / /\nCOPY --from=0 / /\n\
                    COPY --from=assets / /\nCOPY --from=nginx:1 / /\n";
        assert_eq!(sources(text, '\\', &BTreeMap::new(), vec!["assets".to_owned()]), ["python:3", "nginx:1"]);
    }

    #[test]
    fn everything_else_is_let_be() {
        for text in [
            "FROM python:3.12-slim AS base\nFROM base\nCOPY --from=base /a /a\nCOPY coracle-0a/other /x",
            "FROM coracle-0a/shop:v2",
            "FROM registry.example.com/coracle-0a/other",
            "# FROM coracle-0a/other:v3\nFROM scratch",
            "ARG X=${X}\nFROM a${X}${",
            "FROM $",
            "",
        ] {
            assert!(!is_refused(text), "{text}");
        }
    }
}
