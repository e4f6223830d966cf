//! Who comes: whoever holds the door knows people and what they may do; the door does not.

use async_trait::async_trait;
use coracle_git_door::Service;
use coracle_model::{AppName, CredentialId, PersonName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Knows people by their keys.
#[async_trait]
pub trait Doorkeeper: Send + Sync + 'static {
    /// Whether a key of this fingerprint (`SHA256:…`) is anybody's. That whoever offers it has it, is not proven yet.
    async fn knows(&self, fingerprint: &str) -> bool;

    /// Whose key it is. That whoever shows it has it, has been proven.
    async fn who(&self, fingerprint: &str) -> Option<Box<dyn Guest>>;
}

/// Somebody who has come in.
#[async_trait]
pub trait Guest: Send + Sync + 'static {
    /// The name.
    fn name(&self) -> &PersonName;

    /// What was shown.
    fn credential(&self) -> CredentialId;

    /// Fires when the right to be here is taken away.
    fn revoked(&self) -> CancellationToken;

    /// Whether this may be done.
    async fn may(&self, app: &AppName, service: Service) -> Result<(), Refusal>;

    /// Serves the API to this guest's client, with this guest's rights, until either side ends it.
    async fn serve(&self, wire: Box<dyn Wire>) -> Result<(), Refusal>;
}

/// What a client reads and writes.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// Why something may not be done, as the guest is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Refusal {
    /// In lines, as git shows them to whoever asked.
    pub(crate) fn told(&self) -> String {
        let hint = self.hint.iter().map(|hint| format!("next: {hint}\n")).collect::<String>();
        format!("coracle: {}\n{hint}", self.detail)
    }
}
