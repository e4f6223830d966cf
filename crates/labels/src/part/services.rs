//! Services: who answers, and how it is chosen.

use std::net::{IpAddr, SocketAddr};

use coracle_proxy_table as table;
use coracle_proxy_table::{Admission, Balance, Ejection, Protocol, SameSite, ServiceId, Target, TargetId};

use super::{Notes, global};
use crate::configuration::{Configuration, Kind};
use crate::dynamic::{Cookie, HealthCheck, LoadBalancer, Server};

/// Adds those services that the table's routes and middlewares lead to.
pub(super) fn add(table: &mut table::Table, configuration: &Configuration, notes: &mut Notes) {
    let of_routes = table.routes.iter().filter_map(|route| route.service.clone());
    let of_middlewares = table.middlewares.values().filter_map(|middleware| middleware.service().cloned());
    let wanted: std::collections::BTreeSet<ServiceId> = of_routes.chain(of_middlewares).collect();
    for (name, service) in &configuration.services {
        let id = ServiceId(global(name));
        if let Some(load_balancer) = service.load_balancer.as_ref().filter(|_| wanted.contains(&id)) {
            let mut said = Vec::new();
            let made = made(name, load_balancer, &mut said);
            for message in said {
                notes.add(Kind::Unsupported, configuration.service_sources.get(name), format!("service {name}"), message);
            }
            table.services.insert(id, made);
        }
    }
}

fn made(name: &str, load_balancer: &LoadBalancer, said: &mut Vec<String>) -> table::Service {
    let mut service = table::Service::new(Admission::Open, Vec::new());
    let mut protocols = Vec::new();
    for server in &load_balancer.servers {
        match target(server, said) {
            Ok((target, protocol)) => {
                service.targets.push(target);
                protocols.push(protocol);
            }
            Err(why) => said.push(format!("{}: {why}; it gets no requests", server.url)),
        }
    }
    if let Some(first) = protocols.first() {
        service.protocol = *first;
        if protocols.iter().any(|protocol| protocol != first) {
            said.push("its servers are to be spoken to in different protocols; all are spoken to as the first is".to_owned());
        }
    }
    service.balance = match load_balancer.strategy.as_str() {
        "" | "wrr" => Balance::RoundRobin,
        "p2c" => Balance::LeastLoaded,
        other => {
            said.push(format!("the strategy {other:?} is not known; servers are asked in turn"));
            Balance::RoundRobin
        }
    };
    service.sticky = load_balancer.sticky.as_ref().and_then(|sticky| sticky.cookie.as_ref()).map(|it| sticky(name, it, said));
    service.health = load_balancer.health_check.as_ref().and_then(|check| health(check, said));
    if let Some(check) = &load_balancer.passive_health_check {
        let for_ms = check.failure_window.as_milliseconds().max(1);
        service.ejection = Some(Ejection { failures: check.max_failed_attempts.max(1), for_ms });
    }
    if !load_balancer.pass_host_header {
        said.push("passHostHeader=false has no effect: servers get the host that the client asked for".to_owned());
    }
    if !load_balancer.servers_transport.is_empty() {
        said.push(format!("there is no serversTransport {:?}: labels cannot define one", load_balancer.servers_transport));
    }
    if load_balancer.response_forwarding.is_some() {
        said.push("responseForwarding has no effect: answers are passed on as they come".to_owned());
    }
    service
}

fn target(server: &Server, said: &mut Vec<String>) -> Result<(Target, Protocol), String> {
    let (scheme, rest) = server.url.split_once("://").ok_or("is no URL")?;
    let protocol = match scheme {
        "http" => Protocol::Http1,
        "h2c" => Protocol::H2c,
        "https" => return Err("servers are spoken to without TLS only; let it listen for http as well".to_owned()),
        other => return Err(format!("the scheme {other:?} is not known")),
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if !matches!(path, "" | "/") || server.preserve_path {
        said.push(format!("the path of {} is not put before that of requests", server.url));
    }
    if server.fenced {
        said.push("server.fenced has no effect".to_owned());
    }
    let usual = || authority.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 80));
    let address = authority.parse::<SocketAddr>().or_else(|_| usual());
    let address = address.map_err(|_| "servers are reached by address; names are not looked up".to_owned())?;
    // A container may listen at several ports, for several services.
    let id = global(&format!("{}:{}", server.container, address.port()));
    let weight = server.weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(0));
    Ok((Target { id: TargetId(id), address, weight }, protocol))
}

fn sticky(service: &str, cookie: &Cookie, said: &mut Vec<String>) -> table::Sticky {
    if !matches!(cookie.path.as_str(), "" | "/") || !cookie.domain.is_empty() {
        said.push(
            "the sticky cookie's path and domain have no effect: it is for the host asked for and all its paths".to_owned(),
        );
    }
    if cookie.max_age < 0 {
        said.push("a negative maxAge of the sticky cookie has no effect: it lasts as long as the browser's session".to_owned());
    }
    let same_site = match cookie.same_site.to_ascii_lowercase().as_str() {
        "lax" => Some(SameSite::Lax),
        "strict" => Some(SameSite::Strict),
        "none" => Some(SameSite::None),
        "" => None,
        other => {
            said.push(format!("sameSite={other} of the sticky cookie is none of lax, strict and none"));
            None
        }
    };
    table::Sticky {
        cookie: if cookie.name.is_empty() { usual_cookie(service) } else { cookie.name.clone() },
        secure: cookie.secure,
        http_only: cookie.http_only,
        same_site,
        max_age_s: u64::try_from(cookie.max_age).ok().filter(|seconds| *seconds > 0),
    }
}

/// A cookie's name that is the same for a service every time, and says nothing of it: FNV-1a of the service's name.
fn usual_cookie(service: &str) -> String {
    let hash =
        service.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("_{:05x}", hash & 0xf_ffff)
}

fn health(check: &HealthCheck, said: &mut Vec<String>) -> Option<table::HealthCheck> {
    if !check.mode.eq_ignore_ascii_case("http") && !check.mode.is_empty() {
        said.push(format!("healthcheck.mode={} is not known; its servers are not checked", check.mode));
        return None;
    }
    if check.path.is_empty() {
        said.push("healthcheck.path is missing; its servers are not checked".to_owned());
        return None;
    }
    let without_effect = [
        ("scheme", !matches!(check.scheme.as_str(), "" | "http")),
        ("method", !matches!(check.method.as_str(), "" | "GET")),
        ("port", check.port != 0),
        ("headers", !check.headers.is_empty()),
        ("unhealthyInterval", check.unhealthy_interval.is_some()),
        ("followRedirects", !check.follow_redirects),
    ];
    for (setting, _) in without_effect.iter().filter(|(_, is_set)| *is_set) {
        said.push(format!("healthcheck.{setting} has no effect"));
    }
    Some(table::HealthCheck {
        path: if check.path.starts_with('/') { check.path.clone() } else { format!("/{}", check.path) },
        interval_ms: check.interval.as_milliseconds().max(1),
        timeout_ms: check.timeout.as_milliseconds().max(1),
        status: Some(check.status).filter(|status| *status != 0),
        host: Some(check.hostname.clone()).filter(|host| !host.is_empty()),
    })
}
