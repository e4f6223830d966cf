//! What the reference shows is true.

use std::path::{Path, PathBuf};

use coracle_proxy_config::{AccessLog, AcmeChallenge, Config, ConfigError};
use coracle_proxy_rules::{Dialect, Rule};
use coracle_proxy_table::{Admission, CertificateSource, Protocol};

use crate::{kinds, read, route};

fn reference() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/proxy.md")).unwrap()
}

fn examples() -> Vec<String> {
    let text = reference();
    text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn its_examples_are_right() {
    let examples = examples();
    assert!(examples.len() >= 3);
    for example in examples {
        read(&example);
    }
}

#[test]
fn its_complete_example_says_what_it_seems_to() {
    let config = read(examples().last().unwrap());
    assert_eq!(config.access_log, AccessLog::File(PathBuf::from("/var/log/proxy.json")));
    assert_eq!(config.metrics, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.listeners.len(), 4);
    assert_eq!(config.acme.as_ref().unwrap().challenges, [AcmeChallenge::Http01, AcmeChallenge::TlsAlpn01]);
    assert_eq!(config.certificates[0].cert, Path::new("/etc/proxy/tls/wild.pem"));
    assert_eq!(config.table.services[route(&config, "shop.example/grpc").service.as_ref().unwrap()].protocol, Protocol::H2c);
    assert_eq!(route(&config, "api").certificate, CertificateSource::Acme);
    assert_eq!(route(&config, "shop.example/admin").listeners, ["internal"]);
    assert_eq!(kinds(&config, "shop.example/admin"), ["headers", "basic-auth", "ip-allow-list", "strip-prefix"]);
    let closed = &config.table.services[route(&config, "old-label").service.as_ref().unwrap()].admission;
    assert_eq!(*closed, Admission::Closed { message: "back on Monday".to_owned(), retry_after_s: 86_400 });
    for route in &config.table.routes {
        let dialect = if route.dialect == coracle_proxy_table::Dialect::V2 { Dialect::V2 } else { Dialect::V3 };
        Rule::parse(&route.rule, dialect).unwrap();
    }
}

#[test]
fn its_example_of_a_mistake_is_the_real_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    let text = "\n\n\n[routes.api]\nto = 3000\nrule = \"Host(`a.example`) && PathPrefx(`/v1`)\"\n";
    std::fs::write(&path, text).unwrap();
    let error = Config::read(&path).unwrap_err();
    let ConfigError::Mistaken { file, mistakes } = &error else { panic!("{error}") };
    assert_eq!(*file, path.display().to_string());
    assert_eq!(error.to_string(), mistakes.to_text(file));
    let shown = mistakes.to_text("proxy.toml");
    assert!(reference().contains(&shown), "{shown}");
}

#[test]
fn it_names_every_kind_of_middleware() {
    let text = reference();
    let listed = crate::refused("[middlewares.x.y]").to_string();
    let kinds: Vec<&str> = listed.rsplit_once("there are ").unwrap().1.trim().split(", ").collect();
    assert!(kinds.len() > 15, "{listed}");
    for kind in kinds {
        assert!(text.contains(&format!("`{kind}`")), "{kind}");
    }
}

#[test]
fn it_names_every_setting_of_every_middleware() {
    let text = reference();
    let section = text.split("### Their settings").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 15);
    for row in rows {
        let kind = row.split('`').nth(1).unwrap();
        let listed = crate::refused(&format!("[middlewares.x.{kind}]\nno-such-setting = 1")).to_string();
        let settings: Vec<&str> = listed.rsplit_once("there are ").unwrap().1.trim().split(", ").collect();
        for setting in settings {
            let short = ["_ms", "_s", "_bytes"].iter().find_map(|unit| setting.strip_suffix(unit)).unwrap_or(setting);
            assert!(row.contains(&format!("`{short}`")), "{kind}: {setting}");
        }
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = Config::read(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()) && error.contains("No such file"), "{error}");
    std::fs::write(&path, b"a = \"\xff\"").unwrap();
    assert!(Config::read(&path).unwrap_err().to_string().contains("UTF-8"));
    std::fs::write(&path, "#".repeat(5 << 20)).unwrap();
    assert!(Config::read(&path).unwrap_err().to_string().contains("larger than"));
}
