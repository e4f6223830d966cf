//! The same project, written otherwise: keys in another order, lists for mappings and short forms for long ones, and one file
//! cut in two. Whatever a model was, written anew and read again it must be the same.
//!
//! What is changed is the model that the program itself has printed, which is a compose file, too. Nothing outside is needed
//! to judge: the program has to agree with itself.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::compose_project::{PLACEHOLDER, Project, difference};
use crate::report::Verdict;

/// Writes the model of a project in `count` other ways and reads each of them again. Projects that are refused have no model.
pub(crate) async fn verdict(project: &Project, count: u64, seed: u64, program: &Path) -> Verdict {
    let loaded = project.load(program).await.map_err(|error| format!("{error:#}"))?;
    let Some(model) = loaded.model else { return Ok(()) };
    for round in 0..count {
        let mut chance = Chance::new(seed ^ (round + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let written = rewritten(project, &model, &mut chance);
        let read = written.load(program).await.map_err(|error| format!("{error:#}"))?;
        let texts = || written.files.values().map(String::as_str).collect::<Vec<_>>().join("\n--- and ---\n");
        match read.model {
            None => return Err(format!("mutation {round} was refused: {}\n{}", read.said.trim(), texts())),
            Some(other) => {
                if let Some(difference) = difference(&model, &other) {
                    return Err(format!("mutation {round} differs {difference}\n{}", texts()));
                }
            }
        }
    }
    Ok(())
}

/// Files of the project that the model refers to stay beside the new compose files.
fn rewritten(project: &Project, model: &Value, chance: &mut Chance) -> Project {
    let mut model = model.clone();
    escape(&mut model);
    swap(&mut model, chance);
    let mut files = project.files.clone();
    let mut arguments = Vec::new();
    let halves = if chance.says_yes() { split(&model, chance) } else { vec![model] };
    for (at, half) in halves.iter().enumerate() {
        let name = format!("mutated-{at}.yaml");
        let mut text = String::new();
        write(half, chance, &mut text);
        files.insert(name.clone(), text);
        arguments.push(name);
    }
    // The model has no profiles that are not active, so every service of it is wanted.
    Project {
        files,
        arguments: [arguments, vec!["--profile".to_owned(), "*".to_owned()]].concat(),
        environment: project.environment.clone(),
    }
}

/// A dollar sign of the model is text; in a file it would begin a variable. The folder of the project is one in both.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('$', "$$").replace("$$DIR", PLACEHOLDER),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(entries) => entries.values_mut().for_each(escape),
        _ => {}
    }
}

/// Puts what has two forms into the other one, here and there.
fn swap(model: &mut Value, chance: &mut Chance) {
    for top in ["networks", "volumes"] {
        for (_, declared) in entries(model.get_mut(top)) {
            replace(declared, "labels", chance, as_list);
        }
    }
    for (_, service) in entries(model.get_mut("services")) {
        if let Some(limits) = service.get_mut("blkio_config") {
            uncapitalise(limits);
        }
        for key in ["environment", "labels", "annotations", "sysctls"] {
            replace(service, key, chance, as_list);
        }
        for key in ["command", "entrypoint"] {
            replace(service, key, chance, as_line);
        }
        for key in ["dns", "dns_search", "tmpfs"] {
            replace(service, key, chance, as_single);
        }
        replace(service, "networks", chance, as_names);
        replace(service, "depends_on", chance, as_dependencies);
        replace(service, "extra_hosts", chance, as_hosts);
        if let Some(build) = service.get_mut("build") {
            replace(build, "args", chance, as_list);
            replace(build, "labels", chance, as_list);
        }
        replace(service, "build", chance, as_context);
        if let Some(check) = service.get_mut("healthcheck") {
            replace(check, "test", chance, as_shell);
        }
        for (key, short) in [("ports", as_port as fn(&Value) -> Option<Value>), ("volumes", as_mount)] {
            for item in service.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                if chance.says_yes()
                    && let Some(other) = short(item)
                {
                    *item = other;
                }
            }
        }
    }
}

fn entries(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    value.and_then(Value::as_object_mut).into_iter().flatten()
}

fn replace(holder: &mut Value, key: &str, chance: &mut Chance, form: fn(&Value) -> Option<Value>) {
    if let Some(value) = holder.get_mut(key)
        && chance.says_yes()
        && let Some(other) = form(value)
    {
        *value = other;
    }
}

/// The reference loader prints what is below `blkio_config` with capitals, which it does not read.
fn uncapitalise(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(uncapitalise),
        Value::Object(entries) => {
            *entries = std::mem::take(entries).into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
            entries.values_mut().for_each(uncapitalise);
        }
        _ => {}
    }
}

/// A mapping of texts as a list of `key=value`.
fn as_list(value: &Value) -> Option<Value> {
    let pairs = value.as_object()?.iter().map(|(key, value)| match value {
        Value::Null => Some(key.clone()),
        Value::String(text) => Some(format!("{key}={text}")),
        _ => None,
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    pairs.filter(|pairs| !pairs.is_empty()).map(Value::from)
}

/// A mapping that says nothing but names as a list of them.
fn as_names(value: &Value) -> Option<Value> {
    let mapping = value.as_object()?;
    mapping.values().all(Value::is_null).then(|| mapping.keys().cloned().collect())
}

fn as_dependencies(value: &Value) -> Option<Value> {
    let mapping = value.as_object()?;
    let usual = json!({"condition": "service_started", "required": true});
    mapping.values().all(|dependency| *dependency == usual).then(|| mapping.keys().cloned().collect())
}

/// `host=address` in a list as a mapping.
fn as_hosts(value: &Value) -> Option<Value> {
    let mut mapping = Map::new();
    for item in value.as_array()? {
        let (host, address) = item.as_str()?.split_once('=')?;
        if mapping.insert(host.to_owned(), address.into()).is_some() {
            return None;
        }
    }
    Some(Value::Object(mapping))
}

/// Words that no quoting is needed for as a line of them.
fn as_line(value: &Value) -> Option<Value> {
    let words: Option<Vec<_>> = value.as_array()?.iter().map(Value::as_str).collect();
    let words = words.filter(|words| !words.is_empty())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    words.iter().all(|word| !word.is_empty() && word.chars().all(plain)).then(|| words.join(" ").into())
}

fn as_single(value: &Value) -> Option<Value> {
    match value.as_array()?.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

fn as_context(value: &Value) -> Option<Value> {
    let build = value.as_object()?;
    let usual = build.len() == 2 && build.get("dockerfile").is_some_and(|file| file == "Dockerfile");
    usual.then(|| build.get("context").cloned()).flatten()
}

fn as_shell(value: &Value) -> Option<Value> {
    match value.as_array()?.as_slice() {
        [form, line] if form == "CMD-SHELL" => Some(line.clone()),
        _ => None,
    }
}

fn as_port(value: &Value) -> Option<Value> {
    let port = value.as_object()?;
    let known = ["mode", "host_ip", "target", "published", "protocol"];
    if port.keys().any(|key| !known.contains(&key.as_str())) || port.get("mode").is_some_and(|mode| mode != "ingress") {
        return None;
    }
    let of = |key: &str| port.get(key).and_then(Value::as_str);
    let mut text = match of("host_ip") {
        Some(address) if address.contains(':') => format!("[{address}]:"),
        Some(address) => format!("{address}:"),
        None => String::new(),
    };
    match of("published") {
        Some(published) => text.push_str(&format!("{published}:")),
        None if !text.is_empty() => text.push(':'),
        None => {}
    }
    Some(format!("{text}{}/{}", port.get("target")?.as_u64()?, of("protocol")?).into())
}

fn as_mount(value: &Value) -> Option<Value> {
    let mount = value.as_object()?;
    let kind = mount.get("type")?.as_str()?;
    let known = ["type", "source", "target", "read_only", kind];
    let usual = mount.keys().all(|key| known.contains(&key.as_str())) && mount.get(kind) == Some(&json!({}));
    let (source, target) = (mount.get("source")?.as_str()?, mount.get("target")?.as_str()?);
    let plain = |text: &str| text.len() > 2 && !text.contains([':', '$']);
    let kinds_agree = source.starts_with('/') == (kind == "bind") && matches!(kind, "bind" | "volume");
    let mode = if mount.get("read_only").and_then(Value::as_bool).unwrap_or(false) { ":ro" } else { "" };
    (usual && kinds_agree && plain(source) && plain(target)).then(|| format!("{source}:{target}{mode}").into())
}

/// Cuts a project in two that merge to it: what a mapping has is in one or the other, at the top, in each service and in the
/// variables and labels of services.
fn split(model: &Value, chance: &mut Chance) -> Vec<Value> {
    let (mut one, mut other) = halves(model, chance, &["services"]);
    let services = |half: &mut Value| match half.get_mut("services").map(Value::take) {
        Some(Value::Object(services)) => services,
        _ => Map::new(),
    };
    let (of_one, of_other) = (services(&mut one), services(&mut other));
    let (mut first, mut second) = (Map::new(), Map::new());
    for (name, service) in of_one.into_iter().chain(of_other) {
        let cut = ["environment", "labels"];
        let (a, b) = halves(&service, chance, &cut);
        first.insert(name.clone(), a);
        second.insert(name, b);
    }
    for (half, services) in [(&mut one, first), (&mut other, second)] {
        if let Some(half) = half.as_object_mut() {
            half.insert("services".to_owned(), services.into());
        }
    }
    vec![one, other]
}

/// Two mappings with the entries of one. Mappings that are named in `cut` are cut themselves.
fn halves(value: &Value, chance: &mut Chance, cut: &[&str]) -> (Value, Value) {
    let (mut one, mut other) = (Map::new(), Map::new());
    for (key, value) in value.as_object().into_iter().flatten() {
        if cut.contains(&key.as_str()) && value.as_object().is_some_and(|value| value.len() > 1) {
            let (a, b) = halves(value, chance, &[]);
            for (half, part) in [(&mut one, a), (&mut other, b)] {
                if part.as_object().is_some_and(|part| !part.is_empty()) {
                    half.insert(key.clone(), part);
                }
            }
        } else if chance.says_yes() {
            one.insert(key.clone(), value.clone());
        } else {
            other.insert(key.clone(), value.clone());
        }
    }
    (one.into(), other.into())
}

/// JSON with the entries of every mapping in any order. YAML reads it as it stands.
fn write(value: &Value, chance: &mut Chance, out: &mut String) {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            chance.shuffle(&mut entries);
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(&format!("{}: ", Value::from(key.as_str())));
                write(value, chance, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write(item, chance, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Chance that can be repeated: xorshift64* (Vigna, 2014).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn says_yes(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let with = usize::try_from(self.next() % (at as u64 + 1)).unwrap_or(0);
            items.swap(at, with);
        }
    }
}
