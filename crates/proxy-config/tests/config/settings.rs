//! Listeners, TLS, limits and what stands at the top.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_proxy_config::{AccessLog, Config, Limits, Listener};

use crate::{read, refused};

fn listener(config: &Config, at: usize) -> (&str, String, bool) {
    let Listener { name, address, tls, .. } = &config.listeners[at];
    (name, address.to_string(), *tls)
}

#[test]
fn an_empty_file_listens_where_the_web_does() {
    let config = read("");
    assert_eq!(listener(&config, 0), ("http", "[::]:80".to_owned(), false));
    assert_eq!(listener(&config, 1), ("https", "[::]:443".to_owned(), true));
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.limits, Limits::default());
    assert_eq!((config.acme, config.workers, config.drain, config.metrics), (None, None, None, None));
    assert_eq!(config.access_log, AccessLog::Off);
    assert!(config.table.routes.is_empty());
}

#[test]
fn listeners_are_addresses_or_tables() {
    let config = read(
        r#"[listen]
        a = 8080
        b = "127.0.0.1:443"
        c = [":81", "[::1]:82"]
        https = { address = ":8443", proxy_protocol = ["10.1.2.3/8", "::1"] }
        plain = { address = "0.0.0.0:0", tls = false }
        also = "0.0.0.0:0""#,
    );
    let all: Vec<_> = (0..config.listeners.len()).map(|at| listener(&config, at)).collect();
    let expected = [
        ("a", "[::]:8080", false),
        ("b", "127.0.0.1:443", true),
        ("c", "[::]:81", false),
        ("c", "[::1]:82", false),
        ("https", "[::]:8443", true),
        ("plain", "0.0.0.0:0", false),
        ("also", "0.0.0.0:0", false),
    ];
    assert_eq!(all, expected.map(|(name, address, tls)| (name, address.to_owned(), tls)));
    let nets = config.listeners[4].proxy_protocol.as_ref().unwrap();
    assert_eq!(nets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
    assert_eq!(config.listeners[0].proxy_protocol, None);
}

#[test]
fn the_top() {
    let config = read(
        r#"trusted_proxies = ["private", "203.0.113.9"]
        access_log = "logs/a.json"
        workers = 3
        drain = "1m30s"
        state_dir = "state"
        control_socket = "/run/p.sock"
        metrics = "0.0.0.0:9100""#,
    );
    assert!(config.trusted_proxies.contains(&"192.168.0.0/16".parse().unwrap()));
    assert_eq!(config.trusted_proxies.last(), Some(&"203.0.113.9/32".parse().unwrap()));
    assert_eq!(config.access_log, AccessLog::File(PathBuf::from("/etc/proxy/logs/a.json")));
    assert_eq!((config.workers, config.drain), (Some(3), Some(Duration::from_secs(90))));
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/etc/proxy/state")));
    assert_eq!(config.control_socket.as_deref(), Some(Path::new("/run/p.sock")));
    assert_eq!(config.metrics, Some("0.0.0.0:9100".parse().unwrap()));
    assert_eq!(read("access_log = \"stdout\"").access_log, AccessLog::Stdout);
}

#[test]
fn what_targets_are_told_and_what_paths_may_have() {
    let config = read("");
    assert_eq!((config.forwarded_server, config.forwarded_append, config.forwarded_scheme), (None, None, None));
    assert_eq!((config.connection_fields.len(), config.encoded_characters), (0, None));
    let config = read(
        r#"forwarded_server = "edge-1"
        forwarded_append = false
        forwarded_scheme = true
        connection_fields = ["X-Trace", "x-team"]
        encoded_characters = ["slash", "question-mark"]"#,
    );
    assert_eq!(config.forwarded_server.as_deref(), Some("edge-1"));
    assert_eq!((config.forwarded_append, config.forwarded_scheme), (Some(false), Some(true)));
    assert_eq!(config.connection_fields, ["x-trace", "x-team"]);
    assert_eq!(config.encoded_characters, Some(vec!["slash", "question-mark"]));
    assert_eq!(read("encoded_characters = []").encoded_characters, Some(vec![]));
    for (wrong, told) in [
        ("forwarded_server = \"a b\"", "without spaces"),
        ("connection_fields = \"a b\"", "no name of a header field"),
        ("connection_fields = [\"x\", \"Transfer-Encoding\"]", "never passed on"),
        ("encoded_characters = \"space\"", "must be one of \"slash\""),
    ] {
        let mistakes = refused(wrong).to_string();
        assert!(mistakes.contains(told), "{mistakes}");
    }
}

#[test]
fn limits() {
    let limits =
        read("[limits]\nidle = \"2m\"\nheader_size = \"32KB\"\nconnections_per_client = 7\nupstream_idle_connections = 0\nhttp2_streams = 16").limits;
    let expected = Limits {
        idle: Some(Duration::from_secs(120)),
        header_bytes: Some(32 << 10),
        connections_per_client: Some(7),
        upstream_idle_connections: Some(0),
        http2_streams: Some(16),
        ..Limits::default()
    };
    assert_eq!(limits, expected);
    for wrong in [
        "idle = \"0s\"",
        "idle = 5",
        "header_size = \"1KB\"",
        "header_fields = 1",
        "connections_per_client = 0",
        "http2_streams = 0",
    ] {
        refused(&format!("[limits]\n{wrong}"));
    }
}

#[test]
fn acme_is_on_when_anything_is_said_about_it() {
    assert_eq!(read("[tls]").acme, None);
    let acme = read("[tls]\nacme = true").acme.unwrap();
    assert_eq!((acme.email, acme.directory, acme.preflight), (None, None, true));
    let acme = read("[tls]\nacme_email = \"a@b.example\"\nacme_directory = \"https://ca.test/dir\"\nacme_ca_file = \"ca.pem\"")
        .acme
        .unwrap();
    assert_eq!((acme.email.as_deref(), acme.directory.as_deref()), (Some("a@b.example"), Some("https://ca.test/dir")));
    assert_eq!(acme.ca_file.as_deref(), Some(Path::new("/etc/proxy/ca.pem")));
    let staging = read("[tls]\nacme_directory = \"letsencrypt-staging\"\nacme_preflight = false").acme.unwrap();
    assert!(staging.directory.unwrap().contains("staging") && !staging.preflight);
    for wrong in [
        "acme_email = \"ann\"",
        "acme_directory = \"http://ca\"",
        "acme = false\nacme_email = \"a@b.example\"",
        "acme_challenges = \"dns-01\"",
    ] {
        refused(&format!("[tls]\n{wrong}"));
    }
}

#[test]
fn certificates_are_pairs_of_files() {
    let config = read(
        "[[tls.certificates]]\ncert = \"a.pem\"\nkey = \"/k/a.key\"\n[[tls.certificates]]\ncert = \"b\"\nkey = \"b\"\ndefault = true",
    );
    assert_eq!(config.certificates.len(), 2);
    assert_eq!(config.certificates[0].cert, Path::new("/etc/proxy/a.pem"));
    assert_eq!(config.certificates[0].key, Path::new("/k/a.key"));
    assert!(config.certificates[1].default && !config.certificates[0].default);
    assert_eq!(config.places["tls.certificates[1]"].line, 4);
    for wrong in [
        "{ cert = \"a\" }",
        "{}",
        "\"a\"",
        "[{ cert = \"a\", key = \"b\", default = true }, { cert = \"a\", key = \"b\", default = true }]",
    ] {
        refused(&format!("[tls]\ncertificates = {wrong}"));
    }
}
