//! The proxies that are asked: one for each way of being started that a case needs, all told the same tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use coracle_proxy_table::{Admission, CertificateSource, Dialect, Service, ServiceId, Table, Target};
use coracle_tests::Proxy;
use coracle_tests::proxy::{Refused, free_address};
use serde_json::{Value, json};

use crate::request::Request;
use crate::upstream::Upstreams;
use crate::wire::{Answer, exchange};

/// What a proxy is started with, beside its listeners.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setting {
    /// Whether it listens for TLS as well.
    pub(crate) tls: bool,
    /// Peers that are believed about whom they forward for.
    pub(crate) trusted: Vec<String>,
    /// Whether `X-Forwarded-Scheme` and `X-Scheme` are set.
    pub(crate) scheme_fields: bool,
    /// Whether the peer is added to `X-Forwarded-For`.
    pub(crate) append_peer: bool,
    /// What it says in `X-Forwarded-Server`.
    pub(crate) server: Option<String>,
    /// Fields named by `Connection` that are passed on.
    pub(crate) connection_fields: Vec<String>,
    /// The encoded characters that paths may have; nothing for the proxy's own choice.
    pub(crate) encoded_characters: Option<Vec<String>>,
}

impl Default for Setting {
    fn default() -> Self {
        let (trusted, connection_fields) = (Vec::new(), Vec::new());
        Self {
            tls: false,
            trusted,
            scheme_fields: false,
            append_peer: true,
            server: None,
            connection_fields,
            encoded_characters: None,
        }
    }
}

impl Setting {
    /// Where every client is believed, as where the only way in is through another proxy.
    pub(crate) fn believing_everybody() -> Self {
        Self { trusted: ["0.0.0.0/0", "::/0"].map(str::to_owned).into(), ..Self::default() }
    }

    /// As command-line options.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        self.trusted.iter().for_each(|range| option("--trust", range));
        self.connection_fields.iter().for_each(|name| option("--connection-field", name));
        if self.scheme_fields {
            option("--forwarded-scheme", "true");
        }
        if !self.append_peer {
            option("--forwarded-append", "false");
        }
        if let Some(server) = &self.server {
            option("--forwarded-server", server);
        }
        if let Some(characters) = &self.encoded_characters {
            option("--encoded-characters", &characters.join(","));
        }
        arguments
    }
}

/// A proxy that runs.
#[derive(Debug)]
struct Subject {
    proxy: Proxy,
    plain: SocketAddr,
    tls: SocketAddr,
}

/// The name of the listener for plain HTTP, as cases have it.
pub(crate) const PLAIN: &str = "web";
/// The name of the listener for TLS, as cases have it.
pub(crate) const TLS: &str = "websecure";

/// One route of a case.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) id: String,
    pub(crate) rule: String,
    pub(crate) dialect: Dialect,
    pub(crate) priority: Option<i64>,
    pub(crate) listeners: Vec<String>,
    /// In order, as tables have them: each an object with its kind.
    pub(crate) middlewares: Vec<Value>,
    /// Whether it leads to an upstream; otherwise a middleware has to answer.
    pub(crate) leads_on: bool,
    pub(crate) certificate: CertificateSource,
}

impl Wanted {
    pub(crate) fn new(id: &str, rule: &str, dialect: Dialect) -> Self {
        let (id, rule, certificate) = (id.to_owned(), rule.to_owned(), CertificateSource::Given);
        Self { id, rule, dialect, priority: None, listeners: Vec::new(), middlewares: Vec::new(), leads_on: true, certificate }
    }
}

/// All proxies that were needed so far.
#[derive(Debug)]
pub(crate) struct Subjects {
    directory: PathBuf,
    pub(crate) upstreams: Upstreams,
    running: BTreeMap<Setting, Subject>,
    generation: u64,
}

impl Subjects {
    pub(crate) async fn new(directory: &Path) -> Result<Self> {
        let upstreams = Upstreams::start().await?;
        Ok(Self { directory: directory.to_owned(), upstreams, running: BTreeMap::new(), generation: 0 })
    }

    async fn subject(&mut self, setting: &Setting) -> Result<&mut Subject> {
        if self.running.get_mut(setting).is_none_or(|subject| !subject.proxy.runs()) {
            let (plain, tls) = (free_address(), free_address());
            let directory = self.directory.join(self.running.len().to_string());
            let mut arguments = vec!["--listen".to_owned(), format!("{PLAIN}={plain},proxy-protocol=127.0.0.0/8")];
            if setting.tls {
                arguments.extend(["--listen".to_owned(), format!("{TLS}={tls},tls,proxy-protocol=127.0.0.0/8")]);
            }
            arguments.extend(setting.arguments());
            let proxy = Proxy::start(&directory, &[], &arguments).await?;
            self.running.insert(setting.clone(), Subject { proxy, plain, tls });
        }
        self.running.get_mut(setting).context("it was just started")
    }

    /// Tells a table of these routes. The first answer is whether there is a proxy at all, the second whether it takes it.
    ///
    /// For clients that will ask for `name` over TLS there is a certificate of the local authority, whatever the routes say:
    /// one more route wants it, which is on no listener and so gets no request.
    pub(crate) async fn publish(
        &mut self,
        setting: &Setting,
        routes: &[Wanted],
        name: Option<&str>,
    ) -> Result<Result<(), Refused>> {
        self.generation += 1;
        let mut table = self.table(routes)?;
        if let Some(name) = name {
            let certified = json!({
                "id": "certified", "rule": format!("Host(`{name}`)"), "listeners": ["nowhere"], "certificate": "local"
            });
            table["routes"].as_array_mut().context("a table has routes")?.push(certified);
        }
        self.subject(setting).await?.proxy.publish(&table).await
    }

    /// As JSON rather than in types: whether a setting is one is for the proxy to say.
    fn table(&self, routes: &[Wanted]) -> Result<Value> {
        let (mut middlewares, mut entries, mut services) = (serde_json::Map::new(), Vec::new(), BTreeMap::new());
        for (at, wanted) in routes.iter().enumerate() {
            let mut route = coracle_proxy_table::Route::new(wanted.id.clone(), wanted.rule.clone(), ServiceId(wanted.id.clone()));
            (route.dialect, route.priority, route.listeners) = (wanted.dialect, wanted.priority, wanted.listeners.clone());
            route.certificate = wanted.certificate;
            if wanted.leads_on {
                let address = *self.upstreams.addresses.get(at).context("more routes than upstreams")?;
                let service = Service::new(Admission::Open, vec![Target::new(format!("upstream-{at}"), address)]);
                services.insert(ServiceId(wanted.id.clone()), service);
            } else {
                route.service = None;
            }
            for (number, middleware) in wanted.middlewares.iter().enumerate() {
                let id = format!("{}-{number}", wanted.id);
                middlewares.insert(id.clone(), middleware.clone());
                route.middlewares.push(coracle_proxy_table::MiddlewareId(id));
            }
            entries.push(serde_json::to_value(route)?);
        }
        let mut table = serde_json::to_value(Table { generation: self.generation, services, ..Table::default() })?;
        table["routes"] = json!(entries);
        table["middlewares"] = Value::Object(middlewares);
        Ok(table)
    }

    /// Asks.
    pub(crate) async fn ask(&mut self, setting: &Setting, request: &Request) -> Result<Answer> {
        let subject = self.subject(setting).await?;
        let address = if request.url.tls { subject.tls } else { subject.plain };
        let name = request.url.tls.then(|| request.url.host());
        exchange(address, request.client, name, &request.bytes()).await
    }

    /// Asks in these very bytes, without TLS.
    pub(crate) async fn ask_raw(&mut self, setting: &Setting, request: &Request, raw: &[u8]) -> Result<Answer> {
        let address = self.subject(setting).await?.plain;
        exchange(address, request.client, None, raw).await
    }

    /// The names that the proxy knows certificates to be needed for, as its control socket tells them.
    pub(crate) async fn certificate_names(&mut self, setting: &Setting) -> Result<Vec<String>> {
        let socket = self.subject(setting).await?.proxy.socket();
        let answer = coracle_tests::browser::ask_socket(&socket, "GET".parse()?, "/v1/certificates", "").await?;
        let value: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
        let list = value.as_array().or_else(|| value["certificates"].as_array()).context("no list of certificates")?;
        Ok(list.iter().filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect())
    }
}
