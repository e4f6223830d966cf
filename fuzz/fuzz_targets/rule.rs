//! Rules of both dialects: what is taken means one thing, whichever way a request's route is looked up, and says which hosts.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use coracle_proxy_rules::{Dialect, Facts, Router, Rule};

struct Sent;

impl Facts for Sent {
    fn host(&self) -> &str {
        "a.shop.example"
    }

    fn method(&self) -> &str {
        "GET"
    }

    fn path(&self) -> &str {
        "/api/%7Bx%2fé%"
    }

    fn query(&self) -> &str {
        "q=a+b&id=%zz&a=b;c"
    }

    fn header_values(&self, _name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) {
        visit(b"blue\xff");
    }

    fn client_ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    drop(coracle_proxy_rules::domains(text));
    for dialect in [Dialect::V2, Dialect::V3] {
        let Ok(rule) = Rule::parse(text, dialect) else { continue };
        drop((rule.hosts(), rule.wildcards(), rule.in_v3()));
        let found = Router::new([(rule.clone(), rule.priority(), ())]).find(&Sent).is_some();
        assert_eq!(found, rule.matches(&Sent), "{text:?}");
    }
});
