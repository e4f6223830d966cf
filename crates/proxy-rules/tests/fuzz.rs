//! Rules that are changed at random, for a bounded time. `FUZZ_ROUNDS` makes it longer, `FUZZ_SEED` another one.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr};

use coracle_proxy_rules::{Dialect, Facts, Router, Rule, domains};

const CORPUS: &[&str] = &[
    "Host(`shop.example`)",
    "Host(`shop.example`) && (Path(`/api`) || PathPrefix(`/api/`))",
    "HostRegexp(`^[^.]+\\.shop\\.example$`) && !Method(`POST`)",
    "PathRegexp(\"^/\\\\d{2,}[a-z-]+(x|y)?$\") || Query(`q`, `a b`)",
    "Header(`X-Team`, `blue`) && HeaderRegexp(`Accept`, `(?i)json`)",
    "ClientIP(`10.0.0.0/8`) || ClientIP(`2001:db8::/32`)",
    "!(!(Host(`a`) && Host(`*.b`)) || Host(`**.c`))",
    "Host(`a`, `b`) && Path(`/{id:[0-9]+}/{rest:.*}`, `/x`)",
    "HostRegexp(`{sub:[a-z]+}.shop.example`) && Query(`a=b`, `id={id}`)",
    "Headers(`A`, `1`, `B`, `2`) && HeadersRegexp(`C`, `[^]]`) && QueryRegexp(`q`, `\\Q.\\E[[:alpha:]&&-]`)",
];

const PIECES: &[&str] = &[
    "(", ")", "`", "\"", "\\", "!", "&&", "||", ",", "{", "}", "[", "]", "^", "$", "|", "*", "(?", "\\b", "\\x", "é", " ", "\n",
    "Host(`", "Path(`/", "`)", ".", "%",
];

struct Sent {
    host: String,
    path: String,
    query: String,
}

impl Facts for Sent {
    fn host(&self) -> &str {
        &self.host
    }

    fn method(&self) -> &str {
        "GET"
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> &str {
        &self.query
    }

    fn header_values(&self, _name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) {
        visit(b"blue\xff");
    }

    fn client_ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))
    }
}

/// Numbers that look random and are the same in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }

    fn boundary(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn change(&mut self, text: &mut String) {
        let (one, other) = (self.boundary(text), self.boundary(text));
        let (from, to) = (one.min(other), one.max(other));
        match self.below(4) {
            0 => text.insert_str(from, PIECES[self.below(PIECES.len())]),
            1 => text.replace_range(from..to, ""),
            2 => {
                let copied = text[from..to].to_owned();
                let at = self.boundary(text);
                text.insert_str(at, &copied);
            }
            _ => {
                let with = CORPUS[self.below(CORPUS.len())];
                let at = self.boundary(with);
                text.truncate(from);
                text.push_str(&with[at..]);
            }
        }
        while text.len() > 2000 {
            text.pop();
        }
    }
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn changed_rules_are_refused_or_mean_one_thing() {
    let mut numbers = Numbers(number("FUZZ_SEED", 0x00c0_ac1e).max(1));
    let requests = ["shop.example", "a.shop.example.", "b", "", "[::1]"].map(|host| Sent {
        host: host.to_owned(),
        path: "/api/%7Bx%2fé%".to_owned(),
        query: "q=a+b&id=%zz&a=b;c".to_owned(),
    });
    let mut taken = 0;
    for _ in 0..number("FUZZ_ROUNDS", 20_000) {
        let mut text = CORPUS[numbers.below(CORPUS.len())].to_owned();
        for _ in 0..=numbers.below(4) {
            numbers.change(&mut text);
        }
        drop(domains(&text));
        for dialect in [Dialect::V2, Dialect::V3] {
            let rule = match Rule::parse(&text, dialect) {
                Ok(rule) => rule,
                Err(error) => {
                    assert!(text.is_char_boundary(error.offset), "{text:?}: {error}");
                    continue;
                }
            };
            taken += 1;
            let written = if rule.in_v3().is_some() { Dialect::V3 } else { dialect };
            assert_eq!(Rule::parse(&rule.to_string(), written).as_ref(), Ok(&rule), "{text:?} {rule}");
            let router = Router::new((0..10).map(|at| (rule.clone(), 0, at)));
            for request in &requests {
                assert_eq!(router.find(request), rule.matches(request).then_some(&0), "{text:?} {:?}", request.host);
            }
        }
    }
    assert!(taken > 0, "nothing was taken: the corpus is out of date");
}
