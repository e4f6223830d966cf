//! `docs/reference/compose.md` lists every key of the schema once, and none that the schema does not have; and what it says of each
//! is what happens: honoured keys change what is deployed, refused ones are refused where they stand, ignored ones are told.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;

use crate::Options;
use crate::deploy::support::{self, Support};
use crate::deploy::{Deployable, Obstacle, Surroundings};
use crate::schema::{Object, Rule, Shape, TOP};

mod samples;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/compose.md");

/// Words of the second column.
const WORDS: &[&str] = &["honoured", "development", "ignored", "refused"];

/// Keys of the schema, names that a writer chooses left out: `services.build.args`.
fn keys() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&TOP, "", &mut found);
    found
}

fn collect(rule: &Rule, path: &str, found: &mut BTreeSet<String>) {
    match rule.shape {
        Shape::Object(object) => below(object, path, found),
        Shape::List(item) | Shape::Set(item) | Shape::Map(item) | Shape::Names(item) => collect(item, path, found),
        _ => {}
    }
}

fn below(object: &Object, path: &str, found: &mut BTreeSet<String>) {
    for (key, rule) in object.keys {
        let path = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
        collect(rule, &path, found);
        assert!(found.insert(path.clone()), "{path} is twice in the schema");
    }
}

/// Keys and words of the page's tables. A heading names what the keys below it are below of.
fn listed(page: &str) -> Vec<(String, String)> {
    let mut above = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            above = heading.split('`').nth(1).map(|path| path.replace("NAME", "")).unwrap_or_default();
        } else if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) {
            rows.push((format!("{above}{key}"), rest.split(" | ").next().unwrap_or_default().to_owned()));
        }
    }
    rows
}

#[test]
fn every_key_is_in_the_reference() {
    let rows = listed(&std::fs::read_to_string(PAGE).unwrap());
    let words: Vec<_> = rows.iter().filter(|(_, word)| !WORDS.contains(&word.as_str())).collect();
    assert!(words.is_empty(), "the second column has other words than {WORDS:?}: {words:?}");
    let documented: BTreeSet<String> = rows.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(documented.len(), rows.len(), "a key is twice on the page");
    let keys = keys();
    let missing: Vec<_> = keys.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&keys).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not on the page: {missing:?}; not in the schema: {unknown:?}");
}

/// A folder in which one project after the other is described.
struct Bench {
    directory: tempfile::TempDir,
    /// What projects came to: many samples begin alike.
    made: RefCell<HashMap<String, Rc<(Deployable, String)>>>,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap(), made: RefCell::default() };
        for (path, text) in samples::FILES {
            let path = bench.tree().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        bench
    }

    /// The project is called after its directory.
    fn tree(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    /// What a project is deployed as, and its name.
    fn deployed(&self, compose: &str) -> Rc<(Deployable, String)> {
        let make = || {
            let tree = self.tree();
            std::fs::write(tree.join("compose.yaml"), compose).unwrap();
            let options = Options {
                project_dir: Some(tree.clone()),
                environment: [("TOKEN".to_owned(), "t0ken".to_owned())].into(),
                working_dir: tree.clone(),
                ..Options::default()
            };
            let loaded = crate::load(&options).unwrap_or_else(|error| panic!("{error}\n{compose}"));
            let surroundings = Surroundings { app: "shop".parse().unwrap(), tree: &tree, closed: None, hosts: None };
            Rc::new((crate::deploy::app_spec(&loaded, surroundings), loaded.project.name))
        };
        Rc::clone(self.made.borrow_mut().entry(compose.to_owned()).or_insert_with(make))
    }
}

/// What the code has of a key: the word of the nearest row above it.
fn word_of(key: &str) -> &'static str {
    let pieces: Vec<&str> = key.split('.').collect();
    let row = (1..=pieces.len()).find_map(|length| support::row(&pieces[..length].join(".")));
    match row.map(|row| row.support) {
        None => "honoured",
        Some(Support::Refused) => "refused",
        Some(Support::Ignored) => "ignored",
        Some(Support::Development) => "development",
    }
}

#[test]
fn the_words_of_the_reference_are_those_of_the_code() {
    let rows = listed(&std::fs::read_to_string(PAGE).unwrap());
    let wrong: Vec<_> = rows.iter().filter(|(key, word)| word_of(key) != word).map(|(key, _)| (key, word_of(key))).collect();
    assert!(wrong.is_empty(), "the page has other words than the code has for: {wrong:?}");
    let keys = keys();
    let unknown: Vec<_> = support::NOT_HONOURED.iter().map(|row| row.key).filter(|key| !keys.contains(*key)).collect();
    assert!(unknown.is_empty(), "the code speaks of keys that there are not: {unknown:?}");
}

/// Every honoured key without keys below it, and every key that the code has a row for.
#[test]
fn every_row_of_the_reference_has_a_sample() {
    let rows = listed(&std::fs::read_to_string(PAGE).unwrap());
    let is_above = |key: &str| rows.iter().any(|(other, _)| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
    let honoured = rows.iter().filter(|(key, word)| word == "honoured" && !is_above(key)).map(|(key, _)| key.as_str());
    let wanted: BTreeSet<&str> = honoured.chain(support::NOT_HONOURED.iter().map(|row| row.key)).collect();
    let there: BTreeSet<&str> = samples::SAMPLES.iter().map(|sample| sample.key).collect();
    let missing: Vec<_> = wanted.difference(&there).collect();
    let idle: Vec<_> = there.difference(&wanted).collect();
    assert!(missing.is_empty() && idle.is_empty(), "without a sample: {missing:?}; not wanted: {idle:?}");
}

#[test]
fn every_row_of_the_reference_is_true() {
    let rows: std::collections::BTreeMap<String, String> = listed(&std::fs::read_to_string(PAGE).unwrap()).into_iter().collect();
    let bench = Bench::new();
    let lies: Vec<String> = samples::SAMPLES
        .iter()
        .filter_map(|sample| lie(&bench, sample, &rows[sample.key]).map(|lie| format!("{}: {lie}", sample.key)))
        .collect();
    assert!(lies.is_empty(), "{}", lies.join("\n"));
}

/// What is untrue of a row, if anything.
fn lie(bench: &Bench, sample: &samples::Sample, word: &str) -> Option<String> {
    let [without, with] = sample.projects();
    let (before, after) = (bench.deployed(&without), bench.deployed(&with));
    let ((before, old_name), (after, new_name)) = (&*before, &*after);
    let is_same = before.spec == after.spec && old_name == new_name && before.mistakes == after.mistakes;
    let new = |obstacle: &&Obstacle| !before.obstacles.iter().any(|other| other.path == obstacle.path);
    let obstacles: Vec<&Obstacle> = after.obstacles.iter().filter(new).collect();
    let last = sample.key.rsplit('.').next().unwrap();
    // SELinux is the machine's affair: without it, there is nothing to refuse.
    let is_moot = last == "selinux" && !std::path::Path::new("/sys/fs/selinux/enforce").exists();
    match word {
        "honoured" if is_same => Some("it changes nothing".to_owned()),
        "honoured" if !obstacles.is_empty() => Some(format!("it is refused: {obstacles:?}")),
        "honoured" => None,
        // `--ignore-unsupported` overlooks obstacles; what is left has to be something that can run.
        "refused" if before.mistakes != after.mistakes => Some(format!("it is a mistake as well: {:?}", after.mistakes)),
        "refused" if after.spec.check_stack().is_err() => Some("what is left of it cannot run".to_owned()),
        "refused" if is_moot => (!obstacles.is_empty()).then(|| format!("{obstacles:?}")),
        "refused" => {
            let told = obstacles.iter().find(|obstacle| obstacle.path.rsplit('.').next() == Some(last));
            let Some(position) = told.and_then(|obstacle| obstacle.position.clone()) else {
                return Some(format!("it is not refused with its place: {obstacles:?}"));
            };
            let line = with.lines().nth(position.line as usize - 1).unwrap_or_default();
            let written: String = line.chars().skip(position.column as usize - 1).collect();
            (!written.starts_with(last)).then(|| format!("its place is wrong: {position} is {written:?}"))
        }
        "ignored" if last == "version" => None,
        "ignored" => {
            let told = after.notes.iter().any(|note| note.contains(&format!(".{last}: has no effect")));
            (!told || !is_same || !obstacles.is_empty()).then(|| format!("it is not told, or does something: {:?}", after.notes))
        }
        _ => (!is_same || !obstacles.is_empty()).then(|| "it does something".to_owned()),
    }
}
