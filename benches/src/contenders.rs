//! The proxies that are compared, each with one worker and with what a default route of ours has: a request id, the forwarded
//! headers, health checks, counters.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use coracle_proxy_table::{Admission, CertificateSource, HealthCheck, Route, Service, ServiceId, Table, Target};
use coracle_tests::Proxy;
use coracle_tests::proxy::free_address;

use crate::origin::{Origin, nginx, temporary_paths};
use crate::processes::{Family, Placement, Running};

/// Whose proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Ours.
    Coracle,
    /// From Debian's packages.
    HaProxy,
    /// From Debian's packages.
    Nginx,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Coracle, Self::HaProxy, Self::Nginx];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coracle => "Coracle",
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }
}

/// A proxy that runs, and ends with this value.
#[derive(Debug)]
pub struct Contender {
    /// Where it takes HTTP.
    pub http: SocketAddr,
    /// Where it takes HTTP over TLS, in both versions.
    pub tls: SocketAddr,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Coracle(Proxy),
    Peer(Running),
}

/// What all of them are told.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Whom they ask.
    pub origin: &'a Origin,
    /// Where they run.
    pub placement: Placement,
    /// The certificate for `localhost` and its key.
    pub certificate: &'a Certificate,
    /// Whether they listen for TLS as well; the peers do in any case.
    pub tls: bool,
    /// Whether each request is written down, in a file.
    pub access_log: bool,
}

impl Contender {
    /// Starts one in a directory of its own, and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(kind: Kind, directory: &Path, circumstances: Circumstances<'_>) -> Self {
        fs::create_dir_all(directory).unwrap();
        let (http, tls) = (free_address(), free_address());
        let process = match kind {
            Kind::Coracle => Process::Coracle(coracle(directory, circumstances, http, tls).await),
            Kind::HaProxy => Process::Peer(haproxy(directory, circumstances, http, tls)),
            Kind::Nginx => Process::Peer(nginx_proxy(directory, circumstances, http, tls)),
        };
        let give_up = Instant::now() + Duration::from_secs(20);
        while !coracle_tests::browser::get(http, "localhost", "/").await.is_ok_and(|answer| answer.status.is_success()) {
            assert!(Instant::now() < give_up, "{} does not answer; see {}", kind.name(), directory.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { http, tls, process }
    }

    /// Its processes.
    pub fn family(&self) -> Family {
        Family::of(match &self.process {
            Process::Coracle(proxy) => proxy.pid(),
            Process::Peer(running) => running.pid(),
        })
    }

    /// Gives ours another table.
    ///
    /// # Panics
    /// If it is not ours, or does not take the table.
    pub async fn publish(&self, table: &Table) {
        self.publish_json(serde_json::to_vec(table).unwrap()).await;
    }

    /// The same for a table that has been written as JSON already.
    ///
    /// # Panics
    /// If it is not ours, or does not take the table.
    pub async fn publish_json(&self, table: Vec<u8>) {
        let Process::Coracle(proxy) = &self.process else { panic!("only ours is told a table") };
        proxy.publish_json(table).await.unwrap().unwrap_or_else(|refused| panic!("the table is refused: {refused:?}"));
    }
}

/// A table with the routes that are measured and so many more: `host-0.localhost`, `host-1.localhost` and so on, all led
/// to the same service, so that nothing but the number of routes differs.
pub fn table(origin: &Origin, hosts: usize, generation: u64) -> Table {
    let [app, sockets] = ["app", "sockets"].map(|id| ServiceId(id.to_owned()));
    let mut service = Service::new(Admission::Open, vec![Target::new("app.1", origin.http)]);
    let (path, interval_ms, timeout_ms) = ("/".to_owned(), 2000, 1000);
    service.health = Some(HealthCheck { path, interval_ms, timeout_ms, status: None, host: None });
    let echo = Service::new(Admission::Open, vec![Target::new("sockets.1", origin.sockets)]);
    let mut routes = vec![Route::new("app", "Host(`localhost`)", app.clone())];
    // By the local authority, on the curve that the peers' certificate is on.
    routes[0].certificate = CertificateSource::Local;
    routes.push(Route::new("sockets", "Host(`ws.localhost`)", sockets.clone()));
    routes
        .extend((0..hosts).map(|host| Route::new(format!("host-{host}"), format!("Host(`host-{host}.localhost`)"), app.clone())));
    Table { generation, routes, services: [(app, service), (sockets, echo)].into(), ..Table::default() }
}

async fn coracle(directory: &Path, told: Circumstances<'_>, http: SocketAddr, tls: SocketAddr) -> Proxy {
    let mut arguments: Vec<String> = ["--workers", "1"].map(str::to_owned).into();
    arguments.extend(["--http".to_owned(), http.to_string()]);
    if told.tls {
        arguments.extend(["--https".to_owned(), tls.to_string()]);
    }
    if told.access_log {
        arguments.extend(["--access-log".to_owned(), directory.join("access.log").display().to_string()]);
    }
    let proxy = Proxy::start(directory, told.placement.prefix(), &arguments).await;
    let proxy = proxy.unwrap_or_else(|error| panic!("{error:#}"));
    let table = table(told.origin, 0, 1);
    proxy.publish(&table).await.unwrap().unwrap_or_else(|refused| panic!("the table is refused: {refused:?}"));
    proxy
}

fn haproxy(directory: &Path, told: Circumstances<'_>, http: SocketAddr, tls: SocketAddr) -> Running {
    let (bundle, origin) = (told.certificate.bundle.display(), told.origin);
    let mut config = "global\n  nbthread 1\n  maxconn 8192\n".to_owned();
    if told.access_log {
        config += "  log stdout format raw local0\n";
    }
    config += "  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
               defaults\n  mode http\n  option forwardfor\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n  \
               timeout http-keep-alive 5m\n  timeout tunnel 1h\n";
    if told.access_log {
        config += "  log global\n  option httplog\n";
    }
    write!(
        config,
        "frontend web\n  bind {http}\n  bind {tls} ssl crt {bundle} alpn h2,http/1.1\n  \
         unique-id-format %[uuid()]\n  unique-id-header X-Request-Id\n  \
         http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n  \
         http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}\n  \
         http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
         use_backend app if {{ req.hdr(host),host_only -i localhost }}\n  \
         use_backend sockets if {{ req.hdr(host),host_only -i ws.localhost }}\n  \
         http-request deny deny_status 404 unless {{ req.hdr(host),host_only -i localhost ws.localhost }}\n\
         backend app\n  option httpchk GET /\n  http-check send hdr host localhost\n  \
         server app {} check inter 2s\n\
         backend sockets\n  server sockets {}\n",
        origin.http, origin.sockets,
    )
    .unwrap();
    let path = directory.join("haproxy.cfg");
    fs::write(&path, config).unwrap();
    let mut command = told.placement.command("haproxy");
    // In the foreground and in one process. What it logs goes to its standard output.
    command.args(["-db", "-f"]).arg(path).stdin(Stdio::null());
    let out = |name: &str| File::create(directory.join(name)).unwrap();
    command.stdout(out("access.log")).stderr(out("error.log"));
    Running::start(&mut command)
}

fn nginx_proxy(directory: &Path, told: Circumstances<'_>, http: SocketAddr, tls: SocketAddr) -> Running {
    let (at, certificate, origin) = (directory.display(), told.certificate, told.origin);
    let log = if told.access_log { format!("{at}/access.log") } else { "off".to_owned() };
    let (chain, key) = (certificate.chain.display(), certificate.key.display());
    let server = |name: &str, upstream: &str| {
        format!(
            "  server {{\n    listen {http};\n    listen {tls} ssl http2;\n    server_name {name};\n    \
             location / {{ proxy_pass http://{upstream}; }}\n  }}\n"
        )
    };
    let config = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n  access_log {log};\n  keepalive_requests 1000000000; keepalive_timeout 1h;\n  \
         ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n{}  \
         proxy_max_temp_file_size 0; proxy_read_timeout 1h; proxy_http_version 1.1;\n  \
         map $http_upgrade $connection_wanted {{ default upgrade; '' ''; }}\n  \
         proxy_set_header Connection $connection_wanted; proxy_set_header Upgrade $http_upgrade;\n  \
         proxy_set_header Host $host; proxy_set_header X-Request-Id $request_id;\n  \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;\n  \
         proxy_set_header X-Forwarded-Host $http_host;\n  \
         upstream app {{ server {} max_fails=3; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; }}\n  \
         upstream sockets {{ server {}; }}\n  \
         server {{ listen {http} default_server; listen {tls} default_server ssl http2; return 404; }}\n{}{}}}\n",
        temporary_paths(directory),
        origin.http,
        origin.sockets,
        server("localhost", "app"),
        server("ws.localhost", "sockets"),
    );
    fs::write(directory.join("nginx.conf"), config).unwrap();
    Running::start(nginx(&mut told.placement.command("nginx"), directory))
}

/// A certificate for `localhost` and the names below it (ECDSA on P-256), signed by itself.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    bundle: PathBuf,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Panics
    /// If there is no `openssl`.
    pub fn make(directory: &Path) -> Self {
        let [chain, key, bundle] = ["chain.pem", "key.pem", "bundle.pem"].map(|name| directory.join(name));
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost"]);
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&chain);
        let made = openssl.output().unwrap_or_else(|error| panic!("openssl: {error}"));
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(&bundle, [fs::read(&chain).unwrap(), fs::read(&key).unwrap()].concat()).unwrap();
        Self { chain, key, bundle }
    }
}
