//! Which Node.js an app asks for.

use crate::detect::versions::{Range, refused, written};
use crate::detect::{PlanError, Tree};

/// The lines of releases that there are images of, in the order in which they are tried: the one that is taken where nothing
/// else is asked for, then the newer one, then older ones.
const TRIED: [u32; 4] = [22, 24, 20, 18];

/// They as a person reads them.
const SUPPORTED: [&str; 4] = ["18", "20", "22", "24"];

/// The version that images get of which nothing else is asked.
pub(crate) const DEFAULT: &str = "22";

/// Files of one line that name a version.
const FILES: [&str; 2] = [".nvmrc", ".node-version"];

/// What nvm calls them.
const NAMED: [(&str, &str); 9] = [
    ("node", "*"),
    ("stable", "*"),
    ("current", "*"),
    ("latest", "*"),
    ("lts/*", "*"),
    ("lts/hydrogen", "18"),
    ("lts/iron", "20"),
    ("lts/jod", "22"),
    ("lts/krypton", "24"),
];

/// The version asked for, if it is another than any would do.
pub(super) fn wanted(tree: &Tree<'_>, engines: Option<&str>) -> Result<Option<String>, PlanError> {
    if let Some((path, line)) = written(tree, &FILES)? {
        let lower = line.to_ascii_lowercase();
        let meant = NAMED.iter().find(|(name, _)| *name == lower).map_or(line.as_str(), |(_, meant)| *meant);
        return chosen(path, "", &line, meant);
    }
    match engines.filter(|range| !range.trim().is_empty()) {
        Some(range) => chosen("package.json", " (engines.node)", range, range),
        None => Ok(None),
    }
}

fn chosen(path: &str, key: &str, wanted: &str, meant: &str) -> Result<Option<String>, PlanError> {
    let range = Range::parse(meant);
    match range.and_then(|range| TRIED.into_iter().find(|major| range.admits(&[*major]))) {
        Some(major) => Ok((major != TRIED[0]).then(|| major.to_string())),
        None => Err(refused((path, key), "Node.js", wanted, &SUPPORTED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_taken_wherever_it_will_do() {
        let of = |range: &str| chosen("package.json", "", range, range).ok();
        for (range, expected) in [
            (">=18", Some(None)),
            ("20.x", Some(Some("20"))),
            ("^18 || ^20", Some(Some("20"))),
            (">=23", Some(Some("24"))),
            ("v22.11.0", Some(None)),
            ("16", None),
            ("22\nRUN x", None),
        ] {
            assert_eq!(of(range), expected.map(|version| version.map(str::to_owned)), "{range}");
        }
        let mut tried = TRIED.map(|major| major.to_string());
        tried.sort();
        assert_eq!(tried.to_vec(), SUPPORTED);
        assert_eq!(TRIED[0].to_string(), DEFAULT);
    }
}
