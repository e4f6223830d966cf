//! Tables that go through JSON, and tables that are refused.

#![allow(clippy::unwrap_used)]

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
        Target { id: TargetId(id), address }
    });
    (admission(), prop::collection::vec(target, 0..4)).prop_map(|(admission, targets)| Service { admission, targets })
}

fn table() -> impl Strategy<Value = Table> {
    let services = prop::collection::btree_map("[a-z]{1,8}".prop_map(ServiceId), service(), 1..5);
    let route = ("(\\*|(\\*\\.)?[a-z]{1,5}\\.[a-z]{2})", "(/|(/[a-z%]{1,4}){1,3})", any::<bool>(), any::<prop::sample::Index>());
    (any::<u64>(), services, prop::collection::vec(route, 0..8)).prop_map(|(generation, services, routes)| {
        let names: Vec<_> = services.keys().cloned().collect();
        let mut routes: Vec<_> = routes
            .into_iter()
            .map(|(host, path_prefix, strip_prefix, index)| Route {
                host,
                path_prefix,
                strip_prefix,
                service: index.get(&names).clone(),
            })
            .collect();
        routes.sort_by(|a, b| (&a.host, &a.path_prefix).cmp(&(&b.host, &b.path_prefix)));
        routes.dedup_by(|a, b| (&a.host, &a.path_prefix) == (&b.host, &b.path_prefix));
        Table { generation, routes, services }
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
        let (host, path_prefix) = (twin.host.clone(), twin.path_prefix.clone());
        table.routes.push(twin);
        prop_assert_eq!(table.check(), Err(TableError::DuplicateRoute { host, path_prefix }));
    }
}

fn one(host: &str, path_prefix: &str, service: &str) -> Table {
    let open = Service { admission: Admission::Open, targets: Vec::new() };
    Table {
        generation: 1,
        routes: vec![Route {
            host: host.to_owned(),
            path_prefix: path_prefix.to_owned(),
            strip_prefix: false,
            service: ServiceId(service.to_owned()),
        }],
        services: BTreeMap::from([(ServiceId("s".to_owned()), open)]),
    }
}

#[test]
fn what_cannot_match_is_refused() {
    for prefix in ["", "api", "/api/", "//"] {
        assert_eq!(one("h", prefix, "s").check(), Err(TableError::BadPrefix(prefix.to_owned())));
    }
    for host in ["", "App.example.com", "h:80", "a.*.b", "**", "*.", "a..b", "a b", "h/x", "\u{e9}.com", "[::1"] {
        assert_eq!(one(host, "/", "s").check(), Err(TableError::BadHost(host.to_owned())));
    }
    for host in ["*", "*.example.com", "localhost", "shop.localhost", "10.0.0.1", "[::1]", "a_b.x", "xn--caf-dma.example"] {
        assert_eq!(one(host, "/", "s").check(), Ok(()), "{host}");
    }
    let missing = ServiceId("missing".to_owned());
    assert_eq!(one("h", "/", "missing").check(), Err(TableError::MissingService(missing)));
}

#[test]
fn unknown_fields_are_refused() {
    assert!(serde_json::from_str::<Table>(r#"{"generation":1,"routes":[],"services":{},"extra":1}"#).is_err());
    assert!(serde_json::from_str::<Admission>(r#"{"kind":"open"}"#).is_ok());
    assert!(serde_json::from_str::<Admission>(r#"{"kind":"ajar"}"#).is_err());
}
