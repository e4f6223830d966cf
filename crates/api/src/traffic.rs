//! Who is reached where: routes, domains, certificates. The proxy is asked each time; what it does not answer is what it was told.

use coracle_model::AppName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The routes that are served by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteList {
    /// Counts up with every table.
    pub generation: u64,
    /// Whether the proxy has said so just now; otherwise it is what it was told last.
    #[serde(default)]
    pub live: bool,
    /// The routes: by service, or in the order in which they are asked if the proxy has said so.
    pub routes: Vec<Route>,
}

/// A route and who answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Its name in the proxy's metrics and access log.
    #[schema(example = "shop@shop.localhost")]
    pub id: String,
    /// The app that it leads to, if it leads to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "shop")]
    pub app: Option<AppName>,
    /// The requests it takes.
    #[schema(example = "Host(`shop.localhost`)")]
    pub rule: String,
    /// The route with the highest one goes first, of those that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Only requests over TLS, or without; absent for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Where the certificates of its hosts come from: `acme`, `local` or `given`.
    #[serde(default)]
    #[schema(example = "acme")]
    pub certificate: String,
    /// What is done with a request on its way, in this order.
    pub middlewares: Vec<String>,
    /// The service that answers, if not a middleware does.
    pub service: Option<String>,
    /// Whether requests are let through: `open`, `hold` or `closed`.
    pub admission: String,
    /// The targets that get requests now.
    pub targets: Vec<RouteTarget>,
}

/// A target of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteTarget {
    /// Its identity.
    pub id: String,
    /// Where it listens, on the server's machine.
    #[schema(example = "127.0.0.1:41234")]
    pub address: String,
    /// Whether it gets requests: `up`, `down`, `ejected` or `starting`; absent if the proxy does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Requests in flight; absent if the proxy does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
}

/// The hosts that apps are reached at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainList {
    /// By app, then as its manifest lists them.
    pub domains: Vec<Domain>,
}

/// A host of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    /// The host, or a pattern of hosts.
    #[schema(example = "shop.example")]
    pub host: String,
    /// Whose it is.
    #[schema(value_type = String, example = "shop")]
    pub app: AppName,
    /// The paths below which the app answers there.
    #[schema(example = "/")]
    pub path_prefix: String,
    /// The host that clients are sent on to from here, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<String>,
    /// How its certificate stands; absent if there is to be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// All certificates that there are or should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateList {
    /// By name.
    pub certificates: Vec<Certificate>,
}

/// Which certificate is to be tried for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RenewalOptions {
    /// The name that is wanted.
    #[param(example = "shop.example")]
    pub name: String,
}

/// The machine's own authority: whoever trusts it trusts the certificates for `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocalAuthority {
    /// Its certificate, as PEM.
    pub pem: String,
}

/// How a certificate stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// The name that is wanted; of given files the first name in the certificate, or the file's path.
    #[schema(example = "shop.example")]
    pub name: String,
    /// The apps that are reached by this name.
    #[schema(value_type = Vec<String>, example = json!(["shop"]))]
    pub apps: Vec<AppName>,
    /// Who certifies it.
    pub source: CertificateSource,
    /// How it stands.
    pub state: CertificateState,
    /// What is wrong and what to change, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it is tried for next, or renewed; absent if nothing is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt: Option<Timestamp>,
    /// Who has issued the one that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// From when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// Until when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_after: Option<Timestamp>,
    /// Its serial number, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// What else somebody should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Who certifies a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateSource {
    /// An authority, by ACME.
    Acme,
    /// The machine's own authority.
    Local,
    /// Whoever has given the files.
    Given,
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// Nothing has been tried yet.
    Waiting,
    /// It is being ordered at this moment.
    Ordering,
    /// It is served.
    Active,
    /// The last attempt failed. There may still be a certificate, which is served to its end.
    Failing,
}

impl CertificateState {
    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ordering => "ordering",
            Self::Active => "active",
            Self::Failing => "failing",
        }
    }
}

impl CertificateSource {
    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Local => "local",
            Self::Given => "given",
        }
    }
}
