//! What a role allows. This is the one place that decides it: a table with a line for each route of the API, and the guard that
//! stands before all of them. What has no line is the administrator's alone.
//!
//! The administrator is whoever can open the Unix socket or shows the server's own token.

use std::io::Error;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use coracle_api::{Problem, ProblemKind};
use coracle_model::{AppName, Bearer, PersonName, Role};
use coracle_store::Store;
use futures::StreamExt;
use http::{Method, Uri};

use crate::api::{ApiError, git};
use crate::deployments::Deployments;
use crate::people::{People, Person};
use crate::problems;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// May do everything.
    Administrator,
    /// May do what the roles of this person allow.
    Person(Arc<Person>),
}

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// To be somebody.
    Somebody,
    /// To be somebody; what is answered is about the apps of whoever asks alone.
    OwnApps,
    /// This role in the app that the path names.
    InApp(Role),
    /// The same, or, where the app is not there yet, a role that names it: it may be made by this.
    MakesApp(Role),
    /// This role in the app of the deployment that the path names.
    InDeployment(Role),
    /// This role in the app of the repository that the path names; a push may make it.
    InRepository(Role),
}

use Demand::{InApp, InDeployment, InRepository, MakesApp, OwnApps, Somebody};
use Role::{Deployer, Owner};

/// The rules. `None` says that the route is the administrator's, as does having no line; a test sees to it that each has one.
const RULES: &[(Method, &str, Option<Demand>)] = &[
    (Method::GET, "/v1/version", Some(Somebody)),
    (Method::GET, "/v1/openapi.json", Some(Somebody)),
    (Method::GET, "/v1/certificates/authority", Some(Somebody)),
    (Method::GET, "/v1/apps", Some(OwnApps)),
    (Method::GET, "/v1/domains", Some(OwnApps)),
    (Method::GET, "/v1/apps/{app}", Some(InApp(Deployer))),
    (Method::GET, "/v1/apps/{app}/releases", Some(InApp(Deployer))),
    (Method::GET, "/v1/apps/{app}/logs", Some(InApp(Deployer))),
    (Method::GET, "/v1/apps/{app}/config", Some(InApp(Deployer))),
    (Method::GET, "/v1/apps/{app}/deployments", Some(InApp(Deployer))),
    (Method::POST, "/v1/apps/{app}/deployments", Some(MakesApp(Deployer))),
    (Method::POST, "/v1/apps/{app}/deployments/plan", Some(MakesApp(Deployer))),
    (Method::GET, "/v1/deployments/{id}", Some(InDeployment(Deployer))),
    (Method::GET, "/v1/deployments/{id}/events", Some(InDeployment(Deployer))),
    (Method::POST, "/v1/deployments/{id}/cancel", Some(InDeployment(Deployer))),
    (Method::POST, "/v1/deployments/{id}/approve", Some(InDeployment(Owner))),
    (Method::POST, "/v1/deployments/{id}/reject", Some(InDeployment(Owner))),
    (Method::GET, "/v1/apps/{app}/runs", Some(InApp(Deployer))),
    (Method::GET, "/v1/deployments/{id}/run", Some(InDeployment(Deployer))),
    (Method::GET, "/v1/deployments/{id}/log", Some(InDeployment(Deployer))),
    (Method::GET, "/v1/deployments/{id}/artifacts", Some(InDeployment(Deployer))),
    (Method::POST, "/v1/apps/{app}/rollback", Some(InApp(Deployer))),
    (Method::POST, "/v1/apps/{app}/restart", Some(InApp(Deployer))),
    (Method::GET, "/v1/apps/{app}/previews", Some(InApp(Deployer))),
    // Whoever pushes may delete the branch, which ends its preview.
    (Method::DELETE, "/v1/apps/{app}/previews", Some(InApp(Deployer))),
    (Method::POST, "/v1/apps/{app}/previews/extension", Some(InApp(Deployer))),
    (Method::GET, "/v1/apps/{app}/branch", Some(InApp(Deployer))),
    (Method::PUT, "/v1/apps/{app}/branch", Some(InApp(Owner))),
    (Method::GET, "/v1/apps/{app}/forge", Some(InApp(Deployer))),
    (Method::POST, "/v1/apps/{app}/forge/deployments", Some(InApp(Deployer))),
    // The role in the other app is asked for by the handler.
    (Method::POST, "/v1/apps/{app}/promotion", Some(MakesApp(Deployer))),
    (Method::POST, "/v1/apps/{app}/promotion/plan", Some(MakesApp(Deployer))),
    (Method::GET, "/git/{repository}/info/refs", Some(InRepository(Deployer))),
    (Method::POST, "/git/{repository}/git-upload-pack", Some(InRepository(Deployer))),
    (Method::POST, "/git/{repository}/git-receive-pack", Some(InRepository(Deployer))),
    (Method::DELETE, "/v1/apps/{app}", Some(InApp(Owner))),
    (Method::PUT, "/v1/apps/{app}/scale", Some(InApp(Owner))),
    (Method::PATCH, "/v1/apps/{app}/config", Some(InApp(Owner))),
    (Method::POST, "/v1/apps/{app}/run", Some(InApp(Owner))),
    (Method::POST, "/v1/apps/{app}/exec", Some(InApp(Owner))),
    (Method::PUT, "/v1/apps/{app}/forge", Some(MakesApp(Owner))),
    (Method::DELETE, "/v1/apps/{app}/forge", Some(InApp(Owner))),
    (Method::GET, "/v1/apps/{app}/registries", Some(InApp(Owner))),
    (Method::POST, "/v1/apps/{app}/registries", Some(InApp(Owner))),
    (Method::DELETE, "/v1/apps/{app}/registries/{host}", Some(InApp(Owner))),
    (Method::GET, "/v1/registries", None),
    (Method::POST, "/v1/registries", None),
    (Method::DELETE, "/v1/registries/{host}", None),
    (Method::GET, "/v1/doctor", None),
    (Method::GET, "/v1/discovery", None),
    (Method::GET, "/v1/projects", None),
    (Method::GET, "/v1/routes", None),
    (Method::GET, "/v1/certificates", None),
    (Method::POST, "/v1/certificates/renewal", None),
    (Method::GET, "/v1/people", None),
    (Method::POST, "/v1/people", None),
    (Method::GET, "/v1/people/{person}", None),
    (Method::DELETE, "/v1/people/{person}", None),
    (Method::PUT, "/v1/people/{person}/role", None),
    (Method::POST, "/v1/people/{person}/keys", None),
    (Method::POST, "/v1/people/{person}/tokens", None),
    (Method::DELETE, "/v1/people/{person}/credentials/{id}", None),
];

fn demand(method: &Method, path: &str) -> Option<Demand> {
    // A handler of GET answers HEAD as well.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    RULES.iter().find(|(its, rule, _)| its == method && *rule == path).and_then(|(.., demand)| *demand)
}

impl Caller {
    /// Whether an app is any of the caller's business.
    pub(crate) fn sees(&self, app: &AppName) -> bool {
        match self {
            Self::Administrator => true,
            Self::Person(person) => person.role_in(app).is_some(),
        }
    }

    pub(crate) fn is_administrator(&self) -> bool {
        matches!(self, Self::Administrator)
    }

    /// The name of a person.
    pub(crate) fn person(&self) -> Option<&PersonName> {
        match self {
            Self::Administrator => None,
            Self::Person(person) => Some(&person.name),
        }
    }

    /// A person, by what was shown.
    pub(crate) fn bearer(&self) -> Option<Bearer> {
        match self {
            Self::Administrator => None,
            Self::Person(person) => Some(person.bearer()),
        }
    }

    /// Refuses whoever has less than this role in an app. `what` is what it is wanted for.
    pub(crate) fn demand(&self, app: &AppName, role: Role, what: &str) -> Result<(), Problem> {
        let Self::Person(person) = self else { return Ok(()) };
        let (name, has) = (&person.name, person.role_in(app));
        let detail = match has {
            Some(has) if has >= role => return Ok(()),
            Some(has) => format!("{name} is {has} of {app}, and {what} takes {}", with_article(role)),
            None => format!("{name} has no role in {app}"),
        };
        let hint = format!("the administrator gives roles: coracle people role {name} {role} -a {app}");
        Err(Problem::new(ProblemKind::Forbidden, detail).hint(hint))
    }

    /// Refuses everybody but the administrator.
    pub(crate) fn administers(&self, what: &str) -> Result<(), Problem> {
        let Self::Person(person) = self else { return Ok(()) };
        let detail = format!("{} may not do this: {what} is the administrator's", person.name);
        Err(Problem::new(ProblemKind::Forbidden, detail)
            .hint("the administrator works on the server's machine, or with the server's own token"))
    }

    /// The same one with the roles of this moment: what takes long outlives some.
    pub(crate) async fn again(&self, people: &People) -> Result<Self, Problem> {
        let Self::Person(person) = self else { return Ok(Self::Administrator) };
        let again = people.again(person).await.map_err(|error| problems::store(&error))?;
        let gone = || Problem::new(ProblemKind::Forbidden, format!("what {} was let in by has been taken away", person.name));
        again.map(Self::Person).ok_or_else(gone)
    }

    /// Refuses whoever may not bring something to an app, or make it if it is not there.
    pub(crate) async fn brings(&self, store: &Store, app: &AppName, role: Role) -> Result<(), Problem> {
        self.demand(app, role, "this")?;
        match self {
            Self::Person(person) if !person.may_make(app) && store.app(app).await.is_err() => {
                let detail = format!("there is no app {app}, and {} may make none of that name", person.name);
                let hint =
                    format!("the administrator allows it by a role in it: coracle people role {} {role} -a {app}", person.name);
                Err(Problem::new(ProblemKind::Forbidden, detail).hint(hint))
            }
            _ => Ok(()),
        }
    }
}

fn with_article(role: Role) -> &'static str {
    match role {
        Deployer => "a deployer",
        Owner => "an owner",
    }
}

/// What the guard looks things up in.
#[derive(Clone)]
pub(crate) struct Guard {
    pub store: Store,
    pub deployments: Deployments,
}

/// Lets a request through if whoever asks may ask it; and ends its answer when that is taken away.
pub(crate) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        // Nobody has said who asks: a mistake of ours, on the safe side.
        return refusal(&request, Problem::new(ProblemKind::Unauthorized, "it is not known who asks"));
    };
    let Caller::Person(person) = caller.clone() else { return next.run(request).await };
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        return refusal(&request, Problem::new(ProblemKind::Forbidden, "it is not known what is asked"));
    };
    let (mut head, body) = request.into_parts();
    let parameters = RawPathParams::from_request_parts(&mut head, &()).await.ok();
    let parameter = parameters.as_ref().and_then(|all| all.iter().next()).map(|(_, value)| value.to_owned()).unwrap_or_default();
    let request = Request::from_parts(head, body);
    let admitted = match demand(request.method(), path.as_str()) {
        None => caller.administers("it"),
        Some(demand) => guard.admits(&caller, demand, &parameter, request.uri().clone()).await,
    };
    if let Err(problem) = admitted {
        tracing::info!(person = %person.name, method = %request.method(), path = path.as_str(), "refused");
        return refusal(&request, problem);
    }
    if *request.method() != Method::GET {
        tracing::info!(person = %person.name, method = %request.method(), path = request.uri().path(), "admitted");
    }
    let is_git = git::is_git(request.uri());
    tokio::select! {
        biased;
        () = person.revoked().cancelled() => refused(is_git, taken_away(&person)),
        response = next.run(request) => while_allowed(response, person.clone()),
    }
}

impl Guard {
    async fn admits(&self, caller: &Caller, demand: Demand, parameter: &str, uri: Uri) -> Result<(), Problem> {
        let app = |text: &str| text.parse::<AppName>().map_err(|error| problems::name(&error));
        match demand {
            Somebody | OwnApps => Ok(()),
            InApp(role) => caller.demand(&app(parameter)?, role, "this"),
            MakesApp(role) => caller.brings(&self.store, &app(parameter)?, role).await,
            InDeployment(role) => {
                // Whose deployment it is, is told to nobody who has no role in that app.
                let missing = || Problem::new(ProblemKind::NotFound, format!("there is no deployment {parameter}"));
                let id = crate::api::deployment_id(parameter)?;
                let running = self.deployments.journal(id).map(|journal| journal.app.clone());
                let app = match running {
                    Some(app) => app,
                    None => self.store.deployment(id).await.map_err(|error| problems::store(&error))?.ok_or_else(missing)?.app,
                };
                if !caller.sees(&app) {
                    return Err(missing());
                }
                caller.demand(&app, role, "this")
            }
            InRepository(role) => {
                let app = git::app(parameter)?;
                if git::is_push(&uri) {
                    return caller.brings(&self.store, &app, role).await;
                }
                caller.demand(&app, role, "this")
            }
        }
    }
}

fn taken_away(person: &Person) -> Problem {
    Problem::new(ProblemKind::Forbidden, format!("what {} was let in by has just been taken away", person.name))
}

fn refusal(request: &Request, problem: Problem) -> Response {
    refused(git::is_git(request.uri()), problem)
}

fn refused(is_git: bool, problem: Problem) -> Response {
    if is_git { git::told(&problem) } else { ApiError(problem).into_response() }
}

/// An answer that goes on for long is broken off when its reader's right to it ends. Whoever deploys by it calls the deployment
/// off by that, as by going away.
fn while_allowed(response: Response, person: Arc<Person>) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let pieces = (Some(body.into_data_stream()), person);
        Body::from_stream(futures::stream::unfold(pieces, |(pieces, person)| async move {
            let mut pieces = pieces?;
            tokio::select! {
                biased;
                () = person.revoked().cancelled() => Some((Err(Error::other(taken_away(&person))), (None, person))),
                piece = pieces.next() => Some((piece?.map_err(Error::other), (Some(pieces), person))),
            }
        }))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// Every route that the document describes.
    fn described() -> Vec<(Method, String)> {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi_json()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (method.to_uppercase().parse().unwrap(), path.clone()))
        });
        all.collect()
    }

    #[test]
    fn every_route_has_a_rule_and_every_rule_a_route() {
        let described = described();
        for (method, path) in &described {
            let lines = RULES.iter().filter(|(its, rule, _)| its == method && rule == path).count();
            assert_eq!(lines, 1, "{method} {path} has {lines} lines in RULES: say who may do it");
        }
        for (method, path, _) in RULES {
            let beside = path.starts_with("/git/") || *path == "/v1/openapi.json";
            let is_there = described.iter().any(|(its, rule)| its == method && rule == path);
            assert!(beside || is_there, "{method} {path} is no route any more");
        }
    }

    #[test]
    fn what_has_no_rule_is_the_administrators() {
        assert_eq!(demand(&Method::POST, "/v1/new"), None);
        assert_eq!(demand(&Method::POST, "/v1/version"), None);
        assert_eq!(demand(&Method::GET, "/v1/people"), None);
        assert_eq!(demand(&Method::HEAD, "/v1/apps"), Some(OwnApps));
    }
}
