//! What must hold for any text, one function for each syntax. Each panics if it does not hold, and returns whether the text was
//! taken. Used by the test beside this file and by the targets in `fuzz/`.

use std::collections::BTreeMap;

use coracle_compose::{Loaded, Options, dotenv, duration, interpolation, load, ports, size, volumes, words};
use serde_json::Value;

fn lookup(name: &str) -> Option<String> {
    match name {
        "A" => Some("a value".to_owned()),
        "EMPTY" => Some(String::new()),
        "DOLLAR" => Some("${A} $$".to_owned()),
        _ => None,
    }
}

/// A text whose dollar signs are doubled comes back; what is taken names each missing variable by a name.
pub fn template(text: &str) -> bool {
    let escaped = interpolation::interpolate(&text.replace('$', "$$"), &lookup).expect("doubled dollar signs are text");
    assert_eq!((escaped.text.as_str(), escaped.missing.as_slice()), (text, &[][..]));
    let Ok(taken) = interpolation::interpolate(text, &lookup) else { return false };
    assert!(taken.missing.iter().all(|name| !name.is_empty() && text.contains(name.as_str()) && lookup(name).is_none()));
    true
}

/// Keys are single words, each once, and errors are on a line that exists.
pub fn environment(text: &str) -> bool {
    match dotenv::parse(text, &lookup) {
        Ok(entries) => {
            let keys: std::collections::BTreeSet<_> = entries.iter().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), entries.len());
            assert!(keys.iter().all(|key| !key.contains([' ', '=', '\n'])));
            // Written with single quotes, which nothing is expanded in, they are read as the same.
            let plain = entries
                .iter()
                .filter(|(key, value)| !key.is_empty() && value.as_ref().is_some_and(|v| !v.contains(['\'', '\\'])));
            let plain: Vec<_> = plain.cloned().collect();
            let written: String =
                plain.iter().map(|(key, value)| format!("{key}='{}'\n", value.as_deref().unwrap_or_default())).collect();
            assert_eq!(dotenv::parse(&written, &lookup).as_ref(), Ok(&plain), "{written:?}");
            true
        }
        Err(error) => {
            assert!((1..=text.matches('\n').count() + 1).contains(&error.line()), "{error}");
            false
        }
    }
}

/// The short forms of a service's keys. What is taken and printed is taken again, and is the same.
pub fn short_forms(text: &str) -> bool {
    let duration = duration::parse(text);
    if let Ok(duration) = duration {
        assert_eq!(duration::parse(&duration.to_string()), Ok(duration));
    }
    let size = size::parse(text);
    if let Ok(bytes) = size {
        assert!(bytes >= 0);
    }
    let words = words::split(text);
    if let Ok(words) = &words {
        let quoted: Vec<_> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        assert_eq!(words::split(&quoted.join(" ")).as_ref(), Ok(words));
    }
    let ports = ports::parse(text);
    for port in ports.iter().flatten() {
        let address = if port.host_ip.contains(':') { format!("[{}]", port.host_ip) } else { port.host_ip.clone() };
        let written = format!("{address}:{}:{}/{}", port.published, port.target, port.protocol);
        assert_eq!(ports::parse(&written).as_deref(), Ok(std::slice::from_ref(port)));
    }
    let mount = volumes::parse(text);
    if let Ok(mount) = &mount {
        assert!(!mount.target.is_empty());
        assert_eq!(
            mount.kind == volumes::MountKind::Bind,
            mount.bind.is_some() && !mount.source.is_empty() && is_path(&mount.source)
        );
    }
    duration.is_ok() || size.is_ok() || words.is_ok() || ports.is_ok() || mount.is_ok()
}

fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~']) || source.starts_with("\\\\") || source.chars().nth(1) == Some(':')
}

/// A compose file on standard input, in a directory where no other file is.
fn loaded(text: String) -> Result<Loaded, coracle_compose::ComposeError> {
    load(&Options {
        files: vec!["-".into()],
        profiles: vec!["*".to_owned()],
        environment: BTreeMap::from([("A".to_owned(), "a value".to_owned())]),
        working_dir: "/nowhere/project".into(),
        stdin: Some(text),
        ..Options::default()
    })
}

/// A compose file that is taken comes to a model that is a compose file, too, and comes to itself. One that is refused has its
/// mistake on a line that exists.
pub fn compose_file(text: &str) -> bool {
    match loaded(text.to_owned()) {
        Ok(first) => {
            if !text.contains("blkio_config") {
                let again = loaded(doubled(&first.value).to_string());
                let again = again.unwrap_or_else(|error| panic!("the model is refused: {error}\n{}", first.value));
                assert_eq!(again.value, first.value);
            }
            assert!(first.to_yaml().ends_with('\n'));
            true
        }
        Err(error) => {
            assert!(!error.message.is_empty());
            if let Some(position) = &error.position {
                let lines = text.lines().count().max(1) + 1;
                assert!(position.column > 0 && (1..=lines).contains(&(position.line as usize)), "{error}");
            }
            false
        }
    }
}

/// Dollar signs of a model are text; in a file they would begin variables.
fn doubled(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('$', "$$").into(),
        Value::Array(items) => items.iter().map(doubled).collect(),
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), doubled(value))).collect(),
        other => other.clone(),
    }
}
