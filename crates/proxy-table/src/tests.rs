//! Tables that go through JSON, and tables that are refused.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn admission() -> impl Strategy<Value = Admission> {
    prop_oneof![
        Just(Admission::Open),
        (any::<u64>(), any::<usize>()).prop_map(|(deadline_ms, max_waiting)| Admission::Hold { deadline_ms, max_waiting }),
        (".*", any::<u64>()).prop_map(|(message, retry_after_s)| Admission::Closed { message, retry_after_s }),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let target = (".*", any::<SocketAddr>()).prop_map(|(id, mut address)| {
        // Neither is part of an address's text.
        if let SocketAddr::V6(v6) = &mut address {
            v6.set_flowinfo(0);
            v6.set_scope_id(0);
        }
        Target { id: TargetId(id), address, weight: 1 }
    });
    (admission(), prop::collection::vec(target, 0..4)).prop_map(|(admission, mut targets)| {
        targets.sort_by(|a, b| a.id.cmp(&b.id));
        targets.dedup_by(|a, b| a.id == b.id);
        Service::new(admission, targets)
    })
}

fn table() -> impl Strategy<Value = Table> {
    let services = prop::collection::btree_map("[a-z]{1,8}".prop_map(ServiceId), service(), 1..5);
    let routes = prop::collection::btree_map("[a-z]{1,8}", (".*", any::<Option<i64>>(), any::<prop::sample::Index>()), 0..8);
    (any::<u64>(), services, routes).prop_map(|(generation, services, routes)| {
        let names: Vec<_> = services.keys().cloned().collect();
        let route = |(id, (rule, priority, index)): (String, (String, Option<i64>, prop::sample::Index))| {
            let mut route = Route::new(id, rule, index.get(&names).clone());
            route.priority = priority;
            route
        };
        let routes = routes.into_iter().map(route).collect();
        Table { generation, routes, services, ..Table::default() }
    })
}

proptest! {
    #[test]
    fn tables_come_back_from_json_as_they_were(table in table()) {
        let text = serde_json::to_string(&table).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Table>(&text).unwrap(), &table);
        prop_assert_eq!(table.check(), Ok(()));
    }

    #[test]
    fn a_route_said_twice_is_found_wherever_it_stands(mut table in table(), index in any::<prop::sample::Index>()) {
        prop_assume!(!table.routes.is_empty());
        let twin = index.get(&table.routes).clone();
        let id = twin.id.clone();
        table.routes.push(twin);
        prop_assert_eq!(table.check(), Err(TableError::DuplicateRoute(id)));
    }
}

#[test]
fn what_leads_nowhere_is_refused() {
    let (here, gone) = (ServiceId("s".to_owned()), ServiceId("gone".to_owned()));
    let service = Service::new(Admission::Open, Vec::new());
    let mut table = Table {
        routes: vec![Route::new("r", "Host(`h`)", here.clone())],
        services: [(here, service)].into(),
        ..Table::default()
    };
    assert_eq!(table.check(), Ok(()));
    let (route, middleware) = (RouteId("r".to_owned()), MiddlewareId("m".to_owned()));
    table.routes[0].middlewares.push(middleware.clone());
    assert_eq!(table.check(), Err(TableError::MissingMiddleware { route: route.clone(), middleware }));
    table.routes[0].middlewares.clear();
    table.routes[0].service = Some(gone.clone());
    assert_eq!(table.check(), Err(TableError::MissingService { route, service: gone }));
}

#[test]
fn a_target_may_not_be_there_twice() {
    let target = Target::new("t", SocketAddr::from(([127, 0, 0, 1], 1)));
    let id = ServiceId("s".to_owned());
    let services = [(id.clone(), Service::new(Admission::Open, vec![target.clone(), target.clone()]))].into();
    let table = Table { services, ..Table::default() };
    assert_eq!(table.check(), Err(TableError::DuplicateTarget { service: id, target: target.id }));
}

#[test]
fn hosts_and_prefixes_become_rules() {
    assert_eq!(host_and_prefix("a.example", "/"), "Host(`a.example`)");
    assert_eq!(host_and_prefix("*.a.example", "/"), r"HostRegexp(`^[^.]+\.a\.example$`)");
    assert_eq!(host_and_prefix("*", "/"), "PathPrefix(`/`)");
    assert_eq!(host_and_prefix("*", "/api"), "(Path(`/api`) || PathPrefix(`/api/`))");
    assert_eq!(host_and_prefix("a", "/api"), "Host(`a`) && (Path(`/api`) || PathPrefix(`/api/`))");
}

#[test]
fn unknown_fields_are_refused() {
    assert!(serde_json::from_str::<Table>(r#"{"generation":1,"routes":[],"services":{},"extra":1}"#).is_err());
    assert!(serde_json::from_str::<Admission>(r#"{"kind":"open"}"#).is_ok());
    assert!(serde_json::from_str::<Admission>(r#"{"kind":"ajar"}"#).is_err());
}
