//! Who people are: what somebody shows leads to a person and its roles, and what was taken away ends what runs by it.
//!
//! It decides nothing about what a role allows; that is [`crate::access`]'s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::{AppName, Bearer, CredentialId, Grant, PersonName, Role, Secret};
use coracle_store::{CredentialRecord, PreviewRecord, Proof, Store, StoreError};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// What every token of a person's begins with, so that it is known for what it is wherever it turns up.
const MARK: &str = "coracle_c";

/// Random bytes of a token.
const RANDOM: usize = 32;

/// Everybody who may use the server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct People {
    store: Store,
    live: Arc<Mutex<Live>>,
}

/// What goes on in whose name.
#[derive(Default)]
struct Live {
    next: u64,
    by_credential: HashMap<u64, (CredentialId, CancellationToken)>,
}

/// A person who has shown a credential, for as long as something goes on in that name.
pub(crate) struct Person {
    pub name: PersonName,
    credential: CredentialId,
    grants: Vec<Grant>,
    held: Held,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").field("name", &self.name).field("grants", &self.grants).finish_non_exhaustive()
    }
}

impl Person {
    /// The role in an app.
    pub(crate) fn role_in(&self, app: &AppName) -> Option<Role> {
        Grant::role_in(&self.grants, app)
    }

    /// Whether the person may make an app of this name.
    pub(crate) fn may_make(&self, app: &AppName) -> bool {
        Grant::names(&self.grants, app)
    }

    /// Who it is, by what was shown.
    pub(crate) fn bearer(&self) -> Bearer {
        Bearer { name: self.name.clone(), credential: self.credential }
    }

    /// Fires when the credential or a role is taken away.
    pub(crate) fn revoked(&self) -> &CancellationToken {
        &self.held.revoked
    }
}

/// Something goes on by a credential.
struct Held {
    number: u64,
    revoked: CancellationToken,
    live: Arc<Mutex<Live>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        locked(&self.live).by_credential.remove(&self.number);
    }
}

/// Whoever has a role in an app has it in the app's previews. This is the one place that says so.
fn with_previews(grants: &mut Vec<Grant>, previews: &[PreviewRecord]) {
    let of_previews = |grant: &Grant| {
        let role = grant.role;
        let named = grant.app.clone();
        let own = previews.iter().filter(move |preview| Some(&preview.parent) == named.as_ref());
        own.map(move |preview| Grant { app: Some(preview.app.clone()), role }).collect::<Vec<_>>()
    };
    let more: Vec<Grant> = grants.iter().flat_map(of_previews).collect();
    grants.extend(more);
}

fn locked(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

impl People {
    /// Those on record.
    pub(crate) fn new(store: Store) -> Self {
        Self { store, live: Arc::default() }
    }

    /// The person whose token this is.
    pub(crate) async fn by_token(&self, shown: &[u8]) -> Result<Option<Arc<Person>>, StoreError> {
        let Some(id) = numbered(shown) else { return Ok(None) };
        let shown: [u8; 32] = blake3::hash(shown).into();
        let is_it = |proof: &Proof| match proof {
            Proof::Token { digest } => digest.ct_eq(&shown).into(),
            Proof::Key { .. } => false,
        };
        self.by_credential(id, is_it).await
    }

    /// The person whose SSH key has this fingerprint.
    pub(crate) async fn by_key(&self, shown: &str) -> Result<Option<Arc<Person>>, StoreError> {
        let Some((_, credential)) = self.store.credential_by_key(shown).await? else { return Ok(None) };
        let is_it = |proof: &Proof| matches!(proof, Proof::Key { fingerprint, .. } if fingerprint == shown);
        self.by_credential(credential.id, is_it).await
    }

    /// The same person with the roles of this moment, for as long as something goes on by the same credential.
    pub(crate) async fn again(&self, person: &Person) -> Result<Option<Arc<Person>>, StoreError> {
        self.by_credential(person.credential, |_| true).await
    }

    /// Held before it is looked up: whatever is taken away from then on is noticed.
    async fn by_credential(&self, id: CredentialId, is_it: impl Fn(&Proof) -> bool) -> Result<Option<Arc<Person>>, StoreError> {
        let held = self.hold(id);
        let Some((name, credential)) = self.store.credential_by_id(id).await? else { return Ok(None) };
        if !is_it(&credential.proof) {
            return Ok(None);
        }
        let mut grants = match self.store.person(&name).await {
            Ok(person) => person.grants,
            Err(StoreError::NoSuchPerson(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if grants.iter().any(|grant| grant.app.is_some()) {
            with_previews(&mut grants, &self.store.previews(None).await?);
        }
        // Nobody is kept out because it cannot be written down when they came.
        if let Err(error) = self.store.credential_used(&credential).await {
            tracing::warn!(person = %name, %error, "when a credential was used is not written down");
        }
        Ok(Some(Arc::new(Person { name, credential: id, grants, held })))
    }

    fn hold(&self, id: CredentialId) -> Held {
        let revoked = CancellationToken::new();
        let mut live = locked(&self.live);
        let number = live.next;
        live.next += 1;
        live.by_credential.insert(number, (id, revoked.clone()));
        Held { number, revoked, live: self.live.clone() }
    }

    /// Ends what goes on by these credentials.
    fn end(&self, credentials: &[CredentialId]) {
        let live = locked(&self.live);
        for (_, revoked) in live.by_credential.values().filter(|(id, _)| credentials.contains(id)) {
            revoked.cancel();
        }
    }

    /// Removes a person, and ends what goes on in that name.
    pub(crate) async fn remove(&self, name: &PersonName) -> Result<(), StoreError> {
        // Those that there were when it was removed, and none was added since.
        let credentials = self.store.remove_person(name).await?;
        self.end(&credentials);
        Ok(())
    }

    /// Removes a credential, and ends what goes on by it.
    pub(crate) async fn revoke(&self, name: &PersonName, id: CredentialId) -> Result<(), StoreError> {
        self.store.remove_credential(name, id).await?;
        self.end(&[id]);
        Ok(())
    }

    /// Changes a role. If it is less than it was, what goes on in that name ends.
    pub(crate) async fn change_role(
        &self,
        name: &PersonName,
        app: Option<&AppName>,
        role: Option<Role>,
    ) -> Result<(), StoreError> {
        let before = self.store.person(name).await?;
        let had = before.grants.iter().find(|grant| grant.app.as_ref() == app).map(|grant| grant.role);
        self.store.set_role(name, app, role).await?;
        if role < had {
            self.end(&self.credentials_of(name).await?);
        }
        Ok(())
    }

    async fn credentials_of(&self, name: &PersonName) -> Result<Vec<CredentialId>, StoreError> {
        Ok(self.store.person(name).await?.credentials.into_iter().map(|credential| credential.id).collect())
    }

    /// Makes a token for a person: 256 random bits behind the number that it is looked up by. Only its digest is kept.
    pub(crate) async fn make_token(&self, name: &PersonName, label: &str) -> Result<(CredentialRecord, Secret), TokenError> {
        let mut random = [0_u8; RANDOM];
        getrandom::fill(&mut random).map_err(|error| TokenError::Randomness(error.to_string()))?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = |id: CredentialId| format!("{MARK}{}_{random}", id.0);
        let credential = self.store.add_token(name, label, |id| blake3::hash(text(id).as_bytes()).into()).await?;
        let token = Secret::new(text(credential.id));
        Ok((credential, token))
    }
}

/// Why no token is made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no randomness: {0}")]
    Randomness(String),
}

/// The number that a token is looked up by: `coracle_c7_` and 64 hexadecimal digits.
fn numbered(token: &[u8]) -> Option<CredentialId> {
    let text = std::str::from_utf8(token).ok()?;
    let (number, random) = text.strip_prefix(MARK)?.split_once('_')?;
    let is_ours = random.len() == 2 * RANDOM && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| is_ours).map(CredentialId)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn people() -> (tempfile::TempDir, People, PersonName) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let ana: PersonName = "ana".parse().unwrap();
        store.add_person(&ana, &[Grant { app: None, role: Role::Owner }], &[]).await.unwrap();
        (dir, People::new(store), ana)
    }

    #[tokio::test]
    async fn a_token_leads_to_its_person_and_nothing_near_it_does() {
        let (_dir, people, ana) = people().await;
        let (_, token) = people.make_token(&ana, "ci").await.unwrap();
        let (_, other) = people.make_token(&ana, "laptop").await.unwrap();
        let (token, other) = (token.expose().to_owned(), other.expose().to_owned());
        assert_eq!(people.by_token(token.as_bytes()).await.unwrap().unwrap().name, ana);
        let swapped = token.replace("coracle_c1_", "coracle_c2_");
        assert!(swapped != token && swapped != other);
        for wrong in [
            "",
            "coracle_c",
            "coracle_c1_",
            &token[1..],
            &token[..token.len() - 1],
            &token.to_uppercase(),
            &swapped,
            "coracle_c99_",
        ] {
            assert!(people.by_token(wrong.as_bytes()).await.unwrap().is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_is_taken_away_ends_what_goes_on_by_it_alone() {
        let (_dir, people, ana) = people().await;
        let (one, token) = people.make_token(&ana, "one").await.unwrap();
        let (_, other) = people.make_token(&ana, "other").await.unwrap();
        let first = people.by_token(token.expose().as_bytes()).await.unwrap().unwrap();
        let second = people.by_token(other.expose().as_bytes()).await.unwrap().unwrap();
        people.revoke(&ana, one.id).await.unwrap();
        assert!(first.revoked().is_cancelled() && !second.revoked().is_cancelled());
        assert!(people.by_token(token.expose().as_bytes()).await.unwrap().is_none());
        // More is no reason to end anything; less is.
        let shop: AppName = "shop".parse().unwrap();
        people.change_role(&ana, Some(&shop), Some(Role::Owner)).await.unwrap();
        assert!(!second.revoked().is_cancelled());
        people.change_role(&ana, None, Some(Role::Deployer)).await.unwrap();
        assert!(second.revoked().is_cancelled());
        let third = people.by_token(other.expose().as_bytes()).await.unwrap().unwrap();
        people.remove(&ana).await.unwrap();
        assert!(third.revoked().is_cancelled());
        drop((first, second, third));
        assert!(locked(&people.live).by_credential.is_empty());
    }
}
