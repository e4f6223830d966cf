//! What the labels of all containers come to, in Traefik's words, and what of them came to nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::dynamic::{Middleware, Router, Service};

/// What the labels of all containers come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Configuration {
    /// Routers by name.
    pub routers: BTreeMap<String, Router>,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Middlewares by name.
    pub middlewares: BTreeMap<String, Middleware>,
    /// What was left out, and what else somebody should know.
    pub problems: Vec<Problem>,
    /// The names of the containers that each router comes from.
    pub router_sources: BTreeMap<String, Vec<String>>,
    /// The names of the containers that each service comes from.
    pub service_sources: BTreeMap<String, Vec<String>>,
    /// The names of the containers that each middleware comes from.
    pub middleware_sources: BTreeMap<String, Vec<String>>,
}

/// Something of the labels that does not have the effect which they ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// What became of it.
    pub kind: Kind,
    /// The name of the container, or of the containers.
    pub containers: Vec<String>,
    /// What it is about, as `router shop`; nothing if it is about the container as a whole.
    pub about: Option<String>,
    /// What happened, and what to do.
    pub message: String,
}

/// What became of something that labels ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Several containers say different things of one name: none of it is taken.
    Conflict,
    /// It is wrong, or refers to what is not there: left out.
    Refused,
    /// It is right and cannot be done here. The rest is done.
    Unsupported,
    /// The container is not to be routed: it says so, is not healthy, or exposes no port.
    Ignored,
}

impl Kind {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.containers.join(", "))?;
        if let Some(about) = &self.about {
            write!(f, "{about}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, container: &str, about: Option<String>, message: impl Into<String>) -> Self {
        Self { kind, containers: vec![container.to_owned()], about, message: message.into() }
    }
}

/// Shown even if they are false, since true is usual.
const USUALLY_TRUE: &[&str] = &["passHostHeader", "followRedirects", "forceSlash"];

impl Configuration {
    /// In the shape of Traefik's own dynamic configuration (`routers`, `services`, `middlewares`), with nothing in it that is
    /// empty.
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::json!({
            "routers": self.routers, "services": self.services, "middlewares": self.middlewares,
        });
        for part in ["routers", "services", "middlewares"] {
            for named in json[part].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
                omit_empty(named);
            }
        }
        json
    }
}

/// Takes out what is not set. Settings that may stand without any of their own (`tls`, `compress`) are kept empty.
fn omit_empty(value: &mut Value) {
    let Value::Object(members) = value else { return };
    members.retain(|name, member| {
        let usually_true = USUALLY_TRUE.contains(&name.as_str());
        match member {
            Value::Bool(is_set) => *is_set || usually_true,
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::Array(elements) => !elements.is_empty() || name == "servers",
            Value::Object(members) => !members.is_empty(),
        }
    });
    for (_, member) in members.iter_mut() {
        match member {
            Value::Array(elements) => elements.iter_mut().for_each(omit_empty),
            _ => omit_empty(member),
        }
    }
}
