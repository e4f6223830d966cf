//! Middlewares as an engine uses them: a chain, a request, an answer.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, missing_docs)]

mod chains;
mod compression;
mod errors;
mod files;
mod forwarded_auth;
mod headers;
mod limits;
mod passwords;
mod paths;
mod redirects;
mod settings;

use coracle_proxy_http::{Fields, Known, RequestHead, ResponseHead};
use coracle_proxy_middleware::{After, Answer, AnswerBody, Chain, Client, Fetch, FetchError, Fetched, Passage, State};
use coracle_proxy_table::{AuthTls, Middleware, MiddlewareId, ServiceId};
use http::{Method, StatusCode};

/// For chains that ask nobody.
pub struct Nobody;

impl Fetch for Nobody {
    fn fetch<'f>(&'f self, _: &'f str, _: &'f Method, _: &'f Fields, _: &'f AuthTls) -> Fetched<'f> {
        Box::pin(async { Err(FetchError("there is nobody".to_owned())) })
    }

    fn page<'f>(&'f self, _: &'f ServiceId, _: RequestHead) -> Fetched<'f> {
        Box::pin(async { Err(FetchError("there is nobody".to_owned())) })
    }
}

/// A chain of middlewares as they are written in a table.
pub fn chain(middlewares: &[&str]) -> Chain {
    try_chain(middlewares, &State::new()).unwrap()
}

pub fn try_chain(middlewares: &[&str], state: &State) -> Result<Chain, String> {
    let parse = |(index, text): (usize, &&str)| {
        let middleware: Middleware = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (MiddlewareId(format!("m{index}")), middleware)
    };
    let middlewares: Vec<_> = middlewares.iter().enumerate().map(parse).collect();
    Chain::compile(&middlewares, state).map_err(|error| error.to_string())
}

/// A request by `METHOD http(s)://host/target`, with fields.
pub fn request(line: &str, fields: &[(&str, &str)]) -> (Client, RequestHead) {
    let (method, url) = line.split_once(' ').unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (host, target) = rest.split_at(rest.find('/').unwrap());
    let mut head = RequestHead::new(method.parse().unwrap(), target, host).unwrap();
    for (name, value) in fields {
        head.fields.append(name, value).unwrap();
    }
    (client("192.0.2.1", scheme == "https"), head)
}

pub fn client(ip: &str, tls: bool) -> Client {
    let ip = ip.parse().unwrap();
    Client { ip, peer: (ip, 4711).into(), tls, listener_port: if tls { 443 } else { 80 } }
}

/// What the target sees of a request, or the client gets in its place.
pub async fn pass(chain: &Chain, line: &str, fields: &[(&str, &str)]) -> Result<(RequestHead, Passage), Answer> {
    let (client, mut head) = request(line, fields);
    let passage = chain.request(&client, &mut head, &Nobody).await?;
    Ok((head, passage))
}

/// The same, where it is the target that must see it.
pub async fn reaches(chain: &Chain, line: &str, fields: &[(&str, &str)]) -> (RequestHead, Passage) {
    pass(chain, line, fields).await.unwrap_or_else(|answer| panic!("{line}: {:?}", answer.head))
}

/// The same, where it is the client that must get an answer.
pub async fn answered(chain: &Chain, line: &str, fields: &[(&str, &str)]) -> Answer {
    pass(chain, line, fields).await.err().unwrap_or_else(|| panic!("{line} passed"))
}

/// The status of the answer; 200 if the request passes.
pub async fn status(chain: &Chain, line: &str, fields: &[(&str, &str)]) -> u16 {
    pass(chain, line, fields).await.err().map_or(200, |answer| answer.head.status.as_u16())
}

/// The head of a target's answer.
pub fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    for (name, value) in fields {
        head.fields.append(name, value).unwrap();
    }
    head
}

/// What becomes of a target's answer to a request that passes.
pub async fn back(chain: &Chain, line: &str, asked: &[(&str, &str)], mut head: ResponseHead) -> (ResponseHead, After) {
    let (_, mut passage) = reaches(chain, line, asked).await;
    let after = chain.response(&mut passage, &mut head);
    (head, after)
}

pub fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get_str(name)
}

/// The bytes of a body, from memory or from a file.
pub fn body(answer: &Answer) -> Vec<u8> {
    match &answer.body {
        AnswerBody::Bytes(bytes) => bytes.to_vec(),
        AnswerBody::File { file, offset, len } => {
            let mut bytes = vec![0; usize::try_from(*len).unwrap()];
            std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, *offset).unwrap();
            bytes
        }
    }
}

pub fn text(answer: &Answer) -> String {
    let length = answer.head.fields.get_known_str(Known::ContentLength).unwrap();
    let body = body(answer);
    assert_eq!(length, body.len().to_string());
    String::from_utf8(body).unwrap()
}
