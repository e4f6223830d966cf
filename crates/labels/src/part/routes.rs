//! Routers as routes.

use std::collections::BTreeMap;

use coracle_proxy_rules as rules;
use coracle_proxy_table::{
    CertificateSource, Dialect, Middleware, MiddlewareId, RedirectScheme, Route, RouteId, ServiceId, Table,
};

use super::middlewares::Middlewares;
use super::{Entrance, Notes, Reference, global};
use crate::configuration::{Configuration, Kind};
use crate::dynamic::{Router, RouterTls};
use crate::options::Options;

/// As far as labels can put a route before others, or behind them. Whoever publishes it among routes that are not of labels has
/// steps that are wider.
const HIGHEST: i64 = u32::MAX as i64;

/// Adds the routes, with the middlewares they go through. What they lead to is in the table's services later.
pub(super) fn add(
    table: &mut Table,
    configuration: &Configuration,
    middlewares: &Middlewares,
    options: &Options,
    entrance: Entrance,
    notes: &mut Notes,
) -> BTreeMap<RouteId, Vec<String>> {
    let mut made = Vec::new();
    for (name, router) in &configuration.routers {
        let containers = configuration.router_sources.get(name);
        let about = || format!("router {name}");
        let mut said = Vec::new();
        let one = One { name, router, configuration, middlewares, options, entrance };
        match one.route(&mut said) {
            Ok((route, rule, passed)) => {
                table.middlewares.extend(passed);
                made.push((route, rule, containers.cloned().unwrap_or_default()));
            }
            Err(why) => notes.add(Kind::Refused, containers, about(), why),
        }
        for message in said {
            notes.add(Kind::Unsupported, containers, about(), message);
        }
    }
    let redirects = if entrance.redirect { redirects(&made, entrance) } else { Vec::new() };
    if let Some(port) = entrance.tls_port.filter(|_| !redirects.is_empty()) {
        table.middlewares.insert(MiddlewareId(TO_TLS.to_owned()), to_tls(port));
    }
    let all = made.into_iter().map(|(route, _, containers)| (route, containers)).chain(redirects);
    all.map(|(route, containers)| {
        let id = route.id.clone();
        table.routes.push(route);
        (id, containers)
    })
    .collect()
}

struct One<'a> {
    name: &'a str,
    router: &'a Router,
    configuration: &'a Configuration,
    middlewares: &'a Middlewares,
    options: &'a Options,
    entrance: Entrance,
}

type Made = (Route, rules::Rule, Vec<(MiddlewareId, Middleware)>);

impl One<'_> {
    fn route(&self, said: &mut Vec<String>) -> Result<Made, String> {
        let router = self.router;
        let rule = self.rule()?;
        let wants_tls = self.wants_tls(said)?;
        let service = self.service()?;
        let passed = self.middlewares.of_list(&router.middlewares)?;
        let mut route = Route::new(global(self.name), router.rule.clone(), ServiceId(String::new()));
        route.service = service;
        route.dialect = if rule.dialect() == rules::Dialect::V2 { Dialect::V2 } else { Dialect::V3 };
        route.priority = Some(router.priority).filter(|priority| *priority != 0).map(|it| it.clamp(-HIGHEST, HIGHEST));
        route.tls = Some(wants_tls);
        route.middlewares = passed.iter().map(|(id, _)| id.clone()).collect();
        if wants_tls {
            route.certificate = self.certificate(&rule, said);
        }
        if router.observability.is_some() {
            said.push("observability has no effect: the proxy's own options say what is written down".to_owned());
        }
        if !router.parent_refs.is_empty() {
            said.push("parentRefs has no effect".to_owned());
        }
        Ok((route, rule, passed))
    }

    /// Read as it says it is written, or else in whichever dialect it can be read, the usual one first; the second one if it has
    /// what means something there only.
    fn rule(&self) -> Result<rules::Rule, String> {
        let usual = match self.options.dialect {
            Dialect::V2 => rules::Dialect::V2,
            Dialect::V3 => rules::Dialect::V3,
        };
        let dialects = match self.router.rule_syntax.to_ascii_lowercase().as_str() {
            "v2" => vec![rules::Dialect::V2],
            "v3" => vec![rules::Dialect::V3],
            "" if usual == rules::Dialect::V2 || has_named_pattern(&self.router.rule) => {
                vec![rules::Dialect::V2, rules::Dialect::V3]
            }
            "" => vec![rules::Dialect::V3, rules::Dialect::V2],
            other => return Err(format!("ruleSyntax {other:?} is neither v2 nor v3")),
        };
        let mut refusal = None;
        for dialect in dialects {
            match rules::Rule::parse(&self.router.rule, dialect) {
                Ok(rule) => return Ok(rule),
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        let why = refusal.map_or_else(String::new, |error| error.to_string());
        Err(format!("the rule {:?} cannot be read: {why}", self.router.rule))
    }

    /// Whether it takes requests over TLS (only them), by its `tls` and by where they come in.
    fn wants_tls(&self, said: &mut Vec<String>) -> Result<bool, String> {
        let (mut plain, mut secure) = (false, false);
        for name in &self.router.entry_points {
            match name.to_ascii_lowercase().as_str() {
                "web" | "http" => plain = true,
                "websecure" | "https" => secure = true,
                _ => said.push(format!("there is no entry point {name:?}; there are web (http) and websecure (https)")),
            }
        }
        if !self.router.entry_points.is_empty() && !plain && !secure {
            return Err("it takes requests from entry points only that there are not".to_owned());
        }
        let wants_tls = self.router.tls.is_some() || (secure && !plain);
        if wants_tls && plain && !secure {
            return Err("it wants requests over TLS from the entry point web, which has none".to_owned());
        }
        if wants_tls && self.entrance.tls_port.is_none() {
            said.push("it takes requests over TLS only, and the proxy does not listen for TLS (see --https)".to_owned());
        }
        Ok(wants_tls)
    }

    fn service(&self) -> Result<Option<ServiceId>, String> {
        let name = &self.router.service;
        match Reference::of(name) {
            Reference::Ours(name) if self.configuration.services.contains_key(name) => Ok(Some(ServiceId(global(name)))),
            // Routers whose middlewares answer lead there.
            Reference::Internal("noop") => Ok(None),
            Reference::Internal(_) => Err(format!("its service {name:?} is one of Traefik itself, which is not here")),
            _ => Err(format!("there is no service {name:?}")),
        }
    }

    fn certificate(&self, rule: &rules::Rule, said: &mut Vec<String>) -> CertificateSource {
        let hosts = rule.hosts();
        let usual = RouterTls::default();
        let tls = self.router.tls.as_ref().unwrap_or(&usual);
        if !tls.options.is_empty() {
            said.push(format!("tls.options={} has no effect: the proxy's own options are for everybody", tls.options));
        }
        let domains = tls.domains.iter().flat_map(|domain| std::iter::once(&domain.main).chain(&domain.sans));
        let known: Vec<String> = hosts.iter().cloned().chain(rule.wildcards()).collect();
        for name in domains.filter(|name| !known.contains(&name.to_ascii_lowercase())) {
            said.push(format!("tls.domains names {name}: certificates are for the names that the rule says, and no others"));
        }
        // Where the entry point alone says that there is TLS, it would say from where certificates come, too.
        let wants_order = self.router.tls.is_none() || !tls.cert_resolver.is_empty();
        let is_local = |host: &String| host == "localhost" || host.ends_with(".localhost");
        if !hosts.is_empty() && hosts.iter().all(is_local) {
            return CertificateSource::Local;
        }
        if wants_order && self.entrance.acme && !hosts.is_empty() {
            return CertificateSource::Acme;
        }
        if !tls.cert_resolver.is_empty() && self.entrance.tls_port.is_some() {
            let why =
                if hosts.is_empty() { "its rule says no host name" } else { "certificates are not ordered here (see --acme)" };
            said.push(format!("tls.certresolver={} has no effect: {why}", tls.cert_resolver));
        }
        CertificateSource::Given
    }
}

/// Whether a rule has a `{name:expression}` or a `{name}`, which version 2 matches by, and which in version 3 is a text that no
/// host and no path has.
fn has_named_pattern(rule: &str) -> bool {
    rule.match_indices('{').any(|(at, _)| {
        let is_class = rule[..at].ends_with(r"\p") || rule[..at].ends_with(r"\P");
        let inner = &rule[at + 1..];
        let name = inner.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').map(|end| inner.split_at(end));
        let begins = |name: &str| name.starts_with(|letter: char| letter.is_ascii_alphabetic());
        !is_class && name.is_some_and(|(name, after)| begins(name) && after.starts_with([':', '}']))
    })
}

/// The middleware that all redirects to TLS share.
const TO_TLS: &str = "to-tls@docker";

fn to_tls(port: u16) -> Middleware {
    Middleware::RedirectScheme(RedirectScheme { scheme: "https".to_owned(), port: Some(port), permanent: true })
}

/// A route for each router that is to be reached over TLS only and has hosts that no other router serves without: it sends those
/// who come without TLS there. Traefik takes its own static configuration for this, which is gone with it.
fn redirects(made: &[(Route, rules::Rule, Vec<String>)], entrance: Entrance) -> Vec<(Route, Vec<String>)> {
    let plain: Vec<Vec<String>> =
        made.iter().filter(|(route, ..)| route.tls != Some(true)).map(|(_, rule, _)| rule.hosts()).collect();
    let serves_plain = |host: &String| plain.iter().any(|hosts| hosts.is_empty() || hosts.contains(host));
    let secure = made.iter().filter(|(route, ..)| route.tls == Some(true) && entrance.tls_port.is_some());
    let redirect = |(route, rule, containers): &(Route, rules::Rule, Vec<String>)| {
        let hosts: Vec<_> = rule.hosts().into_iter().filter(|host| !serves_plain(host)).collect();
        let rules: Vec<_> = hosts.iter().map(|host| format!("Host(`{host}`)")).collect();
        let name = route.id.0.split('@').next().unwrap_or_default();
        let mut redirect = Route::new(global(&format!("{name}-to-tls")), rules.join(" || "), ServiceId(String::new()));
        (redirect.service, redirect.tls) = (None, Some(false));
        redirect.middlewares = vec![MiddlewareId(TO_TLS.to_owned())];
        (!rules.is_empty()).then(|| (redirect, containers.clone()))
    };
    secure.filter_map(redirect).collect()
}
