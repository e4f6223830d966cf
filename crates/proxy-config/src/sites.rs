//! `[sites."HOST/PATH"]`: the easy form. A site becomes a route, a service of its own, and what else its lines ask for.

mod content;

use coracle_proxy_rules::{Dialect, Rule};
use coracle_proxy_table::{CanonicalHost, CertificateSource, Middleware, MiddlewareId, Route, RouteId};
use coracle_toml_reading::Entry;

use crate::reading::{Reader, Section};
use crate::routes::check_source;
use crate::services::SHARING_KEYS;
use crate::table::Draft;
use crate::tls;
use content::Content;

const KEYS: &[&str] = &[
    "to",
    "service",
    "files",
    "fallback",
    "redirect_to",
    "path",
    "strip_prefix",
    "aliases",
    "redirect_from",
    "tls",
    "redirect",
    "hsts",
    "middlewares",
    "listeners",
    "compress",
    "headers",
    "basic_auth",
    "max_body",
];

/// Hosts and the path that a site is for.
struct Site {
    /// As the file calls it.
    name: String,
    hosts: Vec<String>,
    /// Begins with `/`; ends with one only if it is nothing else.
    path: String,
}

pub(crate) fn read(reader: &mut Reader<'_>, entries: &[Entry<'_, '_>], draft: &mut Draft) {
    let keys = [KEYS, SHARING_KEYS].concat();
    for entry in entries {
        if is_unquoted(reader, entry, &keys) {
            continue;
        }
        let Some(mut section) = reader.sub(entry, &keys) else { continue };
        let Some(site) = site(reader, entry, &mut section) else { continue };
        site.take(reader, entry, &site.hosts, draft);
        for kind in ["sites", "routes", "services"] {
            draft.place(reader, kind, entry.key, entry);
        }
        if draft.routes.contains(&site.name) || draft.services.contains(&site.name) {
            reader.wrong_key(entry, "a route or service has this name already", None);
            continue;
        }
        one(reader, entry, &mut section, &site, draft);
    }
}

/// `[sites.shop.example]` is a table `example` within a table `shop`. Notes it if that has happened.
fn is_unquoted(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, keys: &[&str]) -> bool {
    let inner =
        entry.value.get_ref().as_table().and_then(|table| table.iter().find(|(key, _)| !keys.contains(&key.get_ref().as_ref())));
    let Some((key, _)) = inner.filter(|(_, value)| value.get_ref().is_table() && !entry.key.contains('.')) else { return false };
    let hint = format!("put the whole name in quotes, as [sites.\"{}.{}\"]", entry.key, key.get_ref());
    reader.wrong_key(entry, "a name with dots needs quotes", Some(&hint));
    true
}

/// The name is a host, or a host with a path.
fn site(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, section: &mut Section<'_, '_>) -> Option<Site> {
    let (host, path_of_key) = match entry.key.find('/') {
        Some(at) => (&entry.key[..at], Some(&entry.key[at..])),
        None => (entry.key, None),
    };
    let mut path = path_of_key.unwrap_or("/").to_owned();
    if let Some(given) = section.take("path") {
        if path_of_key.is_some() {
            reader.wrong_key(&given, "the site's name has a path already", None);
        }
        reader.text(&given)?.clone_into(&mut path);
        if !is_path(&path) {
            reader.wrong(&given, "is no path, as /api", None);
        }
    } else if !is_path(&path) {
        reader.wrong_key(entry, format!("{path:?} is no path, as /api"), None);
    }
    if path.len() > 1 {
        path = path.trim_end_matches('/').to_owned();
    }
    let mut hosts = Vec::new();
    match check_host(host) {
        Ok(host) => hosts.push(host),
        Err(reason) => reader.wrong_key(entry, reason, Some("a site is called by its host, as [sites.\"shop.example\"]")),
    }
    hosts.extend(section.take("aliases").map(|entry| host_list(reader, &entry)).unwrap_or_default());
    Some(Site { name: entry.key.to_owned(), hosts, path })
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"`\"?#%\\<>".contains(&byte))
}

/// A host in lower case: a name, an address, `*.` and a name, or `*` for all.
fn check_host(host: &str) -> Result<String, String> {
    if host == "*" {
        return Ok(host.to_owned());
    }
    if host.is_empty() {
        return Err("names no host".to_owned());
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && !name.contains(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err("has a port; where to listen is said under [listen]".to_owned());
    }
    let text = format!("Host(`{}`)", host.replace('`', "'"));
    Rule::parse(&text, Dialect::V3).map_err(|error| error.message)?;
    Ok(host.to_ascii_lowercase().trim_end_matches('.').to_owned())
}

fn host_list(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Vec<String> {
    let mut hosts = Vec::new();
    for (item, text) in reader.texts(entry) {
        match check_host(text) {
            Ok(host) => hosts.push(host),
            Err(reason) => reader.wrong(&item, reason, None),
        }
    }
    hosts
}

impl Site {
    /// Notes hosts that another site has already.
    fn take(&self, reader: &mut Reader<'_>, entry: &Entry<'_, '_>, hosts: &[String], draft: &mut Draft) {
        for host in hosts {
            let address = format!("{host}{}", self.path);
            if let Some(other) = draft.addresses.insert(address.clone(), self.name.clone()) {
                reader.wrong_key(entry, format!("{address} is served by the site {other:?} already"), None);
            }
        }
    }

    /// The rule for these hosts and the site's path.
    fn rule(&self, hosts: &[String]) -> String {
        let path = (self.path != "/").then(|| format!("(Path(`{0}`) || PathPrefix(`{0}/`))", self.path));
        let names: Vec<String> = hosts.iter().map(|host| format!("Host(`{host}`)")).collect();
        let host = match names.as_slice() {
            _ if hosts.iter().any(|host| host == "*") => None,
            [one] => Some(one.clone()),
            several => Some(format!("({})", several.join(" || "))),
        };
        match (host, path) {
            (Some(host), Some(path)) => format!("{host} && {path}"),
            (Some(rule), None) | (None, Some(rule)) => rule,
            (None, None) => "PathPrefix(`/`)".to_owned(),
        }
    }

    /// Sites for a name go before those for all names below another, and these before those for all; then the longer path.
    /// Names and paths of one kind are told apart by their rules' lengths.
    fn priority(&self) -> Option<i64> {
        let length = i64::try_from(self.path.len()).unwrap_or_default();
        if self.hosts.iter().any(|host| host == "*") {
            return Some(length - 1_000_000);
        }
        let wildcard = self.hosts.iter().filter(|host| host.contains('*')).max_by_key(|host| host.starts_with("**"))?;
        Some(length - if wildcard.starts_with("**") { 100_000 } else { 10_000 })
    }

    fn is_local(&self) -> bool {
        self.hosts.iter().all(|host| host == "localhost" || host.ends_with(".localhost"))
    }

    /// Whether a public authority could certify all of its names.
    fn is_public(&self) -> bool {
        let is_public =
            |host: &String| !host.contains(['*', ':']) && host.contains('.') && host.parse::<std::net::IpAddr>().is_err();
        self.hosts.iter().all(is_public)
    }
}

fn one(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, section: &mut Section<'_, '_>, site: &Site, draft: &mut Draft) {
    let tls_entry = section.take("tls");
    let source = source(reader, tls_entry.as_ref(), site, draft);
    let hsts = match section.take("hsts") {
        Some(entry) => tls::hsts(reader, &entry).map(|hsts| draft.hsts(&format!("{}#hsts", site.name), hsts)),
        None => draft.tls.hsts.map(|hsts| draft.hsts("#hsts", hsts)),
    };
    let redirect = section.take("redirect").map(|entry| {
        let wanted = reader.boolean(&entry).unwrap_or(true);
        if wanted && source.is_none() {
            reader.wrong_key(&entry, "there is no TLS here to redirect to", Some("write tls = \"acme\", \"local\" or \"given\""));
        }
        wanted
    });
    let listeners = section.take("listeners").map(|entry| draft.listener_names(reader, &entry)).unwrap_or_default();
    let former = section.take("redirect_from").map(|entry| {
        let hosts = host_list(reader, &entry);
        site.take(reader, &entry, &hosts, draft);
        hosts
    });
    let (middlewares, service) = Content::new(reader, draft, site, hsts.clone()).read(entry, section);
    let route = Route {
        id: RouteId(site.name.clone()),
        rule: site.rule(&site.hosts),
        dialect: coracle_proxy_table::Dialect::V3,
        priority: site.priority(),
        listeners,
        // "off" is asked for; nothing said is no reason to refuse those who come over TLS anyway.
        tls: (tls_entry.is_some() && source.is_none()).then_some(false),
        middlewares,
        service,
        certificate: source.unwrap_or_default(),
    };
    if let Some(former) = former.filter(|hosts| !hosts.is_empty()) {
        add_former_hosts(draft, site, &route, &former, hsts);
    }
    if source.is_some() && redirect.unwrap_or(draft.tls.redirect) {
        draft.add_route_over_tls(route);
    } else {
        draft.table.routes.push(route);
    }
}

/// Those who come by another name are sent to the first of this site's names.
fn add_former_hosts(draft: &mut Draft, site: &Site, route: &Route, former: &[String], hsts: Option<MiddlewareId>) {
    let canonical = CanonicalHost { host: site.hosts.first().cloned().unwrap_or_default(), permanent: true };
    let id = draft.add_middleware(&format!("{}#from", site.name), Middleware::CanonicalHost(canonical));
    let from = Route {
        id: RouteId(format!("{}#from", site.name)),
        rule: site.rule(former),
        middlewares: hsts.into_iter().chain([id]).collect(),
        service: None,
        ..route.clone()
    };
    draft.table.routes.push(from);
}

/// Where the site's certificates come from; `None` for plain HTTP.
fn source(reader: &mut Reader<'_>, entry: Option<&Entry<'_, '_>>, site: &Site, draft: &Draft) -> Option<CertificateSource> {
    if let Some(entry) = entry {
        let kinds = [
            ("acme", Some(CertificateSource::Acme)),
            ("local", Some(CertificateSource::Local)),
            ("given", Some(CertificateSource::Given)),
            ("off", None),
        ];
        let source = reader.choice(entry, &kinds)??;
        check_source(reader, entry, source, draft);
        if source == CertificateSource::Acme && !site.is_public() {
            let hint = "write \"local\", or give one under [tls] and write \"given\"";
            reader.wrong(entry, "no public authority certifies such a name by itself", Some(hint));
        }
        return Some(source);
    }
    if !draft.has_tls_listener() {
        None
    } else if site.is_local() {
        Some(CertificateSource::Local)
    } else if draft.tls.acme.is_some() && site.is_public() {
        Some(CertificateSource::Acme)
    } else {
        (!draft.tls.certificates.is_empty()).then_some(CertificateSource::Given)
    }
}
