//! Who comes in by the SSH door, and what they may do there: the same as over HTTP, by the same rules.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{Problem, SshDoor};
use coracle_git_door::Service;
use coracle_model::{AppName, PersonName, Role};
use coracle_ssh_door::{Doorkeeper, Guest, HostKey, Refusal};
use coracle_store::Store;
use tokio_util::sync::CancellationToken;

use crate::access::Caller;
use crate::people::{People, Person};

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

/// Knows those who are on record.
pub(crate) struct Keeper {
    pub people: People,
    pub store: Store,
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
            Ok(found) => found.map(|person| Box::new(Visitor { person, store: self.store.clone() }) as Box<dyn Guest>),
            Err(error) => {
                tracing::warn!(%error, "whose key it is cannot be looked up");
                None
            }
        }
    }
}

struct Visitor {
    person: Arc<Person>,
    store: Store,
}

#[async_trait]
impl Guest for Visitor {
    fn name(&self) -> &PersonName {
        &self.person.name
    }

    fn revoked(&self) -> CancellationToken {
        self.person.revoked().clone()
    }

    async fn may(&self, app: &AppName, service: Service) -> Result<(), Refusal> {
        let caller = Caller::Person(self.person.clone());
        let decided = match service {
            Service::ReceivePack => caller.brings(&self.store, app, Role::Deployer).await,
            Service::UploadPack => caller.demand(app, Role::Deployer, "this"),
        };
        decided.map_err(|Problem { detail, hint, .. }| Refusal { detail, hint })
    }
}
