//! The table, compiled for looking up: which rule does a host and a path lead to?

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use coracle_proxy_table::{ServiceId, Table};

use crate::service::Service;
use crate::target::Target;

/// One table, never changed once it serves.
pub(crate) struct Snapshot {
    /// What it was made of.
    pub(crate) table: Table,
    exact: HashMap<String, Vec<Rule>>,
    /// By the part after `*.`.
    wildcard: HashMap<String, Vec<Rule>>,
    any: Vec<Rule>,
    /// Its services, also those without a route.
    pub(crate) services: Vec<Arc<Service>>,
}

/// Leads a path of some host to a service.
pub(crate) struct Rule {
    prefix: String,
    /// Whether the prefix is taken off.
    strip: bool,
    /// Who answers.
    pub(crate) service: Arc<Service>,
}

impl Rule {
    fn matches(&self, path: &str) -> bool {
        self.prefix.len() == 1
            || (path.starts_with(self.prefix.as_str()) && matches!(path.as_bytes().get(self.prefix.len()), None | Some(b'/')))
    }

    /// How many bytes of the path the target does not see.
    pub(crate) fn stripped(&self) -> usize {
        if self.strip && self.prefix.len() > 1 { self.prefix.len() } else { 0 }
    }
}

impl Snapshot {
    /// Compiles a table that has passed its check; `service` makes the services.
    pub(crate) fn compile(table: Table, mut service: impl FnMut(&ServiceId, &coracle_proxy_table::Service) -> Service) -> Self {
        let services: HashMap<&ServiceId, Arc<Service>> =
            table.services.iter().map(|(id, plan)| (id, Arc::new(service(id, plan)))).collect();
        let (mut exact, mut wildcard, mut any) = (HashMap::<_, Vec<Rule>>::new(), HashMap::<_, Vec<Rule>>::new(), Vec::new());
        for route in &table.routes {
            let Some(service) = services.get(&route.service) else { continue };
            let rule = Rule { prefix: route.path_prefix.clone(), strip: route.strip_prefix, service: Arc::clone(service) };
            match (route.host.as_str(), route.host.strip_prefix("*.")) {
                ("*", _) => any.push(rule),
                (_, Some(parent)) => wildcard.entry(parent.to_ascii_lowercase()).or_default().push(rule),
                (host, None) => exact.entry(host.to_ascii_lowercase()).or_default().push(rule),
            }
        }
        for rules in exact.values_mut().chain(wildcard.values_mut()).chain([&mut any]) {
            rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        }
        let services = services.into_values().collect();
        Self { table, exact, wildcard, any, services }
    }

    /// All targets of its services.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.services.iter().flat_map(|service| service.targets())
    }

    /// The rule for a host (as it stands in the request, or empty) and a path.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Rule> {
        let host = bare_host(host);
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let exact = self.exact.get(host.as_ref());
        let wildcard = || host.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        first_match(exact, path).or_else(|| first_match(wildcard(), path)).or_else(|| first_match(Some(&self.any), path))
    }
}

/// Rules are sorted: the first one that matches has the longest prefix.
fn first_match<'r>(rules: Option<&'r Vec<Rule>>, path: &str) -> Option<&'r Rule> {
    rules?.iter().find(|rule| rule.matches(path))
}

/// Without the port and the dot at the end.
fn bare_host(host: &str) -> &str {
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(host, |(inside, _)| &host[..inside.len() + 2]),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coracle_proxy_table::{Admission, Route};

    use super::*;

    fn snapshot(routes: &[(&str, &str, &str)]) -> Snapshot {
        let closed = |id: &str| Admission::Closed { message: id.into(), retry_after_s: 0 };
        let plan = |id: &str| (ServiceId(id.into()), coracle_proxy_table::Service { admission: closed(id), targets: vec![] });
        let table = Table {
            generation: 1,
            routes: routes
                .iter()
                .map(|(host, prefix, service)| Route {
                    host: (*host).into(),
                    path_prefix: (*prefix).into(),
                    strip_prefix: false,
                    service: ServiceId((*service).into()),
                })
                .collect(),
            services: routes.iter().map(|(_, _, id)| plan(id)).collect::<BTreeMap<_, _>>(),
        };
        Snapshot::compile(table, |_id, plan| Service::new(plan.admission.clone(), vec![], None, 0))
    }

    #[track_caller]
    fn check(snapshot: &Snapshot, host: &str, path: &str, service: Option<&str>) {
        let found = snapshot.find(host, path).map(|rule| match &rule.service.admission {
            Admission::Closed { message, .. } => message.as_str(),
            other => panic!("{other:?}"),
        });
        assert_eq!(found, service, "{host}{path}");
    }

    #[test]
    fn hosts_go_exact_then_wildcard_then_any() {
        let s = snapshot(&[("app.example.com", "/", "exact"), ("*.example.com", "/", "wild"), ("*", "/", "any")]);
        check(&s, "app.example.com", "/", Some("exact"));
        check(&s, "APP.Example.com:8080", "/", Some("exact"));
        check(&s, "app.example.com.", "/", Some("exact"));
        check(&s, "other.example.com", "/", Some("wild"));
        check(&s, "extra.level.example.com", "/", Some("any"));
        check(&s, "example.com", "/", Some("any"));
        check(&s, "[::1]:80", "/", Some("any"));
        check(&s, "", "/", Some("any"));
    }

    #[test]
    fn prefixes_match_by_whole_segments_and_the_longest_wins() {
        let s = snapshot(&[("h", "/", "root"), ("h", "/api", "api"), ("h", "/api/special", "special")]);
        check(&s, "h", "/apiary", Some("root"));
        check(&s, "h", "/api", Some("api"));
        check(&s, "h", "/api/", Some("api"));
        check(&s, "h", "/api/special", Some("special"));
        check(&s, "h", "/api/specials", Some("api"));
        check(&s, "h", "*", Some("root"));
        check(&s, "other", "/", None);
    }

    #[test]
    fn a_host_without_a_matching_prefix_falls_through_to_the_less_exact() {
        let s = snapshot(&[("h.x", "/api", "api"), ("*.x", "/web", "web"), ("*", "/", "any")]);
        check(&s, "h.x", "/web", Some("web"));
        check(&s, "h.x", "/", Some("any"));
    }
}
