//! The far end of webhooks: a repository that is pushed to, signed events about it, and the API that is reported to. The repository
//! is one of the server's own, of an app that is never deployed: real git over real HTTP or SSH.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use coracle_model::EngineKind;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::app::App;
use crate::env::{Env, Settings, eventually};

/// The branch of the repository that is deployed from.
pub const BRANCH: &str = "live";

impl Env {
    /// A running server that takes pushes in every way, and webhooks at an address of their own.
    pub async fn start_for_webhooks(engine: EngineKind) -> Self {
        let listening = ["--api-tcp", "127.0.0.1:0", "--ssh", "127.0.0.1:0", "--hooks", "127.0.0.1:0"];
        let env = Self::prepare(Settings { arguments: listening.map(str::to_owned).to_vec(), ..Settings::of(engine) });
        env.start_server().await;
        env
    }

    /// Where webhooks are taken.
    pub async fn hooks(&self) -> SocketAddr {
        self.client().version().await.unwrap().hooks.expect("the server takes webhooks").parse().unwrap()
    }
}

impl App {
    /// Pushes the tree's commit to the repository elsewhere, where nothing is deployed by it; the commit.
    pub async fn goes_elsewhere(&self, env: &Env) -> String {
        self.goes_elsewhere_as(env, BRANCH).await
    }

    /// The same, to another branch.
    pub async fn goes_elsewhere_as(&self, env: &Env, branch: &str) -> String {
        let url = env.git_url("source", &env.token()).await;
        self.git(env, &["push", "-q", "--force", &url, &format!("HEAD:refs/heads/{branch}")]).await.succeeds();
        self.head(env).await
    }

    /// Waits until what came of the last event begins like this.
    pub async fn hears(&self, word: &str) {
        let app = &self.name;
        let client = self.env_client();
        eventually("what came of the event", Duration::from_secs(90), async || {
            let last = client.forge(app).await.map_err(|error| error.to_string())?.last;
            match last {
                Some(last) if last.word.contains(word) => Ok(()),
                last => Err(format!("{last:?}")),
            }
        })
        .await;
    }
}

/// A forge's side of one connection: what its webhooks are sent to, and signed with.
#[derive(Debug, Clone)]
pub struct Hook {
    address: SocketAddr,
    path: String,
    secret: String,
}

impl Hook {
    /// As `coracle --json forge connect` tells it.
    pub async fn of(env: &Env, connected: &str) -> Self {
        let told: Value = serde_json::from_str(connected).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (path, secret) = (text(&told["connection"]["hook_path"]), text(&told["secret"]));
        Self { address: env.hooks().await, path, secret }
    }

    /// Where it is sent to.
    pub fn place(&self) -> (SocketAddr, &str) {
        (self.address, &self.path)
    }

    /// The HMAC-SHA256 of a body, in hexadecimal digits.
    pub fn sum(&self, body: &[u8]) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes()), body);
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Sends an event as GitHub does, properly signed; status and text of the answer.
    pub async fn sends(&self, event: &str, delivery: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let signature = format!("sha256={}", self.sum(body.as_bytes()));
        self.sends_with(&[("x-github-event", event), ("x-github-delivery", delivery), ("x-hub-signature-256", &signature)], body)
            .await
    }

    /// Sends what is to be sent with these headers.
    pub async fn sends_with(&self, headers: &[(&str, &str)], body: String) -> (u16, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::post(&self.path).header("host", "forge").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let text = String::from_utf8_lossy(&answer.into_body().collect().await.unwrap().to_bytes()).into_owned();
        connection.abort();
        (status, text)
    }
}

/// A push as GitHub tells it. `moment` makes it one of its own.
pub fn push(branch: &str, commit: &str, moment: u64) -> Value {
    json!({
        "ref": format!("refs/heads/{branch}"), "before": "0".repeat(40), "after": commit, "forced": false, "deleted": false,
        "repository": { "id": 1, "full_name": "git/source", "default_branch": "live", "pushed_at": moment },
        "commits": [{ "id": commit, "message": "one", "added": [], "removed": [], "modified": ["public/index.html"] }],
        "sender": { "login": "ana" },
    })
}

/// What a forge was told: the path, the credentials, and the body.
#[derive(Debug, Clone)]
pub struct Told {
    /// The path.
    pub path: String,
    /// What the request showed.
    pub authorization: String,
    /// What it said.
    pub body: Value,
}

/// The API of a forge: it writes down what it is told, and says that it is well.
#[derive(Debug)]
pub struct Reports {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    _serving: JoinSet<()>,
}

impl Reports {
    /// Listens on a port of its own.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, told) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (mut serving, all) = (JoinSet::new(), told.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let all = all.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| take(all.clone(), request));
                connections.spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
            }
        });
        Self { address, told, _serving: serving }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything it was told.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a commit, or `deployments/N`, has had these states, in this order.
    pub async fn hears(&self, commit: &str, states: &[&str]) {
        eventually("the forge is told", Duration::from_secs(60), async || {
            let so_far = self.states(commit);
            if so_far == states { Ok(()) } else { Err(format!("{so_far:?}")) }
        })
        .await;
    }

    /// The states that a commit has had, in their order.
    fn states(&self, commit: &str) -> Vec<String> {
        let of_commit = |told: &Told| {
            told.path.ends_with(&format!("/statuses/{commit}")) || told.path.ends_with(&format!("/{commit}/statuses"))
        };
        self.told().iter().filter(|told| of_commit(told)).map(|told| told.body["state"].as_str().unwrap().to_owned()).collect()
    }
}

async fn take(
    told: Arc<Mutex<Vec<Told>>>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    told.lock().unwrap_or_else(PoisonError::into_inner).push(Told {
        path,
        authorization: authorization.unwrap_or_default(),
        body,
    });
    Ok(Response::builder().status(201).body(Full::from(r#"{"id": 7}"#)).unwrap())
}
