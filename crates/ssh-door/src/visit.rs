//! One connection: who is there is found out by a key, and then git or the API may be asked for, and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use coracle_git_door::Door;
use russh::keys::Algorithm;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::guest::{Doorkeeper, Guest};
use crate::key::fingerprint;
use crate::request::Request;
use crate::talk::{Talk, finish, serve_api, tell};

/// Until when somebody has to have said who they are.
const LOGIN: Duration = Duration::from_secs(30);

/// How long somebody may be there without asking for anything.
const IDLE: Duration = Duration::from_secs(60);

/// Channels of one connection at a time.
const CHANNELS: usize = 8;

/// Keys that may be offered, whether they are known or not. Agents hold several.
const OFFERS: usize = 24;

/// Bytes of `GIT_PROTOCOL`.
const PROTOCOL: usize = 256;

/// What git's programs end with that may not run.
const REFUSED: u32 = 1;

/// What is known about a connection from its outside.
#[derive(Default)]
pub(crate) struct Presence(Mutex<Present>);

#[derive(Default)]
struct Present {
    guest: Option<Arc<dyn Guest>>,
    /// Channels that are open.
    channels: usize,
    /// Those on which something is being done. One on which nothing is asked for keeps nobody here.
    busy: usize,
    /// Since when nothing is being done.
    idle: Option<Instant>,
}

impl Present {
    /// Until when somebody may be there who came at a moment.
    fn deadline(&self, since: Instant, now: Instant) -> Instant {
        match self {
            Self { guest: None, .. } => since + LOGIN,
            Self { busy: 0, idle: Some(idle), .. } => *idle + IDLE,
            _ => now + IDLE,
        }
    }
}

impl Presence {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guest(&self) -> Option<Arc<dyn Guest>> {
        self.present().guest.clone()
    }

    fn came(&self, guest: Box<dyn Guest>) {
        let mut present = self.present();
        present.guest = Some(guest.into());
        present.idle = Some(Instant::now());
    }

    /// Ends when the server stops and nothing is being done here.
    pub(crate) async fn stopped(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        while self.present().busy > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends when nobody has said who they are in time, when nothing is asked for long, or when the right to be here is taken away.
    pub(crate) async fn over(&self, since: Instant) {
        loop {
            let (deadline, revoked) = {
                let present = self.present();
                let deadline = present.deadline(since, Instant::now());
                (deadline, present.guest.as_ref().map(|guest| guest.revoked()).unwrap_or_default())
            };
            if Instant::now() >= deadline || revoked.is_cancelled() {
                return;
            }
            // Somebody who has just come is noticed at the first deadline at the latest, and checked before anything is done.
            let soon = deadline.min(Instant::now() + Duration::from_secs(1));
            tokio::select! {
                () = revoked.cancelled() => return,
                () = tokio::time::sleep_until(soon) => {}
            }
        }
    }
}

/// A channel that is open.
struct Open(Arc<Presence>);

impl Open {
    /// One more, if that is not too many.
    fn another(presence: &Arc<Presence>) -> Option<Self> {
        let mut present = presence.present();
        (present.channels < CHANNELS).then(|| {
            present.channels += 1;
            Self(presence.clone())
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.present().channels -= 1;
    }
}

/// A channel on which something is being done.
struct Busy(Open);

impl Busy {
    fn on(open: Open) -> Self {
        open.0.present().busy += 1;
        Self(open)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut present = self.0.0.present();
        present.busy -= 1;
        present.idle = Some(Instant::now());
    }
}

/// A connection's conversation, as SSH's own state machine tells of it.
pub(crate) struct Visit {
    pub(crate) keeper: Arc<dyn Doorkeeper>,
    pub(crate) door: Door,
    /// By which the API is asked for.
    api_command: &'static str,
    pub(crate) presence: Arc<Presence>,
    pub(crate) tasks: TaskTracker,
    /// Fires when the connection is to end.
    pub(crate) end: CancellationToken,
    offers: usize,
    waiting: HashMap<ChannelId, Waiting>,
}

/// A channel on which nothing has been asked for yet.
struct Waiting {
    channel: Channel<Msg>,
    protocol: Option<String>,
    open: Open,
}

impl Visit {
    pub(crate) fn new(
        keeper: Arc<dyn Doorkeeper>,
        door: Door,
        api_command: &'static str,
        presence: Arc<Presence>,
        tasks: TaskTracker,
        end: CancellationToken,
    ) -> Self {
        Self { keeper, door, api_command, presence, tasks, end, offers: 0, waiting: HashMap::new() }
    }

    /// Tells somebody who asks for something else what this door is for, and closes the channel.
    fn refuse(&mut self, channel: ChannelId, why: &str) {
        let Some(Waiting { channel, open, .. }) = self.waiting.remove(&channel) else { return };
        let name = self.presence.guest().map(|guest| guest.name().to_string()).unwrap_or_default();
        let text = format!("Hello {name}: {why}.\n");
        let (end, busy) = (self.end.clone(), Busy::on(open));
        self.tasks.spawn(async move {
            let (_, to) = channel.split();
            let telling = async {
                tell(&to, &text).await;
                finish(&to, REFUSED).await;
            };
            if end.run_until_cancelled(telling).await.is_none() {
                tracing::debug!("a guest had to leave");
            }
            drop(busy);
        });
    }

    fn begin(&mut self, channel: ChannelId, request: Request) {
        let Some(guest) = self.presence.guest() else { return };
        let Some(Waiting { channel, protocol, open }) = self.waiting.remove(&channel) else { return };
        let (door, end, busy) = (self.door.clone(), self.end.clone(), Busy::on(open));
        self.tasks.spawn(async move {
            match request {
                Request::Git { service, app } => Talk { door, guest, service, app, protocol, end }.carry_out(channel).await,
                Request::Api => serve_api(channel, guest.as_ref(), &end).await,
            }
            drop(busy);
        });
    }
}

const NO_SHELL: &str = "this door serves git and Coracle's own client, so there is no shell here; push with `git push`";

impl Handler for Visit {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        self.offers += 1;
        if self.offers > OFFERS {
            return Err(russh::Error::Disconnect);
        }
        let is_taken = !matches!(offer.algorithm, Algorithm::Rsa { .. } | Algorithm::Dsa);
        match is_taken && self.keeper.knows(&fingerprint(offer.public_key)).await {
            true => Ok(Auth::Accept),
            false => Ok(Auth::reject()),
        }
    }

    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        match self.keeper.who(&fingerprint(key.public_key)).await {
            Some(guest) => {
                self.presence.came(guest);
                Ok(Auth::Accept)
            }
            None => Ok(Auth::reject()),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        match Open::another(&self.presence) {
            Some(open) => {
                self.waiting.insert(channel.id(), Waiting { channel, protocol: None, open });
                reply.accept().await;
            }
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.waiting.remove(&channel);
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.waiting.get_mut(&channel) {
            Some(waiting) if name == "GIT_PROTOCOL" && value.len() <= PROTOCOL => {
                waiting.protocol = Some(value.to_owned());
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    async fn exec_request(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        if !self.waiting.contains_key(&channel) {
            return session.channel_failure(channel);
        }
        session.channel_success(channel)?;
        match Request::parse(command, self.api_command) {
            Ok(request) => self.begin(channel, request),
            Err(error) => self.refuse(channel, &error.to_string()),
        }
        Ok(())
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if !self.waiting.contains_key(&channel) {
            return session.channel_failure(channel);
        }
        session.channel_success(channel)?;
        self.refuse(channel, NO_SHELL);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(&mut self, channel: ChannelId, _name: &str, session: &mut Session) -> Result<(), russh::Error> {
        // `sftp` reads what comes as its protocol, so it is told on the side.
        let text = Bytes::from_static(b"This door serves git and Coracle's own client: no files are handed out here.\n");
        session.extended_data(channel, 1, text)?;
        session.channel_failure(channel)?;
        self.waiting.remove(&channel);
        session.close(channel)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_trait::async_trait;
    use coracle_git_door::Service;
    use coracle_model::{AppName, CredentialId, PersonName};

    use super::*;
    use crate::guest::{Refusal, Wire};

    struct Ana(PersonName);

    #[async_trait]
    impl Guest for Ana {
        fn name(&self) -> &PersonName {
            &self.0
        }

        fn credential(&self) -> CredentialId {
            CredentialId(1)
        }

        fn revoked(&self) -> CancellationToken {
            CancellationToken::new()
        }

        async fn may(&self, _: &AppName, _: Service) -> Result<(), Refusal> {
            Ok(())
        }

        async fn serve(&self, _: Box<dyn Wire>) -> Result<(), Refusal> {
            Ok(())
        }
    }

    #[test]
    fn who_asks_for_nothing_leaves_however_many_channels_are_open() {
        let (presence, came) = (Arc::new(Presence::default()), Instant::now());
        let deadline = |now| presence.present().deadline(came, now);
        assert_eq!(deadline(came), came + LOGIN);
        presence.came(Box::new(Ana("ana".parse().unwrap())));
        let idle = presence.present().idle.unwrap();
        let much_later = came + Duration::from_secs(3600);
        let mut open: Vec<Open> = std::iter::from_fn(|| Open::another(&presence)).collect();
        assert_eq!((open.len(), deadline(much_later)), (CHANNELS, idle + IDLE));
        let busy = Busy::on(open.pop().unwrap());
        assert_eq!(deadline(much_later), much_later + IDLE);
        drop(busy);
        let idle = presence.present().idle.unwrap();
        assert_eq!(deadline(much_later), idle + IDLE);
        assert!(Open::another(&presence).is_some());
    }
}
