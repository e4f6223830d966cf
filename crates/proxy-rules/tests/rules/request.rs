//! A request, said in one line.

use std::net::IpAddr;

use coracle_proxy_rules::Facts;

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) client: IpAddr,
}

/// A GET of `host[:port]/path[?query]`, with or without a scheme, from 192.0.2.1.
pub(crate) fn get(url: &str) -> Request {
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, rest) = url.split_at(url.find(['/', '?']).unwrap_or(url.len()));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => host,
        _ => authority,
    };
    Request {
        method: "GET".to_owned(),
        host: host.to_lowercase(),
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        query: query.to_owned(),
        headers: Vec::new(),
        client: "192.0.2.1".parse().unwrap(),
    }
}

impl Request {
    pub(crate) fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn from(mut self, client: &str) -> Self {
        self.client = client.parse().unwrap();
        self
    }
}

impl Facts for Request {
    fn host(&self) -> &str {
        &self.host
    }

    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> &str {
        &self.query
    }

    fn header_values(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) {
        let of_name = self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        for (_, value) in of_name {
            if visit(value.as_bytes()) {
                return;
            }
        }
    }

    fn client_ip(&self) -> IpAddr {
        self.client
    }
}
