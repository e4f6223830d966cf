//! Rows about rules: what they match, which of several routes gets a request, which texts are no rules, and which host names
//! they are about.

use std::collections::BTreeSet;

use coracle_proxy_table::{CertificateSource, Dialect};
use serde_json::Value;

use crate::cases::{Row, text, texts};
use crate::report::Verdict;
use crate::request::{Request, SOMEBODY, address};
use crate::subject::{Setting, Subjects, Wanted};
use crate::wire::Answer;

/// The id of a case's only route.
const ONLY: &str = "route";

pub(crate) async fn verdict(row: &Row, subjects: &mut Subjects) -> Verdict {
    // Rules on forwarded fields see what the client sent only if it is believed.
    let setting = Setting::believing_everybody();
    let dialect = dialect(row)?;
    let routes = routes(row, dialect)?;
    let published = subjects.publish(&setting, &routes, None).await.map_err(|error| format!("{error:#}"))?;
    if let Some(expected) = row.get("expect_domains") {
        // A rule that is refused is about no names.
        let names = match published {
            Ok(()) => subjects.certificate_names(&setting).await.map_err(|error| format!("{error:#}"))?,
            Err(_) => Vec::new(),
        };
        let (expected, names) = (BTreeSet::from_iter(texts(expected)), BTreeSet::from_iter(names));
        return if expected == names { Ok(()) } else { Err(format!("expected certificates for {expected:?}, got {names:?}")) };
    }
    let wants_error = [text(row, "expect"), text(row, "rule_error")].into_iter().flatten().any(|word| word == "rule_error")
        || row.get("rule_error").and_then(Value::as_bool).unwrap_or(false);
    match (wants_error, published) {
        (true, Err(refused)) if (400..500).contains(&refused.status) => return Ok(()),
        (true, Err(refused)) => return Err(format!("expected a refusal, got status {}: {}", refused.status, refused.why)),
        (true, Ok(())) => return Err("expected the rule to be refused, but it was taken".to_owned()),
        (false, Err(refused)) => return Err(format!("the rule was refused: {}", refused.why)),
        (false, Ok(())) => {}
    }
    let probes = row["probes"].as_array().ok_or("the row has no probes")?;
    for probe in probes {
        probed(probe, &routes, &setting, subjects).await?;
    }
    Ok(())
}

fn dialect(row: &Row) -> Result<Dialect, String> {
    match text(row, "dialect") {
        Some("v3") | None => Ok(Dialect::V3),
        Some("v2") => Ok(Dialect::V2),
        Some(other) => Err(format!("there is no dialect {other:?}")),
    }
}

fn routes(row: &Row, dialect: Dialect) -> Result<Vec<Wanted>, String> {
    if let Some(rule) = text(row, "rule") {
        let mut only = Wanted::new(ONLY, rule, dialect);
        if row.get("expect_domains").is_some() {
            only.certificate = CertificateSource::Local;
        }
        return Ok(vec![only]);
    }
    let routes = row["routes"].as_array().ok_or("the row has neither a rule nor routes")?;
    let wanted = |route: &Value| {
        let (name, rule) = text(route, "name").zip(text(route, "rule")).ok_or("a route without a name or a rule")?;
        let mut wanted = Wanted::new(name, rule, dialect);
        // Traefik's zero is "none given".
        wanted.priority = route["priority"].as_i64().filter(|priority| *priority != 0);
        Ok(wanted)
    };
    routes.iter().map(wanted).collect()
}

async fn probed(probe: &Value, routes: &[Wanted], setting: &Setting, subjects: &mut Subjects) -> Verdict {
    let mut request = Request::new(text(probe, "method").unwrap_or("GET"), text(probe, "url").unwrap_or_default());
    // No matcher asks for TLS, and a probe's host needs no certificate without it.
    request.url.tls = false;
    if let Some(client) = text(probe, "remote_addr") {
        // Whoever connects has an address; where the case has none, it is that of somebody nobody names.
        request.client = address(client).unwrap_or(SOMEBODY);
    }
    for pair in probe["headers"].as_array().into_iter().flatten() {
        let (name, value) = pair[0].as_str().zip(pair[1].as_str()).ok_or("a header without a name or a value")?;
        match name.eq_ignore_ascii_case("host") {
            true => value.clone_into(&mut request.url.authority),
            false => request = request.with(name, value),
        }
    }
    let asked = match text(probe, "raw") {
        Some(raw) => subjects.ask_raw(setting, &request, raw.as_bytes()).await,
        None => subjects.ask(setting, &request).await,
    };
    let what = text(probe, "raw").or(text(probe, "url")).unwrap_or_default();
    let answer = asked.map_err(|error| format!("{what:?}: {error:#}"))?;
    judge(probe, routes, &answer).map_err(|why| {
        let headers = if probe["headers"].is_null() { String::new() } else { format!(" with {}", probe["headers"]) };
        format!("{} {what:?}{headers}: {why}", request.method)
    })
}

fn judge(probe: &Value, routes: &[Wanted], answer: &Answer) -> Verdict {
    let got = match answer.seen() {
        Some(seen) => routes.get(seen.upstream).map(|route| route.id.as_str()),
        None => None,
    };
    let expected = match (text(probe, "expect"), text(probe, "expect_route")) {
        (_, Some(route)) => Some(route),
        (Some("match"), None) => Some(ONLY),
        (Some("no_match"), None) => None,
        (other, None) => return Err(format!("the probe expects {other:?}")),
    };
    match (expected, got) {
        (Some(expected), Some(got)) if expected == got => Ok(()),
        // What is no request is led nowhere either.
        (None, None) if matches!(answer.status, 400 | 404 | 421) => Ok(()),
        (expected, got) => {
            let word = |route: Option<&str>| route.map_or("no route".to_owned(), |route| format!("route {route:?}"));
            Err(format!("expected {}, got {} (status {})", word(expected), word(got), answer.status))
        }
    }
}
