//! Rows about a proxy in front of one app, as a tutorial sets it up by labels: everything that comes over HTTP or to `www.` is
//! sent to HTTPS without `www.`; the app and a dashboard behind a password are at a name of their own.

use coracle_proxy_table::Dialect;
use serde_json::json;

use crate::cases::{Row, is_set, text};
use crate::expectation::same_url;
use crate::report::Verdict;
use crate::request::Request;
use crate::subject::{PLAIN, Setting, Subjects, TLS, Wanted};

/// Where the app is.
const APP: &str = "app.example.test";
/// Where the dashboard is.
const DASHBOARD: &str = "proxy.example.test";

pub(crate) async fn verdict(row: &Row, subjects: &mut Subjects) -> Verdict {
    let asked = text(row, "request").ok_or("the row asks for nothing")?;
    let (method, url) = asked.split_once(' ').ok_or_else(|| format!("{asked:?} is no request"))?;
    let expect = &row["expect"];
    // Whether it takes a rule does not depend on how it listens; all else does.
    let setting = Setting { tls: method != "rule", ..Setting::default() };
    if method == "rule" {
        let rule = Wanted::new("rule", url, Dialect::V2);
        let published = subjects.publish(&setting, &[rule], None).await.map_err(|error| format!("{error:#}"))?;
        return match (is_set(expect, "accepted"), published) {
            (true, Ok(())) | (false, Err(_)) => Ok(()),
            (true, Err(refused)) => Err(format!("the rule was refused: {}", refused.why)),
            (false, Ok(())) => Err("expected the rule to be refused, but it was taken".to_owned()),
        };
    }
    let request = Request::new(method, url);
    let published = subjects
        .publish(&setting, &routes(), request.url.tls.then(|| request.url.host()))
        .await
        .map_err(|error| format!("{error:#}"))?;
    published.map_err(|refused| format!("the table was refused: {}", refused.why))?;
    let answer = subjects.ask(&setting, &request).await.map_err(|error| format!("{error:#}"))?;
    let status = u64::from(answer.status);
    if expect["status"].as_u64().is_some_and(|expected| expected != status) {
        return Err(format!("expected status {}, got {status}", expect["status"]));
    }
    match (text(expect, "location"), &answer.values("Location")[..]) {
        (Some(expected), [got]) if same_url(expected, got) => Ok(()),
        (Some(expected), got) => Err(format!("expected Location {expected:?}, got {got:?}")),
        (None, _) => Ok(()),
    }
}

fn routes() -> Vec<Wanted> {
    let redirect = json!({ "redirect-regex": {
        "regex": r"^https?://(?:www\.)?(.+)", "replacement": "https://${1}", "permanent": true
    } });
    let route = |id: &str, rule: &str, listener: &str| {
        let mut route = Wanted::new(id, rule, Dialect::V2);
        route.listeners = vec![listener.to_owned()];
        route
    };
    let mut plain = route("http-redirects", r"hostregexp(`{host:(www\.)?.+}`)", PLAIN);
    let mut www = route("www-redirects", r"hostregexp(`{host:(www\.).+}`)", TLS);
    for redirecting in [&mut plain, &mut www] {
        (redirecting.middlewares, redirecting.leads_on) = (vec![redirect.clone()], false);
    }
    let mut dashboard = route("dashboard", &format!("Host(`{DASHBOARD}`)"), TLS);
    // ann, with a password that no row knows.
    let users = ["ann:$apr1$Vd0zLkqX$8a1bQW8mDqg1l3yN0Zbq1/"];
    dashboard.middlewares = vec![json!({ "basic-auth": { "users": users } })];
    vec![plain, www, dashboard, route("app", &format!("Host(`{APP}`)"), TLS)]
}
