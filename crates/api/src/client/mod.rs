//! The client: one typed method for each thing the API can do.
//!
//! Each call makes a connection of its own, which costs nothing on a Unix socket (over SSH, all of them are channels of one
//! connection) and keeps a stream's fate apart from every other call. A stream that is dropped closes its connection; the server takes that as "the person went away".

mod decode;
mod endpoint;
mod error;
mod source;
mod ssh;
mod tls;
mod transport;

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::{AppName, CredentialId, DeploymentId, PersonName, ProcessName, RegistryHost, ReleaseNumber};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use decode::{Ndjson, Sse};
pub use endpoint::Endpoint;
pub use error::ClientError;
pub use source::Source;
pub use ssh::{Ssh, SshAddress};
pub use tls::Tls;
pub use transport::{Download, JsonStream};

use crate::app::{AppList, AppStatus, AppSummary, ScaleRequest};
use crate::config::{ConfigEntry, ConfigList, ConfigPatch};
use crate::deployment::{
    ChangeOptions, DeployOptions, Deployment, DeploymentEvent, DeploymentList, DeploymentPlan, PushRequest, RejectRequest,
};
use crate::forge::{ForgeConnected, ForgeConnection, ForgeRequest};
use crate::machine::{Doctor, Version};
use crate::output::{ExecRequest, LogLine, LogOptions, RunLine, RunRequest};
use crate::people::{Credential, NewKey, NewPerson, NewToken, Person, PersonList, RoleChange, TokenRequest};
use crate::pipeline::{PipelineArtifactOptions, PipelineLogLine, PipelineLogOptions, PipelineRun, PipelineRunList};
use crate::preview::{BranchAnswer, BranchChange, DeployBranch, Preview, PreviewBranch, PreviewList};
use crate::registry::{NewRegistryLogin, RegistryList, RegistryLogin};
use crate::release::{PromotionRequest, Release, ReleaseList, RollbackRequest};
use crate::traffic::{Certificate, CertificateList, Domain, DomainList, LocalAuthority, RenewalOptions, RouteList};
use crate::{PREFIX, SOURCE_MEDIA_TYPE};
use transport::{Answer, Payload, Request};

/// The events of a deployment, ending after [`DeploymentEvent::Ended`].
pub type EventStream = JsonStream<Sse, DeploymentEvent>;

/// Lines of logs.
pub type LogStream = JsonStream<Ndjson, LogLine>;

/// Lines of a run's log.
pub type PipelineLogStream = JsonStream<Ndjson, PipelineLogLine>;

/// The output of a one-off process, ending with [`RunLine::Exit`] or [`RunLine::Problem`].
pub type RunStream = JsonStream<Ndjson, RunLine>;

/// How long an answer to a plain question may take.
const UNARY_DEADLINE: Duration = Duration::from_secs(30);

/// How long a registry may take to be asked about a login.
const LOGIN_DEADLINE: Duration = Duration::from_secs(90);

/// How long something may take that waits for instances (scaling, destroying).
const SLOW_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How long a stream's first byte may take: sending the source, and waiting for a turn, included.
const STREAM_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// What became of a change of configuration.
#[derive(Debug)]
pub enum ConfigSet {
    /// It is stored; the next release will run with it.
    Stored(Vec<ConfigEntry>),
    /// A release with it is being deployed.
    Deploying(EventStream),
}

/// What becomes of a branch that was pushed and is not the one to deploy.
#[derive(Debug)]
pub enum BranchPushed {
    /// Nothing is deployed.
    Answered(BranchAnswer),
    /// It is deployed into its preview.
    Deploying(EventStream),
}

/// Talks to one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
}

impl Client {
    /// Talks to the server at this endpoint. Does not connect yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// Where it connects to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Who answers.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/version").await
    }

    /// What works on the server's machine, and why not.
    pub async fn doctor(&self) -> Result<Doctor, ClientError> {
        self.get("/doctor").await
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.get("/openapi.json").await
    }

    /// What is discovered by labels.
    pub async fn discovery(&self) -> Result<crate::Discovery, ClientError> {
        self.get("/discovery").await
    }

    /// The compose projects that run on the server's machine.
    pub async fn projects(&self) -> Result<Vec<crate::ComposeProject>, ClientError> {
        Ok(self.get::<crate::ComposeProjectList>("/projects").await?.projects)
    }

    /// The hosts that apps are reached at.
    pub async fn domains(&self) -> Result<Vec<Domain>, ClientError> {
        Ok(self.get::<DomainList>("/domains").await?.domains)
    }

    /// All certificates that there are or should be.
    pub async fn certificates(&self) -> Result<Vec<Certificate>, ClientError> {
        Ok(self.get::<CertificateList>("/certificates").await?.certificates)
    }

    /// The certificate of the machine's own authority.
    pub async fn local_authority(&self) -> Result<LocalAuthority, ClientError> {
        self.get("/certificates/authority").await
    }

    /// Tries at once for a certificate, however long the next attempt was to wait.
    pub async fn renew_certificate(&self, name: &str) -> Result<(), ClientError> {
        let query = query(&RenewalOptions { name: name.to_owned() })?;
        let request = Request::new(Method::POST, format!("{PREFIX}/certificates/renewal{query}"));
        self.endpoint.call(request, UNARY_DEADLINE).await?.empty().await
    }

    /// The routes that are served by.
    pub async fn routes(&self) -> Result<RouteList, ClientError> {
        self.get("/routes").await
    }

    /// All apps, by name.
    pub async fn apps(&self) -> Result<Vec<AppSummary>, ClientError> {
        Ok(self.get::<AppList>("/apps").await?.apps)
    }

    /// One app in full.
    pub async fn app(&self, app: &AppName) -> Result<AppStatus, ClientError> {
        self.get(&format!("/apps/{app}")).await
    }

    /// Stops and forgets an app: instances, volumes, releases, configuration.
    pub async fn destroy(&self, app: &AppName) -> Result<(), ClientError> {
        let request = Request::new(Method::DELETE, format!("{PREFIX}/apps/{app}"));
        self.endpoint.call(request, SLOW_DEADLINE).await?.empty().await
    }

    /// Deploys a source tree: a gzip-compressed tar archive with the manifest at its root.
    pub async fn deploy(&self, app: &AppName, options: &DeployOptions, source: Source) -> Result<EventStream, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/deployments{}", query(options)?));
        self.stream(request.payload(Payload::Source(source, SOURCE_MEDIA_TYPE))).await
    }

    /// Deploys the commit of a push that is under way. Only the hook that git runs can ask for it, on the server's machine.
    pub async fn deploy_push(&self, app: &AppName, push: &PushRequest) -> Result<EventStream, ClientError> {
        self.stream(Request::new(Method::POST, format!("{PREFIX}/apps/{app}/pushes")).json(push)?).await
    }

    /// Says that a push brings or takes another branch than the one to deploy. Only the hook that git runs can say it.
    pub async fn push_branch(&self, app: &AppName, push: &PushRequest) -> Result<BranchPushed, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/pushes/branches")).json(push)?;
        let answer = self.endpoint.call(request, STREAM_DEADLINE).await?;
        if answer.is_event_stream() {
            Ok(BranchPushed::Deploying(answer.stream()))
        } else {
            Ok(BranchPushed::Answered(answer.json().await?))
        }
    }

    /// The previews of an app, by branch.
    pub async fn previews(&self, app: &AppName) -> Result<Vec<Preview>, ClientError> {
        Ok(self.get::<PreviewList>(&format!("/apps/{app}/previews")).await?.previews)
    }

    /// Ends the preview of a branch: instances, volumes, configuration, images.
    pub async fn remove_preview(&self, app: &AppName, branch: &str) -> Result<(), ClientError> {
        let query = query(&PreviewBranch { branch: branch.to_owned() })?;
        let request = Request::new(Method::DELETE, format!("{PREFIX}/apps/{app}/previews{query}"));
        self.endpoint.call(request, SLOW_DEADLINE).await?.empty().await
    }

    /// Has the preview of a branch live on from now, for as long as after a push.
    pub async fn extend_preview(&self, app: &AppName, branch: &str) -> Result<Preview, ClientError> {
        let query = query(&PreviewBranch { branch: branch.to_owned() })?;
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/previews/extension{query}"));
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// The branch of an app that is deployed.
    pub async fn deploy_branch(&self, app: &AppName) -> Result<DeployBranch, ClientError> {
        self.get(&format!("/apps/{app}/branch")).await
    }

    /// Has another branch of an app be the one that is deployed.
    pub async fn set_deploy_branch(&self, app: &AppName, branch: &str) -> Result<DeployBranch, ClientError> {
        let request = Request::new(Method::PUT, format!("{PREFIX}/apps/{app}/branch"));
        let request = request.json(&BranchChange { branch: branch.to_owned() })?;
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// What a deployment of this source tree would do, without doing it.
    pub async fn plan(&self, app: &AppName, options: &DeployOptions, source: Source) -> Result<DeploymentPlan, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/deployments/plan{}", query(options)?));
        self.endpoint.call(request.payload(Payload::Source(source, SOURCE_MEDIA_TYPE)), SLOW_DEADLINE).await?.json().await
    }

    /// The latest deployments of an app, newest first.
    pub async fn deployments(&self, app: &AppName) -> Result<Vec<Deployment>, ClientError> {
        Ok(self.get::<DeploymentList>(&format!("/apps/{app}/deployments")).await?.deployments)
    }

    /// One deployment.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        self.get(&format!("/deployments/{}", id.0)).await
    }

    /// The events of a deployment from its start, and on until its end. Dropping this stream calls nothing off.
    pub async fn deployment_events(&self, id: DeploymentId) -> Result<EventStream, ClientError> {
        self.stream(Request::new(Method::GET, format!("{PREFIX}/deployments/{}/events", id.0))).await
    }

    /// Calls a deployment off; refused ([conflict](crate::ProblemKind::Conflict)) from the switch on. Returns at once: its end is told in its events.
    pub async fn cancel(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/deployments/{}/cancel", id.0));
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// Allows a deployment that waits for approval. Returns at once: what becomes of it is told in its events.
    pub async fn approve(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/deployments/{}/approve", id.0));
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// Ends a deployment that waits for approval.
    pub async fn reject(&self, id: DeploymentId, reason: &RejectRequest) -> Result<Deployment, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/deployments/{}/reject", id.0)).json(reason)?;
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// The latest runs of an app's pipeline, newest first.
    pub async fn pipeline_runs(&self, app: &AppName) -> Result<Vec<PipelineRun>, ClientError> {
        Ok(self.get::<PipelineRunList>(&format!("/apps/{app}/runs")).await?.runs)
    }

    /// The run that belongs to a deployment.
    pub async fn pipeline_run(&self, id: DeploymentId) -> Result<PipelineRun, ClientError> {
        self.get(&format!("/deployments/{}/run", id.0)).await
    }

    /// Lines of the log of a run.
    pub async fn pipeline_log(&self, id: DeploymentId, options: &PipelineLogOptions) -> Result<PipelineLogStream, ClientError> {
        self.stream(Request::new(Method::GET, format!("{PREFIX}/deployments/{}/log{}", id.0, query(options)?))).await
    }

    /// What a step handed over in a run: a gzip-compressed tar archive.
    pub async fn pipeline_artifacts(&self, id: DeploymentId, step: &str) -> Result<Download, ClientError> {
        let query = query(&PipelineArtifactOptions { step: step.to_owned() })?;
        let request = Request::new(Method::GET, format!("{PREFIX}/deployments/{}/artifacts{query}", id.0));
        self.endpoint.call(request, UNARY_DEADLINE).await.map(Answer::download)
    }

    /// The releases of an app that are kept, oldest first.
    pub async fn releases(&self, app: &AppName) -> Result<Vec<Release>, ClientError> {
        Ok(self.get::<ReleaseList>(&format!("/apps/{app}/releases")).await?.releases)
    }

    /// Takes up an earlier release again; `None` is the one before the active one.
    pub async fn rollback(
        &self,
        app: &AppName,
        to: Option<ReleaseNumber>,
        options: ChangeOptions,
    ) -> Result<EventStream, ClientError> {
        self.rollback_as(app, &RollbackRequest { to, recreate_services: None }, options).await
    }

    /// Takes up an earlier release again, and says what becomes of services that keep data.
    pub async fn rollback_as(
        &self,
        app: &AppName,
        rollback: &RollbackRequest,
        options: ChangeOptions,
    ) -> Result<EventStream, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/rollback{}", query(&options)?));
        self.stream(request.json(rollback)?).await
    }

    /// Makes a release of what another app runs.
    pub async fn promote(
        &self,
        app: &AppName,
        promotion: &PromotionRequest,
        options: ChangeOptions,
    ) -> Result<EventStream, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/promotion{}", query(&options)?));
        self.stream(request.json(promotion)?).await
    }

    /// What a promotion would do, without doing it.
    pub async fn plan_promotion(&self, app: &AppName, promotion: &PromotionRequest) -> Result<DeploymentPlan, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/promotion/plan")).json(promotion)?;
        self.endpoint.call(request, SLOW_DEADLINE).await?.json().await
    }

    /// Logins of registries: an app's own, or (`None`) what every app shows.
    pub async fn registries(&self, app: Option<&AppName>) -> Result<Vec<RegistryLogin>, ClientError> {
        Ok(self.get::<RegistryList>(&registries(app)).await?.logins)
    }

    /// Logs in to a registry, for an app or for all. Refused, and not kept, if the registry does not take it.
    pub async fn login_registry(&self, app: Option<&AppName>, login: &NewRegistryLogin) -> Result<RegistryLogin, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}{}", registries(app))).json(login)?;
        self.endpoint.call(request, LOGIN_DEADLINE).await?.json().await
    }

    /// Forgets a login.
    pub async fn logout_registry(&self, app: Option<&AppName>, host: &RegistryHost) -> Result<(), ClientError> {
        let mut path = format!("{PREFIX}{}/", registries(app));
        percent_encode(host.as_str(), &mut path);
        self.endpoint.call(Request::new(Method::DELETE, path), UNARY_DEADLINE).await?.empty().await
    }

    /// Replaces all instances by fresh ones, without losing a request.
    pub async fn restart(&self, app: &AppName, options: ChangeOptions) -> Result<EventStream, ClientError> {
        self.stream(Request::new(Method::POST, format!("{PREFIX}/apps/{app}/restart{}", query(&options)?))).await
    }

    /// The configuration of an app, by name; without the values of secrets.
    pub async fn config(&self, app: &AppName) -> Result<Vec<ConfigEntry>, ClientError> {
        Ok(self.get::<ConfigList>(&format!("/apps/{app}/config")).await?.entries)
    }

    /// Changes configuration, and makes a release of it if the app has one and `patch.no_deploy` does not forbid it.
    pub async fn set_config(&self, app: &AppName, patch: &ConfigPatch, options: ChangeOptions) -> Result<ConfigSet, ClientError> {
        let request = Request::new(Method::PATCH, format!("{PREFIX}/apps/{app}/config{}", query(&options)?)).json(patch)?;
        let answer = self.endpoint.call(request, STREAM_DEADLINE).await?;
        if answer.is_event_stream() {
            Ok(ConfigSet::Deploying(answer.stream()))
        } else {
            Ok(ConfigSet::Stored(answer.json::<ConfigList>().await?.entries))
        }
    }

    /// Changes how many instances should run, and waits until they do.
    pub async fn scale(&self, app: &AppName, processes: &BTreeMap<ProcessName, u16>) -> Result<AppStatus, ClientError> {
        let request = Request::new(Method::PUT, format!("{PREFIX}/apps/{app}/scale"));
        let request = request.json(&ScaleRequest { processes: processes.clone() })?;
        self.endpoint.call(request, SLOW_DEADLINE).await?.json().await
    }

    /// Lines of an app's instances, merged.
    pub async fn logs(&self, app: &AppName, options: &LogOptions) -> Result<LogStream, ClientError> {
        self.stream(Request::new(Method::GET, format!("{PREFIX}/apps/{app}/logs{}", query(options)?))).await
    }

    /// Runs a one-off process of the active release. Dropping the stream kills it.
    pub async fn run(&self, app: &AppName, run: &RunRequest) -> Result<RunStream, ClientError> {
        self.stream(Request::new(Method::POST, format!("{PREFIX}/apps/{app}/run")).json(run)?).await
    }

    /// Runs a program inside a running instance. Dropping the stream kills it.
    pub async fn exec(&self, app: &AppName, exec: &ExecRequest) -> Result<RunStream, ClientError> {
        self.stream(Request::new(Method::POST, format!("{PREFIX}/apps/{app}/exec")).json(exec)?).await
    }

    /// Everybody who may use the server, by name.
    pub async fn people(&self) -> Result<Vec<Person>, ClientError> {
        Ok(self.get::<PersonList>("/people").await?.people)
    }

    /// One person.
    pub async fn person(&self, name: &PersonName) -> Result<Person, ClientError> {
        self.get(&format!("/people/{name}")).await
    }

    /// Adds a person.
    pub async fn add_person(&self, person: &NewPerson) -> Result<Person, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/people")).json(person)?;
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// Removes a person, with every role, key and token.
    pub async fn remove_person(&self, name: &PersonName) -> Result<(), ClientError> {
        let request = Request::new(Method::DELETE, format!("{PREFIX}/people/{name}"));
        self.endpoint.call(request, UNARY_DEADLINE).await?.empty().await
    }

    /// Gives a person a role, or takes it.
    pub async fn change_role(&self, name: &PersonName, change: &RoleChange) -> Result<Person, ClientError> {
        let request = Request::new(Method::PUT, format!("{PREFIX}/people/{name}/role")).json(change)?;
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// Adds a key of a person's.
    pub async fn add_key(&self, name: &PersonName, key: &NewKey) -> Result<Credential, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/people/{name}/keys")).json(key)?;
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// Makes a token for a person. It is never shown again.
    pub async fn create_token(&self, name: &PersonName, token: &TokenRequest) -> Result<NewToken, ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/people/{name}/tokens")).json(token)?;
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    /// Revokes a key or a token.
    pub async fn revoke(&self, name: &PersonName, credential: CredentialId) -> Result<(), ClientError> {
        let request = Request::new(Method::DELETE, format!("{PREFIX}/people/{name}/credentials/{}", credential.0));
        self.endpoint.call(request, UNARY_DEADLINE).await?.empty().await
    }

    /// How an app is connected with a repository at a forge.
    pub async fn forge(&self, app: &AppName) -> Result<ForgeConnection, ClientError> {
        self.get(&format!("/apps/{app}/forge")).await
    }

    /// Connects an app with a repository at a forge.
    pub async fn connect_forge(&self, app: &AppName, request: &ForgeRequest) -> Result<ForgeConnected, ClientError> {
        let request = Request::new(Method::PUT, format!("{PREFIX}/apps/{app}/forge")).json(request)?;
        self.endpoint.call(request, SLOW_DEADLINE).await?.json().await
    }

    /// Disconnects an app from its repository.
    pub async fn disconnect_forge(&self, app: &AppName) -> Result<(), ClientError> {
        let request = Request::new(Method::DELETE, format!("{PREFIX}/apps/{app}/forge"));
        self.endpoint.call(request, UNARY_DEADLINE).await?.empty().await
    }

    /// Has the branch fetched and deployed, as if a webhook had come.
    pub async fn deploy_from_forge(&self, app: &AppName) -> Result<(), ClientError> {
        let request = Request::new(Method::POST, format!("{PREFIX}/apps/{app}/forge/deployments"));
        self.endpoint.call(request, UNARY_DEADLINE).await?.empty().await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = Request::new(Method::GET, format!("{PREFIX}{path}"));
        self.endpoint.call(request, UNARY_DEADLINE).await?.json().await
    }

    async fn stream<D, T>(&self, request: Request) -> Result<JsonStream<D, T>, ClientError>
    where
        D: decode::Decode,
        T: DeserializeOwned,
    {
        self.endpoint.call(request, STREAM_DEADLINE).await.map(Answer::stream)
    }
}

/// Where logins of registries are.
fn registries(app: Option<&AppName>) -> String {
    app.map_or_else(|| "/registries".to_owned(), |app| format!("/apps/{app}/registries"))
}

/// Options as the query part of a path: `?tail=10&follow=true`, or nothing.
fn query(options: &impl Serialize) -> Result<String, ClientError> {
    let serde_json::Value::Object(members) = serde_json::to_value(options)? else { return Ok(String::new()) };
    let mut text = String::new();
    for (name, value) in members {
        let value = match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => continue,
            serde_json::Value::String(value) => value,
            other => other.to_string(),
        };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(&name);
        text.push('=');
        percent_encode(&value, &mut text);
    }
    Ok(text)
}

/// RFC 3986 section 2.3: everything but unreserved characters is encoded.
fn percent_encode(value: &str, into: &mut String) {
    use std::fmt::Write as _;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            write!(into, "%{byte:02X}").unwrap_or_else(|_| unreachable!("writing to a text succeeds"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_query_without_what_is_not_set() {
        assert_eq!(query(&ChangeOptions::default()).ok().as_deref(), Some(""));
        let options = DeployOptions { commit: Some("a b&c=ö".into()), detach: true, ..DeployOptions::default() };
        assert_eq!(query(&options).ok().as_deref(), Some("?commit=a%20b%26c%3D%C3%B6&detach=true"));
        let options = LogOptions { tail: Some(10), since: "2026-11-21T01:02:03Z".parse().ok(), ..LogOptions::default() };
        assert_eq!(query(&options).ok().as_deref(), Some("?since=2026-11-21T01%3A02%3A03Z&tail=10"));
    }
}
