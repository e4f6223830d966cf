//! Sites, and the routes that they become.

use coracle_proxy_rules::{Dialect, Rule};
use coracle_proxy_table::{CertificateSource, Middleware, Protocol};

use crate::{kinds, middlewares, read, refused, route};

const WITH_ACME: &str = "[tls]\nacme_email = \"a@b.example\"\n";
const WITH_CERTIFICATE: &str = "[tls]\ncertificates = { cert = \"a\", key = \"b\" }\n";

#[test]
fn a_file_that_is_named_without_its_folder_lies_in_this_one() {
    let here = std::env::current_dir().unwrap();
    let folder = tempfile::tempdir_in(&here).unwrap();
    let absolute = folder.path().join("proxy.toml");
    let path = absolute.strip_prefix(here).unwrap();
    std::fs::write(path, "[sites.\"a.example\"]\ntls = \"off\"\nfiles = \"site\"").unwrap();
    let config = coracle_proxy_config::Config::read(path).unwrap();
    let Some(Middleware::StaticFiles(files)) = config.table.middlewares.into_values().next() else { panic!("no files") };
    assert_eq!(std::path::Path::new(&files.root), folder.path().join("site"));
}

#[test]
fn two_lines_are_a_site() {
    let config = read("[sites.\"shop.localhost\"]\nto = \"127.0.0.1:3000\"");
    let site = route(&config, "shop.localhost");
    assert_eq!(
        (site.rule.as_str(), site.tls, site.certificate),
        ("Host(`shop.localhost`)", Some(true), CertificateSource::Local)
    );
    let service = &config.table.services[site.service.as_ref().unwrap()];
    assert_eq!(service.targets[0].address, "127.0.0.1:3000".parse().unwrap());
    let plain = route(&config, "shop.localhost#https");
    assert_eq!((plain.rule.as_str(), plain.tls, &plain.service), (site.rule.as_str(), Some(false), &None));
    assert_eq!(kinds(&config, "shop.localhost#https"), ["redirect-scheme"]);
    assert_eq!(config.table.routes.len(), 2);
    assert_eq!(config.table.check(), Ok(()));
}

#[test]
fn where_certificates_come_from() {
    use CertificateSource::{Acme, Given, Local};
    let of = |head: &str, host: &str, tls: &str| {
        let config = read(&format!("{head}[sites.\"{host}\"]\nto = 3000\n{tls}"));
        let site = route(&config, host);
        (site.certificate, site.tls)
    };
    assert_eq!(of("", "shop.example", ""), (Given, None), "nobody to ask: served as it comes");
    assert_eq!(of(WITH_ACME, "shop.example", ""), (Acme, Some(true)));
    assert_eq!(of(WITH_ACME, "localhost", ""), (Local, Some(true)));
    assert_eq!(of(WITH_ACME, "192.0.2.1", ""), (Given, None));
    assert_eq!(of(WITH_ACME, "*.shop.example", ""), (Given, None));
    assert_eq!(of(WITH_CERTIFICATE, "shop.example", ""), (Given, Some(true)));
    assert_eq!(of(WITH_CERTIFICATE, "*", ""), (Given, Some(true)));
    assert_eq!(of(WITH_ACME, "shop.example", "tls = \"local\""), (Local, Some(true)));
    assert_eq!(of(WITH_ACME, "shop.example", "tls = \"off\""), (Given, Some(false)));
    assert_eq!(of(WITH_ACME, "shop.example", "redirect = false"), (Acme, None));
    assert_eq!(of("[listen]\nhttp = \":80\"\n", "localhost", ""), (Given, None));
    refused("[listen]\nhttp = \":80\"\n[sites.localhost]\nto = 1\ntls = \"local\"");
    refused("[sites.\"shop.example\"]\nto = 1\ntls = \"acme\"");
    refused("[sites.\"shop.example\"]\nto = 1\ntls = \"given\"");
    refused(&format!("{WITH_ACME}[sites.\"*.shop.example\"]\nto = 1\ntls = \"acme\""));
    refused("[sites.\"shop.example\"]\nto = 1\nredirect = true");
}

#[test]
fn without_a_plain_listener_nothing_is_redirected() {
    let config = read("[listen]\nhttps = \":8443\"\n[sites.localhost]\nto = 1");
    assert_eq!(config.table.routes.len(), 1);
    let config = read("[listen]\nhttp = \":80\"\nhttps = \":8443\"\n[sites.localhost]\nto = 1");
    let Middleware::RedirectScheme(redirect) = middlewares(&config, "localhost#https")[0] else { panic!() };
    assert_eq!(redirect.port, Some(8443));
}

#[test]
fn hosts_and_paths() {
    let rule = |name: &str, more: &str| route(&read(&format!("[sites.\"{name}\"]\nto = 1\n{more}")), name).rule.clone();
    assert_eq!(rule("A.example./api/", ""), "Host(`a.example`) && (Path(`/api`) || PathPrefix(`/api/`))");
    assert_eq!(rule("a.example", "path = \"/api\""), "Host(`a.example`) && (Path(`/api`) || PathPrefix(`/api/`))");
    assert_eq!(rule("a.example", "aliases = [\"b.example\"]"), "(Host(`a.example`) || Host(`b.example`))");
    assert_eq!(rule("*", ""), "PathPrefix(`/`)");
    assert_eq!(rule("*/x", ""), "(Path(`/x`) || PathPrefix(`/x/`))");
    assert_eq!(rule("*.a.example", ""), "Host(`*.a.example`)");
    for wrong in ["a b", "a:80", "", "/x", "a/x y", "a/`", "a//b", "ä", "a?b", "a*b"] {
        refused(&format!("[sites.\"{wrong}\"]\nto = 1"));
    }
    refused("[sites.\"a/x\"]\nto = 1\npath = \"/y\"");
}

#[test]
fn the_more_exact_site_goes_first() {
    let names =
        ["a.example", "*.example", "**.example", "*", "a.example/x", "*.example/x", "**.example/x", "*/x/y/z", "a.example/x/y"];
    let text: String = names.iter().map(|name| format!("[sites.\"{name}\"]\nto = 1\n")).collect();
    let config = read(&text);
    let priority = |name: &str| {
        let route = route(&config, name);
        route.priority.unwrap_or_else(|| Rule::parse(&route.rule, Dialect::V3).unwrap().priority())
    };
    let mut sorted = names;
    sorted.sort_by_key(|name| -priority(name));
    assert_eq!(
        sorted,
        ["a.example/x/y", "a.example/x", "a.example", "*.example/x", "*.example", "**.example/x", "**.example", "*/x/y/z", "*"]
    );
}

#[test]
fn other_hosts_are_sent_here() {
    let config = read(&format!("{WITH_ACME}[sites.\"shop.example\"]\nto = 1\nredirect_from = \"www.shop.example\""));
    let from = route(&config, "shop.example#from");
    assert_eq!((from.rule.as_str(), from.tls, from.certificate), ("Host(`www.shop.example`)", None, CertificateSource::Acme));
    let Middleware::CanonicalHost(canonical) = middlewares(&config, "shop.example#from")[0] else { panic!() };
    assert_eq!((canonical.host.as_str(), canonical.permanent), ("shop.example", true));
}

#[test]
fn an_address_belongs_to_one_site() {
    for twice in [
        "[sites.\"a.example\"]\nto = 1\n[sites.\"A.example\"]\nto = 1",
        "[sites.\"a.example\"]\nto = 1\n[sites.\"b.example\"]\nto = 1\naliases = \"a.example\"",
        "[sites.\"www.a.example\"]\nto = 1\n[sites.\"a.example\"]\nto = 1\nredirect_from = \"www.a.example\"",
        "[sites.\"a.example\"]\nto = 1\nredirect_from = \"a.example\"",
        "[sites.\"a.example/x\"]\nto = 1\n[sites.\"a.example\"]\nto = 1\npath = \"/x/\"",
    ] {
        let text = refused(twice).to_string();
        assert!(text.contains("already"), "{text}");
    }
    read("[sites.\"a.example\"]\nto = 1\n[sites.\"a.example/x\"]\nto = 1\n[sites.\"b.example/x\"]\nto = 1");
}

#[test]
fn files_redirects_and_the_rest() {
    let config = read(
        r#"
        [sites.a]
        files = "www"
        fallback = "index.html"
        to = "h2c://127.0.0.1:5"
        [sites.b]
        redirect_to = "https://c.example/x/"
        [sites."c/v1"]
        service = "s"
        strip_prefix = true
        compress = true
        max_body = "1MB"
        headers = { X-A = "1", Server = "" }
        basic_auth = "ann:$apr1$x$y"
        middlewares = ["m"]
        [sites.d]
        middlewares = "m"
        [services.s]
        targets = 7
        [middlewares.m.maintenance]
        "#,
    );
    let [Middleware::StaticFiles(files)] = middlewares(&config, "a")[..] else { panic!() };
    assert_eq!(
        (files.root.as_str(), files.spa_fallback.as_deref(), files.pass_missing),
        ("/etc/proxy/www", Some("index.html"), true)
    );
    assert_eq!(config.table.services[route(&config, "a").service.as_ref().unwrap()].protocol, Protocol::H2c);
    let [Middleware::RedirectRegex(redirect)] = middlewares(&config, "b")[..] else { panic!() };
    assert_eq!(redirect.replacement, "https://c.example/x${1}");
    assert_eq!(kinds(&config, "c/v1"), ["headers", "compress", "basic-auth", "body-limit", "maintenance", "strip-prefix"]);
    let [Middleware::Headers(headers), .., Middleware::StripPrefix(strip)] = middlewares(&config, "c/v1")[..] else { panic!() };
    assert_eq!(headers.custom_response_headers["X-A"], "1");
    assert_eq!(strip.prefixes, ["/v1"]);
    assert_eq!(route(&config, "d").service, None);
}

#[test]
fn hsts_is_on_everything_or_on_one_site() {
    let config = read(
        "[tls]\nhsts = \"30d\"\n[sites.\"a.localhost\"]\nto = 1\n[sites.\"b.localhost\"]\nto = 1\nhsts = false\n[routes.r]\nrule = \"Path(`/`)\"\nto = 1",
    );
    let seconds = |id: &str| {
        let first = middlewares(&config, id).into_iter().next();
        first.map(|middleware| if let Middleware::Headers(headers) = middleware { headers.sts_seconds } else { panic!() })
    };
    assert_eq!((seconds("a.localhost"), seconds("b.localhost"), seconds("r")), (Some(30 * 86_400), None, Some(30 * 86_400)));
    refused("[tls]\nhsts = { preload = true }");
    refused("[tls]\nhsts = 5");
}

#[test]
fn what_does_not_go_together() {
    for wrong in [
        "",
        "to = []",
        "to = 1\nservice = \"s\"",
        "to = 1\nredirect_to = \"https://b\"",
        "redirect_to = \"b.example\"",
        "redirect_to = \"https://\"",
        "files = \"x\"\nhealth = \"/\"",
        "to = 1\nfallback = \"index.html\"",
        "to = 1\nstrip_prefix = true",
        "to = 1\nstrip_prefix = \"x\"",
        "to = 1\nbasic_auth = \"ann\"",
        "to = 1\nheaders = { \"a b\" = \"1\" }",
        "to = 1\nheaders = { a = \"1\\r\\nb: 2\" }",
        "to = 1\nlisteners = \"ftp\"",
        "to = 1\nmax_body = \"much\"",
        "service = \"t\"",
    ] {
        refused(&format!("[sites.a]\n{wrong}\n[services.s]\ntargets = 1"));
    }
}
