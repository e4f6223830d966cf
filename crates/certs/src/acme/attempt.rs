//! One attempt at one name: preflight, order, and whose fault it is if it comes to nothing.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use tokio::sync::Mutex;
use tracing::warn;

use super::{account::Session, client::Client, order::Order, problem::AcmeError, renewal, transport::Transport};
use crate::{
    AcmeOptions, ChallengeKind,
    chain::Chain,
    challenges::Challenges,
    preflight::{Issuer, Preflight},
    storage::{self, Storage, Window},
};

/// How long an authority's directory is believed.
const DIRECTORY_AGE: Duration = Duration::from_secs(3600);

/// What all attempts with one authority share.
pub(crate) struct Authority {
    pub(crate) options: AcmeOptions,
    pub(crate) storage: Storage,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) provider: Arc<CryptoProvider>,
    session: Mutex<Option<(Instant, Arc<Session>)>>,
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) blame: Blame,
    /// Not again before this time: the authority's word.
    pub(crate) not_before: Option<Timestamp>,
}

/// Whose fault a failure is; it decides who has to wait how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The name's, found out before anything was ordered.
    Preflight,
    /// The name's, found out by the authority.
    Order,
    /// The authority's, or that of the way to it: every name has to wait.
    Authority,
}

impl Authority {
    pub(crate) fn new(
        options: AcmeOptions,
        storage: Storage,
        challenges: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { options, storage, challenges, provider, session: Mutex::default() }
    }

    fn account_file(&self) -> PathBuf {
        self.storage.directory().join("account.json")
    }

    /// The account, opened if it is not. Only one attempt at a time opens it; the others wait for that.
    async fn session(&self) -> Result<Arc<Session>, AcmeError> {
        let mut kept = self.session.lock().await;
        if let Some((since, session)) = kept.as_ref()
            && since.elapsed() < DIRECTORY_AGE
        {
            return Ok(session.clone());
        }
        let transport = Transport::new(self.options.ca_file.as_deref())?;
        let client = Client::open(transport, &self.options.directory_url).await?;
        let session = Arc::new(Session::open(client, &self.account_file(), &self.options).await?);
        *kept = Some((Instant::now(), session.clone()));
        Ok(session)
    }

    /// Whatever happened, the next attempt asks for the directory again.
    async fn forget_session(&self) {
        *self.session.lock().await = None;
    }

    /// Files that had to be put aside on the way to the account.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let kept = self.session.try_lock().ok();
        kept.and_then(|kept| kept.as_ref().map(|(_, session)| session.remarks.clone())).unwrap_or_default()
    }

    /// Preflight and order for one name. The certificate is on disk when this returns it.
    pub(crate) async fn attempt(&self, name: &str, failures: u32, old: Option<Chain>) -> Result<Chain, Failure> {
        let work = self.attempt_in_time(name, failures, old.as_ref());
        match tokio::time::timeout(self.options.deadline, work).await {
            Ok(result) => result,
            Err(_) => {
                let reason = format!("no certificate within {} s, so the order was given up", self.options.deadline.as_secs());
                Err(Failure { reason, blame: Blame::Order, not_before: None })
            }
        }
    }

    async fn attempt_in_time(&self, name: &str, failures: u32, old: Option<&Chain>) -> Result<Chain, Failure> {
        let preflight = Preflight::new(self.options.preflight.clone(), self.challenges.clone(), self.provider.clone());
        let preflight = preflight.map_err(Failure::preflight)?;
        // After a failure the next way is tried first: what we can reach need not be what the authority can.
        let mut kinds = self.options.challenges.clone();
        if !kinds.is_empty() {
            let first = failures as usize % kinds.len();
            kinds.rotate_left(first);
        }
        let kinds = preflight.reach(name, &kinds).await.map_err(Failure::preflight)?;
        match self.order(name, &preflight, &kinds, old).await {
            Err(error) if error.is_unknown_account() => {
                let remark = storage::set_aside(&self.account_file(), "the authority does not know the account");
                self.forget_session().await;
                warn!(%name, "{remark}");
                self.order(name, &preflight, &kinds, old).await.map_err(Halt::into_failure)
            }
            Err(halt) => {
                if matches!(halt, Halt::Session(_)) || halt.is_unreachable() {
                    self.forget_session().await;
                }
                Err(halt.into_failure())
            }
            Ok(chain) => Ok(chain),
        }
    }

    async fn order(
        &self,
        name: &str,
        preflight: &Preflight,
        kinds: &[ChallengeKind],
        old: Option<&Chain>,
    ) -> Result<Chain, Halt> {
        let session = self.session().await.map_err(Halt::Session)?;
        let identities = &session.client.directory.meta.caa_identities;
        let issuer = Issuer { identities, account: &session.account };
        let kinds = preflight.allowed(name, kinds.to_vec(), &issuer).await.map_err(Halt::Preflight)?;
        // Only what this authority has issued can be replaced there; the file of the old one came from its storage.
        let replaces = session.client.directory.renewal_info.as_ref().and(old).and_then(renewal::identifier);
        let order = Order {
            session: &session,
            name,
            kinds: &kinds,
            replaces: replaces.as_deref(),
            challenges: &self.challenges,
            provider: &self.provider,
        };
        let pem = order.run().await?;
        let chain = Chain::from_pem(&pem, &pem, &self.provider).map_err(|reason| Halt::useless(&reason))?;
        if !chain.covers(name) {
            return Err(Halt::useless("it is for another name"));
        }
        self.storage.save(name, &pem).map_err(AcmeError::from)?;
        Ok(chain)
    }

    /// When the authority would like to see a certificate renewed; `None` if it has no opinion.
    pub(crate) async fn renewal(&self, chain: &Chain) -> Result<Option<(Window, Option<Timestamp>)>, String> {
        let asked = async {
            let session = self.session().await?;
            renewal::ask(&session.client, chain).await
        };
        asked.await.map_err(|error| error.to_string())
    }
}

/// Why an attempt stopped.
#[derive(Debug)]
enum Halt {
    Preflight(String),
    /// There is no account to order with.
    Session(AcmeError),
    Order(AcmeError),
}

impl From<AcmeError> for Halt {
    fn from(error: AcmeError) -> Self {
        Self::Order(error)
    }
}

impl Halt {
    fn useless(reason: &str) -> Self {
        Self::Order(AcmeError::Protocol(format!("the authority's certificate is of no use: {reason}")))
    }

    fn is_unknown_account(&self) -> bool {
        let (Self::Session(error) | Self::Order(error)) = self else { return false };
        error.problem().is_some_and(|problem| problem.is("accountDoesNotExist"))
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Order(AcmeError::Unreachable(_)))
    }

    fn into_failure(self) -> Failure {
        let (error, session) = match self {
            Self::Preflight(reason) => return Failure::preflight(reason),
            Self::Session(error) => (error, true),
            Self::Order(error) => (error, false),
        };
        let (overloaded, not_before) = match &error {
            AcmeError::Refused { problem, status, retry_after } => {
                let limited = problem.is("rateLimited") || *status == 429 || *status == 503;
                // An authority that asks to wait and does not say how long: its shortest limits are counted by the hour.
                let hour = || Timestamp::now().saturating_add(Duration::from_secs(3600)).ok();
                (*status == 503, if limited { retry_after.or_else(hour) } else { None })
            }
            _ => (false, None),
        };
        let authority = session || overloaded || matches!(error, AcmeError::Unreachable(_));
        let blame = if authority { Blame::Authority } else { Blame::Order };
        Failure { reason: error.to_string(), blame, not_before }
    }
}

impl Failure {
    fn preflight(reason: String) -> Self {
        Self { reason, blame: Blame::Preflight, not_before: None }
    }
}
