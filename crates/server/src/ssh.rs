//! Who comes in by the SSH door, and what they may do there: the same as over HTTP, by the same rules.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use coracle_api::dial::greeting;
use coracle_api::{Problem, ProblemKind, SshDoor};
use coracle_git_door::Service;
use coracle_model::{AppName, CredentialId, PersonName, Role};
use coracle_ssh_door::{Doorkeeper, Guest, HostKey, Refusal, Wire};
use coracle_store::Store;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::access::Caller;
use crate::api::ApiError;
use crate::connections;
use crate::people::{People, Person};
use crate::problems;

/// The file of the host key in the state directory.
pub(crate) const HOST_KEY: &str = "ssh_host_ed25519_key";

/// The host key of the server that has its state there.
pub(crate) fn host_key(state_dir: &Path) -> std::io::Result<HostKey> {
    HostKey::read_or_create(&state_dir.join(HOST_KEY))
}

/// Where the door is and how to know it.
pub(crate) fn described(address: SocketAddr, key: &HostKey) -> SshDoor {
    SshDoor { address: address.to_string(), fingerprint: key.fingerprint(), host_key: key.public() }
}

/// Knows those who are on record. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub people: People,
    pub store: Store,
    /// The API, which wants to be told who asks.
    pub api: Router,
    /// Fires when the server stops.
    pub stop: CancellationToken,
}

#[async_trait]
impl Doorkeeper for Keeper {
    async fn knows(&self, fingerprint: &str) -> bool {
        match self.store.credential_by_key(fingerprint).await {
            Ok(found) => found.is_some(),
            Err(error) => {
                tracing::warn!(%error, "whose key it is cannot be looked up");
                false
            }
        }
    }

    async fn who(&self, fingerprint: &str) -> Option<Box<dyn Guest>> {
        match self.people.by_key(fingerprint).await {
            Ok(found) => found.map(|person| Box::new(Visitor { person, keeper: self.clone() }) as Box<dyn Guest>),
            Err(error) => {
                tracing::warn!(%error, "whose key it is cannot be looked up");
                None
            }
        }
    }
}

struct Visitor {
    person: Arc<Person>,
    keeper: Keeper,
}

#[async_trait]
impl Guest for Visitor {
    fn name(&self) -> &PersonName {
        &self.person.name
    }

    fn credential(&self) -> CredentialId {
        self.person.bearer().credential
    }

    fn revoked(&self) -> CancellationToken {
        self.person.revoked().clone()
    }

    async fn may(&self, app: &AppName, service: Service) -> Result<(), Refusal> {
        // A connection may stay for long, and roles are those of this moment: an app may have been ended and made anew meanwhile.
        let person = match self.keeper.people.again(&self.person).await {
            Ok(Some(person)) => person,
            Ok(None) => return Err(Refusal { detail: "your key has been taken away".to_owned(), hint: None }),
            Err(error) => {
                tracing::warn!(%error, "what a person may do cannot be looked up");
                return Err(Refusal { detail: "what you may do cannot be looked up".to_owned(), hint: None });
            }
        };
        let caller = Caller::Person(person);
        let decided = match service {
            Service::ReceivePack => caller.brings(&self.keeper.store, app, Role::Deployer).await,
            Service::UploadPack => caller.demand(app, Role::Deployer, "this"),
        };
        decided.map_err(|Problem { detail, hint, .. }| Refusal { detail, hint })
    }

    async fn serve(&self, mut wire: Box<dyn Wire>) -> Result<(), Refusal> {
        let greeting = greeting(env!("CARGO_PKG_VERSION"));
        let gone = |_| Refusal { detail: "nobody listens any more".to_owned(), hint: None };
        wire.write_all(greeting.as_bytes()).await.map_err(gone)?;
        let who = (self.keeper.people.clone(), self.person.clone());
        let api = self.keeper.api.clone().layer(axum::middleware::from_fn_with_state(who, at_this_moment));
        connections::serve(wire, api, &self.keeper.stop).await;
        Ok(())
    }
}

/// Says who asks, request by request, as over HTTP: a connection may stay for long, and roles are those of the moment.
async fn at_this_moment(State((people, person)): State<(People, Arc<Person>)>, mut request: Request, next: Next) -> Response {
    match people.again(&person).await {
        Ok(Some(person)) => {
            request.extensions_mut().insert(Caller::Person(person));
            next.run(request).await
        }
        Ok(None) => ApiError(Problem::new(ProblemKind::Unauthorized, "your key has been taken away")).into_response(),
        Err(error) => ApiError(problems::store(&error)).into_response(),
    }
}
