//! `[tls]`: certificates, and what is said to browsers about TLS.

use coracle_toml_reading::Entry;
use std::collections::BTreeMap;

use crate::reading::Reader;
use crate::{Acme, AcmeChallenge, CertificateFiles, Place};

const KEYS: &[&str] = &[
    "acme",
    "acme_email",
    "acme_directory",
    "acme_ca_file",
    "acme_challenges",
    "acme_preflight",
    "certificates",
    "redirect",
    "hsts",
];
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
const A_YEAR: u64 = 365 * 86_400;

/// What the section says.
pub(crate) struct Tls {
    pub(crate) acme: Option<Acme>,
    pub(crate) certificates: Vec<CertificateFiles>,
    /// Whether plain requests for what has TLS are sent there.
    pub(crate) redirect: bool,
    pub(crate) hsts: Option<Hsts>,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hsts {
    pub(crate) seconds: u64,
    pub(crate) include_subdomains: bool,
    pub(crate) preload: bool,
}

pub(crate) fn read(reader: &mut Reader<'_>, entry: Option<&Entry<'_, '_>>, places: &mut BTreeMap<String, Place>) -> Tls {
    let mut tls = Tls { acme: None, certificates: Vec::new(), redirect: true, hsts: None };
    let Some(mut section) = entry.and_then(|entry| reader.sub(entry, KEYS)) else { return tls };
    let mut acme = Acme { email: None, directory: None, ca_file: None, challenges: Vec::new(), preflight: true };
    let switch = section.take("acme");
    let is_on = switch.as_ref().and_then(|entry| reader.boolean(entry));
    let mut first_setting = None;
    for key in KEYS.iter().filter(|key| key.starts_with("acme_")) {
        let Some(entry) = section.take(key) else { continue };
        match *key {
            "acme_email" => acme.email = email(reader, &entry),
            "acme_directory" => acme.directory = directory(reader, &entry),
            "acme_ca_file" => acme.ca_file = reader.path(&entry),
            "acme_preflight" => acme.preflight = reader.boolean(&entry).unwrap_or(true),
            _ => acme.challenges = challenges(reader, &entry),
        }
        first_setting.get_or_insert(entry);
    }
    match (is_on, &first_setting) {
        (Some(false), Some(setting)) => reader.wrong_key(setting, "means nothing, as acme = false", None),
        (Some(true), _) | (None, Some(_)) => tls.acme = Some(acme),
        (Some(false) | None, None) => {}
    }
    if let Some(entry) = section.take("certificates") {
        tls.certificates = certificates(reader, &entry, places);
    }
    if let Some(entry) = section.take("redirect") {
        tls.redirect = reader.boolean(&entry).unwrap_or(true);
    }
    tls.hsts = section.take("hsts").and_then(|entry| hsts(reader, &entry));
    tls
}

fn email(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    let text = reader.text(entry)?;
    let looks_right =
        text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !host.contains('@'));
    if !looks_right || text.contains(char::is_whitespace) || text.starts_with("mailto:") {
        reader.wrong(entry, "is no mail address, as ann@shop.example", None);
    }
    Some(text.to_owned())
}

fn directory(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    match reader.text(entry)? {
        "letsencrypt" => None,
        "letsencrypt-staging" => Some(STAGING.to_owned()),
        url if url.starts_with("https://") => Some(url.to_owned()),
        _ => {
            reader.wrong(entry, "expected \"letsencrypt\", \"letsencrypt-staging\" or a URL that begins with https://", None);
            None
        }
    }
}

fn challenges(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Vec<AcmeChallenge> {
    let kinds = [("http-01", AcmeChallenge::Http01), ("tls-alpn-01", AcmeChallenge::TlsAlpn01)];
    let items = reader.items(entry);
    items.iter().filter_map(|item| reader.choice(item, &kinds)).collect()
}

fn certificates(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, places: &mut BTreeMap<String, Place>) -> Vec<CertificateFiles> {
    let mut all: Vec<CertificateFiles> = Vec::new();
    for (at, item) in reader.items(entry).into_iter().enumerate() {
        let Some(mut section) = reader.sub(&item, &["cert", "key", "default"]) else { continue };
        let cert = section.take("cert").and_then(|entry| reader.path(&entry));
        let key = section.take("key").and_then(|entry| reader.path(&entry));
        let is_default = section.take("default").and_then(|entry| reader.boolean(&entry)).unwrap_or(false);
        let (Some(cert), Some(key)) = (cert, key) else {
            reader.wrong(&item, "needs cert and key, two PEM files", Some("write { cert = \"shop.pem\", key = \"shop.key\" }"));
            continue;
        };
        if is_default && all.iter().any(|other| other.default) {
            reader.wrong(&item, "is the second default; there is one", None);
        }
        places.insert(format!("tls.certificates[{at}]"), reader.mistakes.place(item.value.span().start));
        all.push(CertificateFiles { cert, key, default: is_default });
    }
    all
}

/// `true`, a length of time, or a table.
pub(crate) fn hsts(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<Hsts> {
    let plain = |seconds| Hsts { seconds, include_subdomains: false, preload: false };
    if let Some(is_on) = entry.value.get_ref().as_bool() {
        return is_on.then(|| plain(A_YEAR));
    }
    if !entry.is_table() {
        return reader.milliseconds(entry).map(|milliseconds| plain(milliseconds / 1000));
    }
    let mut section = reader.sub(entry, &["max_age", "include_subdomains", "preload"])?;
    let seconds = section.take("max_age").and_then(|entry| reader.milliseconds(&entry)).map_or(A_YEAR, |ms| ms / 1000);
    let mut flag = |key| section.take(key).and_then(|entry| reader.boolean(&entry)).unwrap_or(false);
    let hsts = Hsts { seconds, include_subdomains: flag("include_subdomains"), preload: flag("preload") };
    if hsts.preload && !(hsts.include_subdomains && hsts.seconds >= A_YEAR) {
        let hint = "browsers' lists take only names with all of that";
        reader.wrong(entry, "preload needs include_subdomains = true and a max_age of at least 365d", Some(hint));
    }
    Some(hsts)
}
