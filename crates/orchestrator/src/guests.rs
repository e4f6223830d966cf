//! Routes that are no app's: of containers that others started and that are discovered. They are served from the same table,
//! and give way to apps.
//!
//! Everything of theirs has an `@` in its name, which no service and no middleware of an app has.

use std::sync::{Arc, Mutex, PoisonError};

use coracle_proxy_table::{Route, ServiceId, Table};

use crate::error::OrchestratorError;
use crate::orchestrator::HostOrchestrator;
use crate::routes::place_among_manifests;
use crate::traffic::Traffic;

/// What is known of guests.
#[derive(Default)]
pub(crate) struct Guests(Mutex<Option<Arc<Table>>>);

impl Guests {
    /// Their part of the table. Until somebody has said what it is, it is what the proxy was told in this server's earlier
    /// life: a start takes nobody's routes away.
    async fn part(&self, traffic: &dyn Traffic) -> Arc<Table> {
        if let Some(known) = self.known() {
            return known;
        }
        match traffic.current().await {
            Ok(table) => {
                let inherited = Arc::new(of_guests(table));
                // Whoever has spoken meanwhile knows better.
                self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(inherited).clone()
            }
            Err(_unknown_yet) => Arc::default(),
        }
    }

    fn known(&self) -> Option<Arc<Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds their part to a table of apps. A route whose name an app's route has is left out.
    pub(crate) async fn join(&self, table: &mut Table, traffic: &dyn Traffic) {
        let part = self.part(traffic).await;
        let is_free = |route: &&Route| !table.routes.iter().any(|other| other.id == route.id);
        let routes: Vec<Route> = part.routes.iter().filter(is_free).cloned().collect();
        table.routes.extend(routes);
        for (id, middleware) in &part.middlewares {
            table.middlewares.entry(id.clone()).or_insert_with(|| middleware.clone());
        }
        for (id, service) in &part.services {
            table.services.entry(id.clone()).or_insert_with(|| service.clone());
        }
    }
}

/// Whether a route is a guest's.
fn is_guest(route: &Route) -> bool {
    let is_theirs = |name: &str| name.contains('@');
    match &route.service {
        Some(ServiceId(service)) => is_theirs(service),
        None => !route.middlewares.is_empty() && route.middlewares.iter().all(|id| is_theirs(&id.0)),
    }
}

fn of_guests(table: Table) -> Table {
    Table {
        generation: 0,
        routes: table.routes.into_iter().filter(is_guest).collect(),
        middlewares: table.middlewares.into_iter().filter(|(id, _)| id.0.contains('@')).collect(),
        services: table.services.into_iter().filter(|(id, _)| id.0.contains('@')).collect(),
    }
}

impl HostOrchestrator {
    /// Says what routes, middlewares and services there are beside those of apps, in place of those said before, and publishes
    /// the table if that changes it. Every name in it has an `@`; its generation does not count.
    pub async fn set_guests(&self, mut part: Table) -> Result<(), OrchestratorError> {
        part.routes.iter_mut().for_each(place_among_manifests);
        let part = Arc::new(part);
        let before = self.core().guests.0.lock().unwrap_or_else(PoisonError::into_inner).replace(part.clone());
        if before.is_some_and(|before| before == part) {
            return Ok(());
        }
        self.core().publish().await
    }

    /// Says that there are none, before anything is published.
    pub fn without_guests(&self) {
        *self.core().guests.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use async_trait::async_trait;
    use coracle_proxy_table::{Admission, Middleware, MiddlewareId, RedirectScheme, Service, TargetId};

    use super::*;
    use crate::traffic::{Drained, TrafficError};

    struct Told(Result<Table, &'static str>);

    #[async_trait]
    impl Traffic for Told {
        async fn publish(&self, _: Table) -> Result<(), TrafficError> {
            Ok(())
        }

        async fn current(&self) -> Result<Table, TrafficError> {
            self.0.clone().map_err(|why| TrafficError(why.to_owned()))
        }

        async fn drain(&self, _: &[TargetId], _: std::time::Duration) -> Result<Drained, TrafficError> {
            Ok(Drained { cut_off: 0 })
        }
    }

    fn table(routes: &[(&str, &str)]) -> Table {
        let mut table = Table::default();
        for (id, service) in routes {
            table.routes.push(Route::new(*id, "Path(`/`)", ServiceId((*service).to_owned())));
            table.services.insert(ServiceId((*service).to_owned()), Service::new(Admission::Open, Vec::new()));
        }
        table
    }

    fn redirecting(id: &str, middleware: &str) -> (Route, (MiddlewareId, Middleware)) {
        let middleware = MiddlewareId(middleware.to_owned());
        let mut route = Route::new(id, "Path(`/`)", ServiceId(String::new()));
        (route.service, route.middlewares) = (None, vec![middleware.clone()]);
        let redirect = RedirectScheme { scheme: "https".to_owned(), port: None, permanent: false };
        (route, (middleware, Middleware::RedirectScheme(redirect)))
    }

    fn ids(table: &Table) -> Vec<&str> {
        table.routes.iter().map(|route| route.id.0.as_str()).collect()
    }

    #[tokio::test]
    async fn until_somebody_says_what_guests_there_are_those_of_before_stay() {
        let mut before = table(&[("shop@shop.example", "shop"), ("blog@docker", "blog@docker")]);
        let (route, middleware) = redirecting("blog-to-tls@docker", "to-tls@docker");
        before.routes.push(route);
        before.middlewares.extend([middleware]);
        let (route, middleware) = redirecting("shop@www.shop.example", "shop.canonical");
        before.routes.push(route);
        before.middlewares.extend([middleware]);
        let guests = Guests::default();

        // A proxy that does not answer now may answer later.
        let mut now = table(&[("shop@shop.example", "shop")]);
        guests.join(&mut now, &Told(Err("gone"))).await;
        assert_eq!(ids(&now), ["shop@shop.example"]);

        guests.join(&mut now, &Told(Ok(before.clone()))).await;
        assert_eq!(ids(&now), ["shop@shop.example", "blog@docker", "blog-to-tls@docker"]);
        assert_eq!(now.middlewares.len(), 1);
        now.check().unwrap();

        *guests.0.lock().unwrap() = Some(Arc::default());
        let mut now = table(&[("shop@shop.example", "shop")]);
        guests.join(&mut now, &Told(Ok(before))).await;
        assert_eq!(ids(&now), ["shop@shop.example"]);
    }

    #[tokio::test]
    async fn a_guest_takes_no_name_of_an_app() {
        let guests = Guests(Mutex::new(Some(Arc::new(table(&[("shop@docker", "shop@docker"), ("blog@docker", "blog@docker")])))));
        // An app may be reached at a host that is called so.
        let mut now = table(&[("shop@docker", "shop")]);
        guests.join(&mut now, &Told(Err("not asked"))).await;
        assert_eq!(ids(&now), ["shop@docker", "blog@docker"]);
        assert_eq!(now.routes[0].service, Some(ServiceId("shop".to_owned())));
        now.check().unwrap();
    }
}
