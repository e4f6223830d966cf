//! Answers to challenges that are under way: to those of the authority and to our own probes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::sign::CertifiedKey;

/// Where HTTP-01 is answered (RFC 8555, section 8.3).
pub(crate) const HTTP_PATH: &str = "/.well-known/acme-challenge/";

/// Answers by name; an entry is there as long as its [`Posted`] lives.
#[derive(Default)]
pub(crate) struct Challenges(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// By token; tokens are unguessable and unique.
    http: HashMap<String, Http>,
    /// By name.
    tls: HashMap<String, Arc<CertifiedKey>>,
}

struct Http {
    host: String,
    answer: String,
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").finish_non_exhaustive()
    }
}

/// An answer that is being given; taken away when dropped.
#[must_use]
pub(crate) struct Posted {
    challenges: Arc<Challenges>,
    what: What,
}

enum What {
    Http(String),
    Tls(String),
}

impl Challenges {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers `GET /.well-known/acme-challenge/TOKEN` for this host.
    pub(crate) fn post_http(self: &Arc<Self>, host: &str, token: &str, answer: &str) -> Posted {
        let http = Http { host: host.to_owned(), answer: answer.to_owned() };
        self.table().http.insert(token.to_owned(), http);
        Posted { challenges: self.clone(), what: What::Http(token.to_owned()) }
    }

    /// Answers handshakes that offer `acme-tls/1` for this host.
    pub(crate) fn post_tls(self: &Arc<Self>, host: &str, key: Arc<CertifiedKey>) -> Posted {
        self.table().tls.insert(host.to_owned(), key);
        Posted { challenges: self.clone(), what: What::Tls(host.to_owned()) }
    }

    /// The answer to a request; `host` may have a port and capital letters.
    pub(crate) fn http(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix(HTTP_PATH)?;
        let table = self.table();
        let http = table.http.get(token)?;
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        http.host.eq_ignore_ascii_case(name).then(|| http.answer.clone())
    }

    /// The certificate for a validator's handshake.
    pub(crate) fn tls(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.table().tls.get(&host.to_ascii_lowercase()).cloned()
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        let mut table = self.challenges.table();
        match &self.what {
            What::Http(token) => drop(table.http.remove(token)),
            What::Tls(host) => drop(table.tls.remove(host)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_answer_is_given_for_its_host_and_token_alone_and_only_while_it_is_posted() {
        let challenges = Arc::new(Challenges::default());
        let posted = challenges.post_http("shop.example", "abc", "abc.thumb");
        let ask = |host: &str, path: &str| challenges.http(host, path);
        let path = "/.well-known/acme-challenge/abc";
        for host in ["shop.example", "SHOP.example:80", "shop.example.:8080"] {
            assert_eq!(ask(host, path).as_deref(), Some("abc.thumb"), "{host}");
        }
        assert_eq!(ask("other.example", path), None);
        assert_eq!(ask("shop.example", "/.well-known/acme-challenge/abcd"), None);
        assert_eq!(ask("shop.example", "/abc"), None);
        assert_eq!(ask("", path), None);
        drop(posted);
        assert_eq!(ask("shop.example", path), None);
    }
}
