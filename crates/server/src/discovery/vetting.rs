//! No label may cost others their routes: the proxy takes a table as a whole or not at all, so whatever it would refuse is taken
//! out before.

use coracle_labels::{Kind, Part, Problem};
use coracle_proxy::BadTable;
use coracle_proxy_table::{RouteId, TableError};

/// Without the routes that a proxy would refuse, each of which becomes a problem.
pub(super) fn vetted(mut part: Part) -> Part {
    while let Err(error) = coracle_proxy::check(part.table.clone()) {
        let Some(id) = at_fault(&error).filter(|id| part.table.routes.iter().any(|route| route.id == *id)) else {
            // Nothing that could be left out alone: nobody gets a route rather than everybody none.
            part.problems.push(refused(Vec::new(), None, format!("no route is made of labels: {error}")));
            part.table = coracle_proxy_table::Table::default();
            break;
        };
        part.table.routes.retain(|route| route.id != id);
        let containers = part.sources.remove(&id).unwrap_or_default();
        let name = id.0.split('@').next().unwrap_or_default();
        part.problems.push(refused(containers, Some(format!("router {name}")), error.to_string()));
    }
    part.problems.sort();
    part
}

fn refused(containers: Vec<String>, about: Option<String>, message: String) -> Problem {
    Problem { kind: Kind::Refused, containers, about, message }
}

fn at_fault(error: &BadTable) -> Option<RouteId> {
    match error {
        BadTable::Rule { route, .. } | BadTable::Middleware { route, .. } => Some(RouteId(route.clone())),
        BadTable::Contradiction(
            TableError::MissingService { route, .. }
            | TableError::MissingMiddleware { route, .. }
            | TableError::DuplicateRoute(route),
        ) => Some(route.clone()),
        BadTable::Contradiction(TableError::DuplicateTarget { .. }) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use coracle_labels::{Container, Entrance, Options, Port, configure, part};

    use super::*;

    #[test]
    fn what_the_proxy_would_refuse_is_left_out_and_named() {
        let container = |name: &str, labels: &[(&str, &str)]| Container {
            id: name.to_owned(),
            name: name.to_owned(),
            labels: labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
            ports: vec![Port { number: 80, protocol: "tcp".to_owned(), bindings: Vec::new() }],
            networks: [("bridge".to_owned(), Some([10, 0, 0, 1].into()))].into(),
            ..Container::default()
        };
        let through = |name: &str, setting: &str, value: &str| {
            let rule = format!("traefik.http.routers.{name}.rule");
            let middlewares = format!("traefik.http.routers.{name}.middlewares");
            let setting = format!("traefik.http.middlewares.{name}.{setting}");
            container(name, &[(&rule, "Path(`/`)"), (&middlewares, name), (&setting, value)])
        };
        let containers = [
            container("good", &[("traefik.http.routers.good.rule", "Path(`/`)")]),
            through("regex", "stripprefixregex.regex", "("),
            through("network", "ipallowlist.sourcerange", "everywhere"),
            through("scheme", "forwardauth.address", "ftp://auth.example/"),
            through("expression", "circuitbreaker.expression", "Maybe() > 1"),
            through("user", "basicauth.users", "secret-without-a-name"),
        ];
        let options = Options::default();
        let part = vetted(part(&configure(&containers, &options), &options, Entrance::default()));
        let ids: Vec<&str> = part.table.routes.iter().map(|route| route.id.0.as_str()).collect();
        assert_eq!(ids, ["good@docker"], "{:#?}", part.problems);
        coracle_proxy::check(part.table).unwrap();
        for name in ["regex", "network", "scheme", "expression", "user"] {
            let problem = part.problems.iter().find(|problem| problem.containers == [name]);
            let problem = problem.unwrap_or_else(|| unreachable!("nothing is said of {name}: {:#?}", part.problems));
            assert_eq!((problem.kind, problem.about.clone()), (Kind::Refused, Some(format!("router {name}"))));
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }
}
