//! One connection: who is there is found out by a key, and then git may be asked for, and nothing else.

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
use crate::talk::{Talk, finish, tell};

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
    channels: usize,
    /// Since when nothing is being done.
    idle: Option<Instant>,
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
        while self.present().channels > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends when nobody has said who they are in time, when nothing is asked for long, or when the right to be here is taken away.
    pub(crate) async fn over(&self, since: Instant) {
        loop {
            let (deadline, revoked) = {
                let present = self.present();
                let deadline = match &*present {
                    Present { guest: None, .. } => since + LOGIN,
                    Present { channels: 0, idle: Some(idle), .. } => *idle + IDLE,
                    _ => Instant::now() + IDLE,
                };
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
        let mut present = self.0.present();
        present.channels -= 1;
        present.idle = Some(Instant::now());
    }
}

/// A connection's conversation, as SSH's own state machine tells of it.
pub(crate) struct Visit {
    pub(crate) keeper: Arc<dyn Doorkeeper>,
    pub(crate) door: Door,
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
        presence: Arc<Presence>,
        tasks: TaskTracker,
        end: CancellationToken,
    ) -> Self {
        Self { keeper, door, presence, tasks, end, offers: 0, waiting: HashMap::new() }
    }

    /// Tells somebody who asks for something else what this door is for, and closes the channel.
    fn refuse(&mut self, channel: ChannelId, why: &str) {
        let Some(Waiting { channel, open, .. }) = self.waiting.remove(&channel) else { return };
        let name = self.presence.guest().map(|guest| guest.name().to_string()).unwrap_or_default();
        let text = format!("Hello {name}: {why}.\n");
        let end = self.end.clone();
        self.tasks.spawn(async move {
            let (_, to) = channel.split();
            let telling = async {
                tell(&to, &text).await;
                finish(&to, REFUSED).await;
            };
            if end.run_until_cancelled(telling).await.is_none() {
                tracing::debug!("a guest had to leave");
            }
            drop(open);
        });
    }

    fn begin(&mut self, channel: ChannelId, request: Request) {
        let Some(guest) = self.presence.guest() else { return };
        let Some(Waiting { channel, protocol, open }) = self.waiting.remove(&channel) else { return };
        let talk = Talk { door: self.door.clone(), guest, request, protocol, end: self.end.clone() };
        self.tasks.spawn(async move {
            talk.carry_out(channel).await;
            drop(open);
        });
    }
}

const ONLY_GIT: &str = "this door serves git alone, so there is no shell here; push with `git push`";

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
        match Request::parse(command) {
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
        self.refuse(channel, ONLY_GIT);
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
        let text = Bytes::from_static(b"This door serves git alone: no files are handed out here.\n");
        session.extended_data(channel, 1, text)?;
        session.channel_failure(channel)?;
        self.waiting.remove(&channel);
        session.close(channel)
    }
}
