//! `[routes.NAME]`: the full form, in which everything can be said that a table can.

use coracle_proxy_rules::Rule;
use coracle_proxy_table::{CertificateSource, Dialect, Route, RouteId};
use coracle_toml_reading::Entry;

use crate::reading::{Reader, Section};
use crate::services::{self, SHARING_KEYS};
use crate::table::Draft;

const KEYS: &[&str] =
    &["rule", "dialect", "priority", "listeners", "tls", "middlewares", "service", "to", "certificate", "redirect"];

pub(crate) fn read(reader: &mut Reader<'_>, entries: &[Entry<'_, '_>], draft: &mut Draft) {
    let keys = [KEYS, SHARING_KEYS].concat();
    for entry in entries {
        let Some(mut section) = reader.sub(entry, &keys) else { continue };
        draft.place(reader, "routes", entry.key, entry);
        one(reader, entry, &mut section, draft);
    }
}

fn one(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, section: &mut Section<'_, '_>, draft: &mut Draft) {
    let dialects = [("v3", Dialect::V3), ("v2", Dialect::V2)];
    let dialect = section.take("dialect").and_then(|entry| reader.choice(&entry, &dialects)).unwrap_or_default();
    let rule_entry = section.take("rule");
    let rule = rule_entry.as_ref().and_then(|entry| rule(reader, entry, dialect));
    if rule_entry.is_none() {
        reader.wrong_key(entry, "has no rule", Some("write rule = \"Host(`shop.example`)\""));
    }
    let mut middlewares = section.take("middlewares").map(|entry| draft.middleware_names(reader, &entry)).unwrap_or_default();
    if let Some(hsts) = draft.tls.hsts {
        middlewares.insert(0, draft.hsts("#hsts", hsts));
    }
    let service = service(reader, entry, section, draft, !middlewares.is_empty());
    let certificate = certificate(reader, section, draft, rule.as_ref());
    let route = Route {
        id: RouteId(entry.key.to_owned()),
        rule: rule.as_ref().map(|rule| rule.text().to_owned()).unwrap_or_default(),
        dialect,
        priority: section.take("priority").and_then(|entry| reader.integer(&entry, i64::MIN..=i64::MAX)),
        listeners: section.take("listeners").map(|entry| draft.listener_names(reader, &entry)).unwrap_or_default(),
        tls: section.take("tls").and_then(|entry| reader.boolean(&entry)),
        middlewares,
        service,
        certificate,
    };
    let wants_redirect = section.take("redirect").and_then(|entry| {
        let wanted = reader.boolean(&entry)?;
        if wanted && (route.tls.is_some() || !route.listeners.is_empty()) {
            reader.wrong_key(&entry, "does not go with tls or listeners", Some("write a route of its own for plain requests"));
        }
        Some(wanted)
    });
    let is_usual = route.certificate != CertificateSource::Given && route.tls.is_none() && route.listeners.is_empty();
    if wants_redirect.unwrap_or(draft.tls.redirect && is_usual) {
        draft.add_route_over_tls(route);
    } else {
        draft.table.routes.push(route);
    }
}

fn service(
    reader: &mut Reader<'_>,
    entry: &Entry<'_, '_>,
    section: &mut Section<'_, '_>,
    draft: &mut Draft,
    has_middlewares: bool,
) -> Option<coracle_proxy_table::ServiceId> {
    match (section.take("to"), section.take("service")) {
        (Some(to), named) => {
            if let Some(named) = named {
                reader.wrong_key(&named, "does not go with to, which makes a service of its own", None);
            }
            let service = services::service(reader, section, Some(&to));
            if draft.services.contains(entry.key) {
                reader.wrong_key(
                    &to,
                    format!("there is a service {:?} already", entry.key),
                    Some("write service = … in place of to"),
                );
            }
            Some(draft.add_service(entry.key, service))
        }
        (None, named) => {
            services::refuse_sharing(reader, section);
            if named.is_none() && !has_middlewares {
                reader.wrong_key(entry, "leads nowhere", Some("write to = \"127.0.0.1:3000\" or service = \"NAME\""));
            }
            draft.service_name(reader, &named?)
        }
    }
}

fn certificate(reader: &mut Reader<'_>, section: &mut Section<'_, '_>, draft: &Draft, rule: Option<&Rule>) -> CertificateSource {
    let kinds = [("given", CertificateSource::Given), ("acme", CertificateSource::Acme), ("local", CertificateSource::Local)];
    let Some(entry) = section.take("certificate") else { return CertificateSource::Given };
    let Some(source) = reader.choice(&entry, &kinds) else { return CertificateSource::Given };
    check_source(reader, &entry, source, draft);
    if let Some(rule) = rule.filter(|_| source != CertificateSource::Given) {
        let has_wildcard = source == CertificateSource::Local && !rule.wildcards().is_empty();
        if rule.hosts().is_empty() && !has_wildcard {
            reader.wrong(&entry, "the rule names no host to certify", Some("only names in Host(`…`) can be"));
        }
    }
    source
}

/// Notes a source of certificates that this configuration does not have.
pub(crate) fn check_source(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, source: CertificateSource, draft: &Draft) {
    match source {
        CertificateSource::Acme if draft.tls.acme.is_none() => {
            reader.wrong(
                entry,
                "there is no ACME account to order with",
                Some("write acme_email = \"…\" (or acme = true) under [tls]"),
            );
        }
        CertificateSource::Given if draft.tls.certificates.is_empty() => {
            reader.wrong(entry, "no certificates are given", Some("write certificates = [{ cert = …, key = … }] under [tls]"));
        }
        _ => {}
    }
    if !draft.has_tls_listener() {
        reader.wrong(entry, "nothing listens for TLS", Some("write https = \":443\" under [listen]"));
    }
}

fn rule(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, dialect: Dialect) -> Option<Rule> {
    let text = reader.text(entry)?;
    let dialect = match dialect {
        Dialect::V2 => coracle_proxy_rules::Dialect::V2,
        Dialect::V3 => coracle_proxy_rules::Dialect::V3,
    };
    match Rule::parse(text, dialect) {
        Ok(rule) => Some(rule),
        Err(error) => {
            let span = reader.mistakes.within(entry.value.span(), text, error.offset);
            reader.mistakes.add(span, &entry.path, error.message, None);
            None
        }
    }
}
