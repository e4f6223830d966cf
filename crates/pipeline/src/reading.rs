//! From the text of `coracle.toml` to the checked section. Its other sections are `coracle_model`'s to read.

use std::collections::BTreeMap;

use coracle_model::manifest::FILE;
use coracle_model::manifest::reading::{Keys, command, entries, environment, word};
use coracle_model::{EnvName, Pattern, Span};
use coracle_toml_reading::{Entry, Mistakes, Values, cut, entries as any_entries, meant};
use toml::de::{DeTable, DeValue};

use crate::known;
use crate::plan;
use crate::policy::{self, Policy};
use crate::step::{Pipeline, Service, Step, StepImage, StepName, WORKSPACE, When};

const SECTION: Keys = Keys { known: &["parallel", "steps", "verify", "approve", "watch"], planned: &[] };
/// What may be otherwise in an environment.
const OF_ENVIRONMENT: Keys = Keys { known: &["approve", "watch"], planned: &[] };
const STEP: Keys = Keys {
    known: &[
        "run",
        "image",
        "needs",
        "services",
        "env",
        "secrets",
        "cache",
        "artifacts",
        "matrix",
        "timeout",
        "retries",
        "when",
        "always",
    ],
    planned: &[],
};
const VERIFY: Keys = Keys { known: &["run", "image", "env", "secrets", "timeout", "retries"], planned: &[] };
const SERVICE: Keys = Keys { known: &["image", "env", "health"], planned: &[] };
const WHEN: Keys = Keys { known: &["branch", "tag", "paths"], planned: &[] };

/// How long one attempt may take if the file does not say.
const TIMEOUT: Span = Span::seconds(10 * 60);
/// And how long at most.
const MOST_SECONDS: u64 = 2 * 3600;
/// The most a step is tried again.
const MOST_RETRIES: u8 = 10;
/// The most steps of either kind, and the most jobs that they may become.
const MOST_STEPS: usize = 64;
const MOST_JOBS: usize = 128;
/// The most combinations of one step.
const MOST_COMBINATIONS: usize = 32;
/// The most patterns of one step's artifacts.
const MOST_ARTIFACTS: usize = 32;
/// The most services beside one step.
const MOST_SERVICES: usize = 8;

impl Pipeline {
    /// Reads the section out of the text of a `coracle.toml`; the default if there is none. All mistakes are told at once,
    /// each with its place.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let document = coracle_toml_reading::parse(FILE, text)?;
        let mut values = Values::new(FILE, text);
        let mut pipeline = Self::default();
        for entry in any_entries("", &document) {
            match entry.key {
                "pipeline" => {
                    if let Some(table) = values.table(&entry) {
                        section(&mut values, &entry.path, table, &mut pipeline);
                    }
                }
                "environments" => pipeline.environments = environments(&mut values, &entry),
                _ => {}
            }
        }
        values.mistakes.finish()?;
        Ok(pipeline)
    }
}

/// What is said about a step before the others are known.
struct Draft<'a, 'i> {
    step: Step,
    entry: Entry<'a, 'i>,
    needs: Option<Entry<'a, 'i>>,
}

fn section(values: &mut Values<'_>, path: &str, table: &DeTable<'_>, pipeline: &mut Pipeline) {
    for entry in entries(values, path, table, &SECTION) {
        match entry.key {
            "parallel" => pipeline.parallel = values.integer(&entry, 1..=16),
            "steps" => {
                let drafts = steps(values, &entry, &STEP);
                check_needs(values, &drafts);
                check_size(values, &entry, &drafts);
                pipeline.steps = drafts.into_iter().map(|draft| draft.step).collect();
            }
            "verify" => pipeline.verify = steps(values, &entry, &VERIFY).into_iter().map(|draft| draft.step).collect(),
            "approve" => pipeline.approve = policy::approve(values, &entry).flatten(),
            "watch" => pipeline.watch = policy::watch(values, &entry).flatten(),
            _ => unreachable!("every known key is handled"),
        }
    }
}

/// What environments say otherwise. What is no table is told by whoever reads the rest of the manifest.
fn environments(values: &mut Values<'_>, all: &Entry<'_, '_>) -> BTreeMap<String, Policy> {
    let mut policies = BTreeMap::new();
    let DeValue::Table(table) = all.value.get_ref() else { return policies };
    for environment in any_entries(&all.path, table) {
        let DeValue::Table(table) = environment.value.get_ref() else { continue };
        for section in any_entries(&environment.path, table).into_iter().filter(|entry| entry.key == "pipeline") {
            let Some(table) = values.table(&section) else { continue };
            let mut policy = Policy::default();
            for entry in entries(values, &section.path, table, &OF_ENVIRONMENT) {
                match entry.key {
                    "approve" => policy.approve = policy::approve(values, &entry),
                    "watch" => policy.watch = policy::watch(values, &entry),
                    _ => unreachable!("every known key is handled"),
                }
            }
            policies.insert(environment.key.to_owned(), policy);
        }
    }
    policies
}

fn steps<'a, 'i>(values: &mut Values<'_>, section: &Entry<'a, 'i>, keys: &Keys) -> Vec<Draft<'a, 'i>> {
    let Some(table) = values.table(section) else { return Vec::new() };
    let mut drafts = Vec::new();
    // Looking at how they need each other takes more than twice as long for twice as many.
    if table.len() > MOST_STEPS {
        values.wrong_key(section, format!("has {} steps, and {MOST_STEPS} are the most", table.len()), None);
        return drafts;
    }
    for entry in any_entries(&section.path, table) {
        let name: StepName = match entry.key.parse() {
            Ok(name) => name,
            Err(error) => {
                values.mistakes.add(entry.key_span, &entry.path, error, None);
                continue;
            }
        };
        if let Some(table) = values.table(&entry) {
            drafts.push(step(values, entry, name, table, keys));
        }
    }
    drafts
}

fn step<'a, 'i>(
    values: &mut Values<'_>,
    entry: Entry<'a, 'i>,
    name: StepName,
    table: &'a DeTable<'i>,
    keys: &Keys,
) -> Draft<'a, 'i> {
    let (mut run, mut image_entry, mut needs, mut secrets_entry, mut says_run) = (None, None, None, None, false);
    let mut step = Step {
        name,
        run: coracle_model::CommandLine { assignments: Vec::new(), words: Vec::new() },
        image: StepImage::App,
        needs: Vec::new(),
        services: Vec::new(),
        env: BTreeMap::new(),
        secrets: Vec::new(),
        cache: Vec::new(),
        artifacts: Vec::new(),
        matrix: BTreeMap::new(),
        timeout: TIMEOUT,
        retries: 0,
        when: When::default(),
        always: false,
    };
    for entry in entries(values, &entry.path, table, keys) {
        match entry.key {
            "run" => (says_run, run) = (true, command(values, &entry)),
            "image" => {
                step.image = image(values, &entry).unwrap_or(StepImage::App);
                image_entry = Some(entry);
            }
            "needs" => {
                step.needs = values.list(&entry).unwrap_or_default();
                needs = Some(entry);
            }
            "services" => step.services = services(values, &entry),
            "env" => step.env = env(values, &entry),
            "secrets" => {
                step.secrets = values.list(&entry).unwrap_or_default();
                secrets_entry = Some(entry);
            }
            "cache" => step.cache = cache(values, &entry),
            "artifacts" => step.artifacts = artifacts(values, &entry),
            "always" => step.always = values.boolean(&entry).unwrap_or(false),
            "matrix" => step.matrix = matrix(values, &entry),
            "timeout" => step.timeout = timeout(values, &entry).unwrap_or(TIMEOUT),
            "retries" => step.retries = values.integer(&entry, 0..=MOST_RETRIES).unwrap_or(0),
            "when" => step.when = when(values, &entry),
            _ => unreachable!("every known key is handled"),
        }
    }
    if !says_run {
        values.wrong_key(&entry, "runs nothing", Some("write run = \"pytest -q\", say"));
    }
    if let (Some(entry), StepImage::Named(image)) = (&image_entry, &step.image) {
        check_variables(values, entry, image, &step.matrix);
    }
    if let Some(entry) = secrets_entry {
        for name in step.secrets.iter().filter(|name| step.env.contains_key(name)) {
            let hint = "a secret's value is set by `coracle secrets set`, never in the file";
            values.wrong(&entry, format!("{name} is in `env` as well"), Some(hint));
        }
        // The app's own database is not what tests are to run against.
        for name in step.secrets.iter().filter(|name| step.services.iter().any(|service| service.told.contains_key(*name))) {
            let hint = "the step's service says where it is itself";
            values.wrong(&entry, format!("{name} is what a service of the step tells it"), Some(hint));
        }
    }
    // Where that could not be read, a mistake has been noted; the step is still one that others may need.
    step.run = run.unwrap_or(step.run);
    Draft { step, entry, needs }
}

/// `app`, or a reference, which may have variables of the matrix in it.
fn image(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<StepImage> {
    let image = word(values, entry)?;
    Some(if image == "app" { StepImage::App } else { StepImage::Named(image) })
}

fn check_variables(values: &mut Values<'_>, entry: &Entry<'_, '_>, image: &str, matrix: &BTreeMap<EnvName, Vec<String>>) {
    for name in plan::variables(image) {
        if !matrix.keys().any(|known| known.as_str() == name) {
            let hint = match matrix.is_empty() {
                true => Some("say its values, as in matrix = { PYTHON = [\"3.12\", \"3.13\"] }".to_owned()),
                false => meant(name, matrix.keys().map(EnvName::as_str)),
            };
            values.wrong(entry, format!("${} is not in the step's `matrix`", cut(name)), hint.as_deref());
        }
    }
}

fn env(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> BTreeMap<EnvName, String> {
    values.table(entry).map(|table| environment(values, &entry.path, table)).unwrap_or_default()
}

/// A list of images, or a table of names.
fn services(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Vec<Service> {
    let mut all: Vec<Service> = Vec::new();
    match entry.value.get_ref() {
        DeValue::Table(table) => {
            for entry in any_entries(&entry.path, table) {
                let Some(table) = values.table(&entry) else { continue };
                if is_host(entry.key) {
                    all.extend(service(values, &entry, table));
                } else {
                    let hint = "use lower-case letters, digits and hyphens: the step reaches it by this name".to_owned();
                    values.mistakes.add(entry.key_span, &entry.path, "is not a name for a service", Some(hint));
                }
            }
        }
        _ => {
            for image in values.list::<String>(entry).unwrap_or_default() {
                let name = known::short_name(&image).to_owned();
                if !is_host(&name) || image.starts_with('-') || !image.bytes().all(|byte| byte.is_ascii_graphic()) {
                    values.wrong(entry, format!("{:?} is not an image", cut(&image)), Some("write it as \"postgres:15\""));
                    continue;
                }
                if all.iter().any(|other| other.name == name) {
                    let hint = "give them names: services = { one = { image = \"…\" }, other = { image = \"…\" } }";
                    values.wrong(entry, format!("two services would be called {name}"), Some(hint));
                }
                all.push(Service { name, image, env: BTreeMap::new(), health: None, told: BTreeMap::new() });
            }
        }
    }
    if all.len() > MOST_SERVICES {
        values.wrong(entry, format!("has more than {MOST_SERVICES} services"), None);
    }
    all.iter_mut().for_each(known::complete);
    all
}

fn is_host(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=40).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

fn service(values: &mut Values<'_>, section: &Entry<'_, '_>, table: &DeTable<'_>) -> Option<Service> {
    let (mut image, mut variables, mut health, mut says_image) = (None, BTreeMap::new(), None, false);
    for entry in entries(values, &section.path, table, &SERVICE) {
        match entry.key {
            "image" => (says_image, image) = (true, word(values, &entry)),
            "env" => variables = env(values, &entry),
            "health" => health = program(values, &entry),
            _ => unreachable!("every known key is handled"),
        }
    }
    if !says_image {
        values.wrong_key(section, "names no image", Some("write image = \"postgres:15\", say"));
    }
    Some(Service { name: section.key.to_owned(), image: image?, env: variables, health, told: BTreeMap::new() })
}

/// A command that ends with code 0 when the service is well.
fn program(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Vec<String>> {
    let (assigned, argv) = command(values, entry)?.expand(&|_| None);
    if !assigned.is_empty() {
        values.wrong(entry, "cannot set variables", Some("the service's own are there; set others in its `env`"));
        return None;
    }
    Some(argv)
}

/// Absolute paths, none inside another.
fn cache(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for path in values.list::<String>(entry).unwrap_or_default() {
        let path = path.trim_end_matches('/').to_owned();
        let clean = path.starts_with('/')
            && path.len() <= 512
            && !path.contains(':')
            && !path.chars().any(char::is_control)
            && path[1..].split('/').all(|piece| !matches!(piece, "" | "." | ".."));
        if !clean {
            let hint = "give it as the step sees it, as in \"/root/.cache/pip\"";
            values.wrong(entry, format!("{:?} is not the absolute path of a folder", cut(&path)), Some(hint));
            continue;
        }
        if path == WORKSPACE {
            let hint = "name a folder in it, as in \"/workspace/.cache\"";
            values.wrong(entry, format!("{WORKSPACE} is where the source tree is"), Some(hint));
            continue;
        }
        let within =
            |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/') || rest.is_empty());
        if let Some(other) = all.iter().find(|other| within(&path, other) || within(other, &path)) {
            values.wrong(entry, format!("{} and {} lie in each other", cut(other), cut(&path)), None);
        }
        all.push(path);
    }
    all
}

fn artifacts(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Vec<Pattern> {
    let all = patterns(values, entry);
    if all.len() > MOST_ARTIFACTS {
        values.wrong(entry, format!("has more than {MOST_ARTIFACTS} patterns"), None);
    }
    all
}

fn matrix(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> BTreeMap<EnvName, Vec<String>> {
    let mut matrix = BTreeMap::new();
    let Some(table) = values.table(entry) else { return matrix };
    for entry in any_entries(&entry.path, table) {
        let name: EnvName = match entry.key.parse() {
            Ok(name) => name,
            Err(error) => {
                let error: coracle_model::NameError = error;
                values.mistakes.add(entry.key_span, &entry.path, error.to_string(), None);
                continue;
            }
        };
        let Some(list) = values.list::<String>(&entry) else { continue };
        if list.is_empty() {
            values.wrong(&entry, "has no values, so that the step would never run", None);
        } else if list.iter().any(|value| value.len() > 64 || value.chars().any(char::is_control)) {
            values.wrong(&entry, "a value is longer than 64 bytes, or has control characters in it", None);
        }
        matrix.insert(name, list);
    }
    let count = plan::count(&matrix);
    if count > MOST_COMBINATIONS {
        values.wrong_key(entry, format!("has {count} combinations, and {MOST_COMBINATIONS} are the most"), None);
    }
    matrix
}

fn timeout(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Span> {
    let span: Span = values.quantity(entry, "5m")?;
    if span == Span::seconds(0) {
        values.wrong(entry, "would give the step no time at all", None);
        return None;
    }
    // Nothing else can be done to the app meanwhile.
    if span > Span::seconds(MOST_SECONDS) {
        values.wrong(entry, "is longer than two hours", None);
        return None;
    }
    Some(span)
}

fn when(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> When {
    let mut when = When::default();
    let Some(table) = values.table(entry) else { return when };
    for entry in entries(values, &entry.path, table, &WHEN) {
        let patterns = patterns(values, &entry);
        match entry.key {
            "branch" => when.branches = patterns,
            "tag" => when.tags = patterns,
            "paths" => when.paths = patterns,
            _ => unreachable!("every known key is handled"),
        }
    }
    when
}

/// One pattern, or a list of them.
fn patterns(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Vec<Pattern> {
    match entry.value.get_ref() {
        DeValue::String(_) => values.parsed(entry).into_iter().collect(),
        _ => values.list(entry).unwrap_or_default(),
    }
}

/// Steps need steps that there are, and none waits for itself.
fn check_needs(values: &mut Values<'_>, drafts: &[Draft<'_, '_>]) {
    let names: Vec<&str> = drafts.iter().map(|draft| draft.step.name.as_str()).collect();
    for draft in drafts {
        let Some(entry) = &draft.needs else { continue };
        for need in draft.step.needs.iter().filter(|need| !names.contains(&need.as_str())) {
            let others = names.iter().copied().filter(|name| *name != draft.step.name.as_str());
            values.wrong(entry, format!("there is no step {need}"), meant(need.as_str(), others).as_deref());
        }
    }
    if let Some(circle) = circle(drafts) {
        let first = circle[0];
        let path: Vec<&str> = circle.iter().chain([&first]).map(|at| names[*at]).collect();
        let place = drafts[first].needs.as_ref().unwrap_or(&drafts[first].entry);
        values.wrong(place, format!("no step of these could ever begin: {}", path.join(" needs ")), Some("take one of them out"));
    }
}

/// Steps that need each other in a circle; the first in the file first.
fn circle(drafts: &[Draft<'_, '_>]) -> Option<Vec<usize>> {
    let at = |name: &StepName| drafts.iter().position(|draft| draft.step.name == *name);
    let needs: Vec<Vec<usize>> = drafts.iter().map(|draft| draft.step.needs.iter().filter_map(at).collect()).collect();
    // What needs nothing that is left is taken away; what stays is in a circle, or needs one that is.
    let mut left: Vec<bool> = vec![true; needs.len()];
    while let Some(free) = (0..needs.len()).find(|step| left[*step] && needs[*step].iter().all(|need| !left[*need])) {
        left[free] = false;
    }
    let mut path = vec![left.iter().position(|left| *left)?];
    loop {
        let last = path[path.len() - 1];
        let next = needs[last].iter().copied().find(|need| left[*need])?;
        if let Some(begin) = path.iter().position(|seen| *seen == next) {
            let mut circle = path.split_off(begin);
            let first = circle.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(at, _)| at);
            circle.rotate_left(first);
            return Some(circle);
        }
        path.push(next);
    }
}

fn check_size(values: &mut Values<'_>, section: &Entry<'_, '_>, drafts: &[Draft<'_, '_>]) {
    let jobs = drafts.iter().fold(0, |sum: usize, draft| sum.saturating_add(plan::count(&draft.step.matrix)));
    if jobs > MOST_JOBS {
        values.wrong_key(section, format!("would run {jobs} jobs with all combinations, and {MOST_JOBS} are the most"), None);
    }
}
