//! Rows about containers' labels: what routers, services and middlewares they come to, in Traefik's words. Containers are given
//! to `coracle proxy labels` as `docker inspect` prints them.
//!
//! Rows leave out a little of what the tests say that they come from, and what they say themselves fills it in: the default rule
//! of a whole test stands where a row has none, whether containers that do not run are kept is in the row's description, and
//! the addresses at which ports are published are those at which servers are expected.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::cases::{Row, id, is_set, text, texts};
use crate::report::Verdict;

/// How long the program may take for a row.
const PATIENCE: Duration = Duration::from_secs(30);

/// The default rules of whole tests, by the end of their names; rows of other tests that have none want the usual one.
const DEFAULT_RULES: &[(&str, &str)] = &[("_DefaultRule", ""), ("_build", "Host(`{{ normalize .Name }}.traefik.wtf`)")];

/// What a row's options and containers may have; a row with something else cannot pass, since nobody looks at it.
const OPTIONS: &[&str] = &["allowEmptyServices", "constraints", "defaultRule", "exposedByDefault", "network", "useBindPortIP"];
const CONTAINERS: &[&str] = &["addr", "health", "id", "labels", "name", "networkMode", "networks", "ports", "service", "state"];

pub(crate) async fn verdict(row: &Row, directory: &Path, program: &Path) -> Verdict {
    understood(&row["options"], OPTIONS)?;
    let containers = row["containers"].as_array().ok_or("the row has no containers")?;
    let inspected = containers.iter().enumerate().map(|(at, container)| inspected(row, at, container));
    let inspected: Vec<Value> = inspected.collect::<Result<_, _>>()?;
    let file = directory.join(format!("{}.json", id(row)));
    std::fs::write(&file, json!(inspected).to_string()).map_err(|error| error.to_string())?;
    let said = ask(row, &file, program).await?;
    let expect = &row["expect"];
    same("routers", &named(&expect["routers"]), &named(&said["routers"]))?;
    same("services", &named(&expect["services"]), &services(&said["services"], &expect["services"]))?;
    same("middlewares", &named(&expect["middlewares"]), &named(&said["middlewares"]))
}

fn understood(value: &Value, known: &[&str]) -> Verdict {
    match value.as_object().into_iter().flatten().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(format!("nobody looks at the row's {name:?}")),
        None => Ok(()),
    }
}

async fn ask(row: &Row, file: &Path, program: &Path) -> Result<Value, String> {
    let options = &row["options"];
    let mut command = Command::new(program);
    command.args(["proxy", "labels", "--json", "--containers"]).arg(file);
    if options["exposedByDefault"].as_bool().unwrap_or(true) {
        command.arg("--exposed-by-default");
    }
    let of_test = || {
        let source = text(row, "src")?;
        DEFAULT_RULES.iter().find(|(end, _)| source.ends_with(end)).map(|(_, rule)| *rule)
    };
    if let Some(rule) = text(options, "defaultRule").or_else(of_test) {
        command.args(["--default-rule", rule]);
    }
    for (name, option) in [("constraints", "--constraints"), ("network", "--container-network")] {
        if let Some(value) = text(options, name).filter(|value| !value.is_empty()) {
            command.args([option, value]);
        }
    }
    for (name, option) in [("allowEmptyServices", "--allow-empty-services"), ("useBindPortIP", "--use-bind-port-ip")] {
        if is_set(options, name) {
            command.arg(option);
        }
    }
    command.env_clear().env("PATH", coracle_tests::program::PATH).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.map_err(|_| "the program does not end")?;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("refused: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("no JSON: {error}"))
}

/// A container as `docker inspect` prints it.
fn inspected(row: &Row, at: usize, container: &Value) -> Result<Value, String> {
    understood(container, CONTAINERS)?;
    let name = text(container, "service").or(text(container, "name")).unwrap_or_default();
    let mut labels = container["labels"].as_object().cloned().unwrap_or_default();
    if text(row, "desc").is_some_and(|desc| desc.contains("allowNonRunning=true")) {
        labels.insert("traefik.docker.allownonrunning".to_owned(), json!("true"));
    }
    let mut state = json!({ "Status": text(container, "state").unwrap_or("running") });
    if let Some(health) = text(container, "health").filter(|health| !health.is_empty()) {
        state["Health"] = json!({ "Status": health });
    }
    Ok(json!({
        // Where the row gives none, containers are in the order of the row.
        "Id": text(container, "id").map_or_else(|| format!("{at:04}"), str::to_owned),
        "Name": format!("/{name}"),
        "State": state,
        "Config": { "Labels": labels },
        "HostConfig": { "NetworkMode": text(container, "networkMode").unwrap_or("bridge") },
        "NetworkSettings": { "Ports": ports(row, container), "Networks": networks(container) },
    }))
}

fn networks(container: &Value) -> Value {
    let endpoint = |address: &str| match address.contains(':') {
        true => json!({ "IPAddress": "", "GlobalIPv6Address": address }),
        false => json!({ "IPAddress": address }),
    };
    if let Some(named) = container["networks"].as_object() {
        let named = named.iter().map(|(name, address)| (name.clone(), endpoint(address.as_str().unwrap_or_default())));
        return Value::Object(named.collect());
    }
    let addresses = texts(&container["addr"]);
    let name = |at: usize| if at == 0 { "bridge".to_owned() } else { format!("network-{at}") };
    Value::Object(addresses.iter().enumerate().map(|(at, address)| (name(at), endpoint(address))).collect())
}

fn ports(row: &Row, container: &Value) -> Value {
    let ports = texts(&container["ports"]);
    let mut bound: Map<String, Value> = ports.iter().map(|port| (port.clone(), Value::Null)).collect();
    if let Some(((ip, number), port)) = published(row, container).zip(chosen(&ports, container)) {
        bound.insert(port, json!([{ "HostIp": ip, "HostPort": number }]));
    }
    Value::Object(bound)
}

/// The address and the port at which the row expects a server that are not the container's own: there it is published.
fn published<'a>(row: &'a Row, container: &Value) -> Option<(&'a str, &'a str)> {
    let own = texts(&container["addr"]);
    let services = row["expect"]["services"].as_object().into_iter().flatten();
    let servers = services.filter_map(|(_, service)| service["servers"].as_array()).flatten().filter_map(Value::as_str);
    let places = servers.filter_map(|url| url.split_once("://")?.1.rsplit_once(':'));
    let mut elsewhere = places.filter(|(address, _)| !own.iter().any(|own| own == address));
    is_set(&row["options"], "useBindPortIP").then(|| elsewhere.next()).flatten()
}

/// The port that requests go to: the one a label names, or the lowest.
fn chosen(ports: &[String], container: &Value) -> Option<String> {
    let number = |port: &String| port.split('/').next().and_then(|number| number.parse::<u16>().ok());
    let labels = container["labels"].as_object().into_iter().flatten();
    let mut labels =
        labels.filter(|(name, _)| name.to_ascii_lowercase().ends_with(".server.port")).filter_map(|(_, it)| it.as_str());
    let named = labels.next().and_then(|port| port.parse::<u16>().ok());
    let of_label = ports.iter().find(|port| named.is_some() && number(port) == named);
    of_label.or_else(|| ports.iter().min_by_key(|port| number(port))).cloned()
}

/// Services in the rows' words: a load balancer's settings with the URLs of its servers; of settings, those that the row names.
fn services(said: &Value, expected: &Value) -> Value {
    let one = |(name, service): (&String, &Value)| {
        let balancer = &service["loadBalancer"];
        let servers = balancer["servers"].as_array().into_iter().flatten();
        let servers: Vec<Value> = servers.map(|server| server["url"].clone()).collect();
        let mut settings = balancer.clone();
        settings["servers"] = json!(servers);
        let (mut settings, wanted) = (tidy(&settings), tidy(&expected[name]));
        if let (Some(settings), Some(wanted)) = (settings.as_object_mut(), wanted.as_object()) {
            settings.retain(|setting, _| wanted.contains_key(setting) || setting == "servers");
        }
        (name.clone(), settings)
    };
    Value::Object(said.as_object().into_iter().flatten().map(one).collect())
}

/// Things by name, each tidied; the names are people's.
fn named(things: &Value) -> Value {
    let things = things.as_object().into_iter().flatten();
    Value::Object(things.map(|(name, thing)| (name.clone(), tidy(thing))).collect())
}

/// Names of settings in small letters, and none that has Go's zero value, since rows have both.
fn tidy(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let is_set = |member: &Value| {
                !matches!(member, Value::Null | Value::Bool(false)) && ![json!(0), json!(""), json!([])].contains(member)
            };
            let tidied = members.iter().map(|(name, member)| (name.to_ascii_lowercase(), tidy(member)));
            Value::Object(tidied.filter(|(_, member)| is_set(member)).collect())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(tidy).collect()),
        other => other.clone(),
    }
}

fn same(what: &str, expected: &Value, got: &Value) -> Verdict {
    if expected == got { Ok(()) } else { Err(format!("expected the {what} {expected}, got {got}")) }
}
