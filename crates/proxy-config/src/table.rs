//! The whole document: its sections in order, and the table that grows from them.

use std::collections::{BTreeMap, BTreeSet};

use coracle_proxy_table::{Headers, Middleware, MiddlewareId, RedirectScheme, Route, RouteId, Service, ServiceId, Table};
use coracle_toml_reading::Entry;
use toml::de::DeTable;

use crate::reading::Reader;
use crate::tls::{Hsts, Tls};
use crate::{Config, Listener, Place, listeners, middlewares, routes, services, settings, sites, tls};

const KEYS: &[&str] = &[
    "listen",
    "tls",
    "sites",
    "routes",
    "services",
    "middlewares",
    "limits",
    "access_log",
    "metrics",
    "trusted_proxies",
    "forwarded_server",
    "forwarded_append",
    "forwarded_scheme",
    "connection_fields",
    "encoded_characters",
    "workers",
    "drain",
    "state_dir",
    "control_socket",
];

/// What the sections need of each other, and what they add to.
pub(crate) struct Draft {
    pub(crate) table: Table,
    pub(crate) places: BTreeMap<String, Place>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) tls: Tls,
    /// The names in `[services]`, those with mistakes included: what refers to them is right.
    pub(crate) services: BTreeSet<String>,
    /// The same of `[middlewares]`.
    pub(crate) middlewares: BTreeSet<String>,
    /// The same of `[routes]`.
    pub(crate) routes: BTreeSet<String>,
    /// Hosts with paths that sites have, and which.
    pub(crate) addresses: BTreeMap<String, String>,
}

/// Reads a whole document. What comes of one with mistakes is of no use.
pub(crate) fn document(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Config {
    let mut root = reader.section("", document, KEYS);
    let mut places = BTreeMap::new();
    let listeners = listeners::read(reader, root.take("listen").as_ref());
    let tls = tls::read(reader, root.take("tls").as_ref(), &mut places);
    let [middleware_entries, service_entries, route_entries, site_entries] = ["middlewares", "services", "routes", "sites"]
        .map(|key| root.take(key).map(|entry| reader.named(&entry)).unwrap_or_default());
    let names = |entries: &[Entry<'_, '_>]| entries.iter().map(|entry| entry.key.to_owned()).collect();
    let mut draft = Draft {
        table: Table::default(),
        places,
        listeners,
        tls,
        services: names(&service_entries),
        middlewares: names(&middleware_entries),
        routes: names(&route_entries),
        addresses: BTreeMap::new(),
    };
    middlewares::read(reader, &middleware_entries, &mut draft);
    services::read(reader, &service_entries, &mut draft);
    routes::read(reader, &route_entries, &mut draft);
    sites::read(reader, &site_entries, &mut draft);
    let settings = settings::read(reader, &mut root);
    // The sections see to this; it is what a table with a mistake of theirs would be refused by.
    if reader.mistakes.is_empty()
        && let Err(error) = draft.table.check()
    {
        reader.mistakes.add(0..0, "", error.to_string(), None);
    }
    let Draft { mut table, places, listeners, tls, .. } = draft;
    table.routes.sort_by(|one, other| one.id.cmp(&other.id));
    Config {
        listeners,
        trusted_proxies: settings.trusted_proxies,
        forwarded_server: settings.forwarded_server,
        forwarded_append: settings.forwarded_append,
        forwarded_scheme: settings.forwarded_scheme,
        connection_fields: settings.connection_fields,
        encoded_characters: settings.encoded_characters,
        limits: settings.limits,
        acme: tls.acme,
        certificates: tls.certificates,
        access_log: settings.access_log,
        workers: settings.workers,
        drain: settings.drain,
        metrics: settings.metrics,
        control_socket: settings.control_socket,
        state_dir: settings.state_dir,
        table,
        places,
    }
}

impl Draft {
    /// Remembers where something stands.
    pub(crate) fn place(&mut self, reader: &Reader<'_>, kind: &str, name: &str, entry: &Entry<'_, '_>) {
        self.places.insert(format!("{kind}.{name}"), reader.mistakes.place(entry.key_span.start));
    }

    pub(crate) fn add_middleware(&mut self, id: &str, middleware: Middleware) -> MiddlewareId {
        let id = MiddlewareId(id.to_owned());
        self.table.middlewares.insert(id.clone(), middleware);
        id
    }

    pub(crate) fn add_service(&mut self, id: &str, service: Service) -> ServiceId {
        let id = ServiceId(id.to_owned());
        self.table.services.insert(id.clone(), service);
        id
    }

    /// The middleware that sends plain requests to the same URL over TLS.
    fn https_redirect(&mut self) -> MiddlewareId {
        let port = self.listeners.iter().find(|listener| listener.tls).map(|listener| listener.address.port());
        let port = port.filter(|port| *port != 443 && *port != 0);
        let redirect = RedirectScheme { scheme: "https".to_owned(), port, permanent: true };
        self.add_middleware("#https", Middleware::RedirectScheme(redirect))
    }

    /// The middleware that tells browsers to come over TLS only.
    pub(crate) fn hsts(&mut self, id: &str, hsts: Hsts) -> MiddlewareId {
        let headers = Headers {
            sts_seconds: hsts.seconds,
            sts_include_subdomains: hsts.include_subdomains,
            sts_preload: hsts.preload,
            ..Headers::default()
        };
        self.add_middleware(id, Middleware::Headers(Box::new(headers)))
    }

    pub(crate) fn has_tls_listener(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls)
    }

    /// Adds a route. If it is only for TLS, another one is added that sends plain requests there.
    pub(crate) fn add_route_over_tls(&mut self, mut route: Route) {
        route.tls = Some(true);
        if self.listeners.iter().any(|listener| !listener.tls) {
            let redirect = Route {
                id: RouteId(format!("{}#https", route.id.0)),
                tls: Some(false),
                middlewares: vec![self.https_redirect()],
                service: None,
                certificate: coracle_proxy_table::CertificateSource::Given,
                ..route.clone()
            };
            self.table.routes.push(redirect);
        }
        self.table.routes.push(route);
    }

    /// The middlewares that are named; unknown ones are noted.
    pub(crate) fn middleware_names(&self, reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Vec<MiddlewareId> {
        let mut ids: Vec<MiddlewareId> = Vec::new();
        for (item, name) in reader.texts(entry) {
            if !self.middlewares.contains(name) {
                reader.unknown(&item, "middleware", name, self.middlewares.iter().map(String::as_str));
            } else if ids.iter().any(|id| id.0 == name) {
                reader.wrong(&item, "is listed twice", None);
            }
            ids.push(MiddlewareId(name.to_owned()));
        }
        ids
    }

    /// The listeners that are named; unknown ones are noted.
    pub(crate) fn listener_names(&self, reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Vec<String> {
        let mut names = Vec::new();
        for (item, name) in reader.texts(entry) {
            if !self.listeners.iter().any(|listener| listener.name == name) {
                let known: BTreeSet<&str> = self.listeners.iter().map(|listener| listener.name.as_str()).collect();
                reader.unknown(&item, "listener", name, known);
            }
            names.push(name.to_owned());
        }
        names
    }

    /// The service that is named; an unknown one is noted.
    pub(crate) fn service_name(&self, reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<ServiceId> {
        let name = reader.text(entry)?;
        if !self.services.contains(name) {
            reader.unknown(entry, "service", name, self.services.iter().map(String::as_str));
        }
        Some(ServiceId(name.to_owned()))
    }
}
