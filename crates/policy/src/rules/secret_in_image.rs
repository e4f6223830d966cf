//! `secret-in-image`: what can be read in an image, or in what it will be built from, and should not.

use coracle_model::plan::Recipe;
use coracle_model::policy::Rule;
use coracle_model::{EnvName, Secret};

use crate::key_format::known_key;
use crate::observation::{Observation, plain};
use crate::subject::Looked;

/// Bytes from which on a value is looked for wherever it stands, if it is not a word.
const TELLING: usize = 8;

/// The most places that are noted.
const MOST_SEEN: usize = 64;

/// Where something of an image stands.
struct Spot<'a> {
    /// For people: `its variable DATABASE_URL`.
    called: String,
    /// The name of what it is the value of, if it has one.
    name: Option<&'a str>,
    text: &'a str,
    line: Option<u32>,
}

/// Secrets that stand in the image; before there is one, in what it is built from.
pub(super) fn observe(looked: &Looked<'_>) -> Vec<Observation> {
    let is_of_others = looked.part.name.is_some() && matches!(looked.part.recipe, Recipe::Image { .. });
    if is_of_others {
        return Vec::new();
    }
    let mut seen: Vec<Observation> = Vec::new();
    for spot in spots(looked) {
        let found = found_in(looked, &spot);
        let Some((sentence, surely)) = found else { continue };
        let line = spot.line.or_else(|| line_of(looked, &spot));
        let mut one = Observation::new(Rule::SecretInImage, looked.of_part(&sentence), MEND);
        one.surely = surely;
        if let Some(line) = line {
            one = one.at(looked.dockerfile_path(), line);
        }
        seen.push(one);
        if seen.len() >= MOST_SEEN {
            break;
        }
    }
    // What a Dockerfile sets is in the history, too: once is enough.
    let mut once: Vec<Observation> = Vec::new();
    for one in seen {
        let is_known = |other: &&Observation| other.surely == one.surely && (one.place.is_some() && other.place == one.place);
        if !once.iter().any(|other| is_known(&other)) && !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

const MEND: &str = "take it out and set it with `coracle secrets set`; what only the build needs comes by `build.secrets` and \
                    RUN --mount=type=secret; and have a new one issued, since this one can be read in earlier images, too";

fn spots<'a>(looked: &'a Looked<'_>) -> Vec<Spot<'a>> {
    let mut spots = Vec::new();
    if let Some(facts) = &looked.part.facts {
        for (name, value) in &facts.env {
            spots.push(Spot { called: format!("its variable {}", plain(name)), name: Some(name), text: value, line: None });
        }
        for (name, value) in &facts.labels {
            spots.push(Spot { called: format!("its label {}", plain(name)), name: Some(name), text: value, line: None });
        }
        for made in &facts.history {
            spots.push(Spot { called: "its history".to_owned(), name: None, text: made, line: None });
        }
        return spots;
    }
    if let Some((file, target)) = &looked.dockerfile {
        for at in file.used(*target) {
            for made in &file.stages[at].instructions {
                let called = format!("its Dockerfile, in {}", plain(&made.keyword));
                spots.push(Spot { called, name: None, text: &made.text, line: Some(made.line) });
            }
        }
    }
    if let Recipe::Dockerfile { args, .. } = &looked.part.recipe {
        for (name, value) in args {
            let called = format!("its build argument {}", plain(name));
            spots.push(Spot { called, name: Some(name), text: value, line: None });
        }
    }
    spots
}

/// What is wrong with a text, and whether that is sure.
fn found_in(looked: &Looked<'_>, spot: &Spot<'_>) -> Option<(String, bool)> {
    let own = looked.subject.config.iter().find(|(name, value, is_secret)| stands_in(spot, name, value, *is_secret));
    if let Some((name, ..)) = own {
        return Some((format!("the value of {name}, of the app's own configuration, stands in {}", spot.called), true));
    }
    known_key(spot.text).map(|whose| (format!("{whose} stands in {}", spot.called), false))
}

/// Whether a value of the configuration stands in a text. What could be a usual word counts only where it is set under the
/// same name: the password `postgres` is no secret of an image that installs PostgreSQL.
fn stands_in(spot: &Spot<'_>, name: &EnvName, value: &Secret, is_secret: bool) -> bool {
    let (name, value) = (name.as_str(), value.expose());
    if value.is_empty() || !(is_secret || sounds_secret(name) || has_password(value)) {
        return false;
    }
    if !is_secret && !is_telling(value) {
        return false;
    }
    if is_telling(value) {
        let raw = has_word(spot.text, value);
        return raw || value.contains(['"', '\\', '\n']) && has_word(spot.text, &value.escape_default().to_string());
    }
    match spot.name {
        Some(own) => own == name && spot.text == value,
        None => {
            let set = |form: String| has_word(spot.text, &form);
            set(format!("{name}={value}")) || set(format!("{name}=\"{value}\"")) || set(format!("{name} {value}"))
        }
    }
}

/// Whether the text has `wanted` in it, not as a piece of a longer word.
fn has_word(text: &str, wanted: &str) -> bool {
    let is_of_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(wanted).any(|(at, found)| {
        let inner = (found.chars().next(), found.chars().next_back());
        let begins = !is_of_word(inner.0) || !is_of_word(text[..at].chars().next_back());
        let ends = !is_of_word(inner.1) || !is_of_word(text[at + found.len()..].chars().next());
        begins && ends
    })
}

/// Whether a value could hardly stand somewhere by chance.
pub(super) fn is_telling(value: &str) -> bool {
    let has = |test: fn(&char) -> bool| value.chars().any(|c| test(&c));
    let has_digit = has(char::is_ascii_digit);
    let has_letter = has(char::is_ascii_alphabetic);
    let is_path = value.starts_with('/') || value.starts_with("./");
    let is_plain_address = value.contains("://") && !has_password(value) && !value.contains('?');
    let is_host = value.split_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) && !value.contains('@');
    let is_version = value.trim_start_matches('v').split(['.', '-']).all(|piece| piece.parse::<u64>().is_ok());
    let long = value.chars().count();
    // A phrase of words alone can be written down by chance, unless it is long.
    let varied = has_digit && has_letter || has(|c| matches!(c, '!' | '$' | '%' | '&' | '+' | '=' | '#' | '@'));
    long >= TELLING && !is_path && !is_plain_address && !is_host && !is_version && (varied || long >= 20)
}

/// `postgres://shop:password@db/shop`.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, password)| !password.is_empty()))
}

/// Whether a variable of this name has a secret in it, by custom.
pub(super) fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let pieces: Vec<&str> = name.split('_').collect();
    let is = |word: &str| pieces.contains(&word);
    let is_public = is("PUBLIC") || is("PUBLISHABLE") || is("FILE") || is("PATH") || is("ID") || is("NAME");
    let words = ["SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "TOKEN", "CREDENTIALS", "APIKEY", "PRIVATE", "DSN", "SALT"];
    let is_key = is("KEY") && pieces.len() > 1;
    !is_public && (is_key || words.iter().any(|word| pieces.iter().any(|piece| piece == word)))
}

/// The line of the Dockerfile that brought a text into the image: the one that has it, or the argument that it is given to.
fn line_of(looked: &Looked<'_>, spot: &Spot<'_>) -> Option<u32> {
    let (file, target) = looked.dockerfile.as_ref()?;
    let instructions: Vec<_> = file.used(*target).into_iter().flat_map(|at| &file.stages[at].instructions).collect();
    let is_about = |text: &str| found_in(looked, &Spot { called: String::new(), name: None, text, line: None }).is_some();
    if let Some(made) = instructions.iter().find(|made| is_about(&made.text)) {
        return Some(made.line);
    }
    let names_it = |word: &str| {
        let name = word.split('=').next().unwrap_or(word);
        !name.is_empty() && (spot.name == Some(name) || spot.text.contains(&format!("{name}=")))
    };
    let sets = |keyword: &str| {
        let mut of_kind = instructions.iter().filter(move |made| made.keyword == keyword);
        of_kind.find(|made| made.text.split_whitespace().any(names_it)).map(|made| made.line)
    };
    if spot.name.is_some() {
        sets("ENV").or_else(|| sets("LABEL")).or_else(|| sets("ARG"))
    } else {
        sets("ARG").or_else(|| sets("ENV"))
    }
}
