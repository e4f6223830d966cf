//! Rules whose meaning others have written down, read in place where they are there (`CASES`, or `shared/cases` beside the
//! repository). What they look like is said in the README of that folder.

use std::path::PathBuf;

use coracle_proxy_rules::{Dialect, Router, Rule, domains};
use serde_json::Value;

use crate::request::{Request, get};

#[test]
fn published_cases_hold() {
    let folder = std::env::var_os("CASES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases")), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("traefik/rules.jsonl")) else { return };
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failures: Vec<String> =
        rows.iter().filter_map(|row| row_holds(row).err().map(|why| format!("{}: {why}", row["id"]))).collect();
    assert!(failures.is_empty(), "{} of {} fail\n{}", failures.len(), rows.len(), failures.join("\n"));
}

fn row_holds(row: &Value) -> Result<(), String> {
    let dialect = if row["dialect"] == "v2" { Dialect::V2 } else { Dialect::V3 };
    if let Some(routes) = row["routes"].as_array() {
        return priorities_hold(routes, &row["probes"], dialect);
    }
    let text = row["rule"].as_str().unwrap();
    if let Some(expected) = row["expect_domains"].as_array() {
        let found = domains(text).map_err(|error| error.to_string())?;
        return if found.iter().eq(expected.iter()) { Ok(()) } else { Err(format!("{found:?}")) };
    }
    let rule = Rule::parse(text, dialect);
    if row["expect"] == "rule_error" {
        return if rule.is_err() { Ok(()) } else { Err(format!("{text} was taken")) };
    }
    let rule = rule.map_err(|error| error.to_string())?;
    for probe in row["probes"].as_array().unwrap() {
        if rule.matches(&request(probe)) != (probe["expect"] == "match") {
            return Err(format!("{text} and {probe}"));
        }
    }
    Ok(())
}

fn priorities_hold(routes: &[Value], probes: &Value, dialect: Dialect) -> Result<(), String> {
    let routes = routes.iter().map(|route| {
        let rule = Rule::parse(route["rule"].as_str().unwrap(), dialect).unwrap();
        let priority = match route["priority"].as_i64() {
            Some(0) | None => rule.priority(),
            Some(given) => given,
        };
        (rule, priority, route["name"].as_str().unwrap())
    });
    let router = Router::new(routes);
    for probe in probes.as_array().unwrap() {
        let found = router.find(&request(probe)).copied();
        if found != probe["expect_route"].as_str() {
            return Err(format!("{found:?} for {probe}"));
        }
    }
    Ok(())
}

fn request(probe: &Value) -> Request {
    if let Some(raw) = probe["raw"].as_str() {
        return from_raw(raw);
    }
    let mut request = get(probe["url"].as_str().unwrap()).method(probe["method"].as_str().unwrap());
    for header in probe["headers"].as_array().into_iter().flatten() {
        request = request.header(header[0].as_str().unwrap(), header[1].as_str().unwrap());
    }
    if let Some(client) = probe["remote_addr"].as_str() {
        let address = client.parse::<std::net::SocketAddr>().map_or_else(|_| client.to_owned(), |addr| addr.ip().to_string());
        // One that is no address stands for a client that no rule names.
        request = request.from(if address.parse::<std::net::IpAddr>().is_ok() { &address } else { "203.0.113.255" });
    }
    request
}

/// A request line with an absolute target names the host, unless it names none.
fn from_raw(raw: &str) -> Request {
    let mut lines = raw.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap(), first.next().unwrap());
    let host = lines.find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default();
    let url = target.replacen("://@", "://", 1);
    let request = get(&url).method(method);
    if request.host.is_empty() { get(&format!("{host}{}", request.path)).method(method) } else { request }
}
