//! One fetch or push, or one client of the API: the channel on one side, git or the API on the other.

use std::sync::Arc;

use bytes::Bytes;
use coracle_git_door::{Answer, Door, DoorError, Service};
use coracle_model::{AppName, Bearer, PersonName};
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::StreamReader;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::guest::{Guest, Refusal};

/// Pieces on their way from the channel to git; beyond them the channel's window stays closed.
const AHEAD: usize = 4;

/// The number of standard error among the kinds of extended data (RFC 4254 section 5.2).
const STDERR: u32 = 1;

/// What git's own programs end with that could not begin.
const FATAL: u32 = 128;

/// Somebody asks for something of git's; it is done, or told why not.
pub(crate) struct Talk {
    pub(crate) door: Door,
    pub(crate) guest: Arc<dyn Guest>,
    pub(crate) service: Service,
    pub(crate) app: AppName,
    /// `GIT_PROTOCOL`, as it was sent.
    pub(crate) protocol: Option<String>,
    /// Fires when the connection is to end.
    pub(crate) end: CancellationToken,
}

impl Talk {
    /// Carries it out. When the other side goes away, git is left as by anybody who goes away.
    pub(crate) async fn carry_out(self, channel: Channel<Msg>) {
        let (from, to) = channel.split();
        let end = self.end.clone();
        let talking = async {
            let code = match self.begin(from).await {
                Ok((answer, git_ended, hung_up)) => pass_on(&to, answer, git_ended, &hung_up).await,
                Err(refusal) => {
                    tell(&to, &refusal.told()).await;
                    Some(FATAL)
                }
            };
            if let Some(code) = code {
                finish(&to, code).await;
            }
        };
        // Cut off, what git answers is dropped, which calls a push off.
        if end.run_until_cancelled(talking).await.is_none() {
            tracing::debug!("a guest had to leave");
        }
    }

    async fn begin(self, from: ChannelReadHalf) -> Result<(Answer, oneshot::Receiver<bool>, Reading), Refusal> {
        let Self { door, guest, service, app, protocol, .. } = self;
        let person: &PersonName = guest.name();
        guest.may(&app, service).await.inspect_err(|refusal| {
            tracing::info!(%person, %app, service = service.name(), why = refusal.detail, "refused over SSH");
        })?;
        tracing::info!(%person, %app, service = service.name(), "over SSH");
        let bearer = Bearer { name: person.clone(), credential: guest.credential() };
        let (reading, said) = Reading::of(from);
        let conversation = door.converse(&app, service, Some(bearer), protocol.as_deref(), said).await;
        let (answer, git_ended) = conversation.map_err(|error| refused(&error))?;
        Ok((answer, git_ended, reading))
    }
}

/// Somebody's client asks for the API, and is served until one of them ends it. When the other side goes away, what was asked for is
/// left as by anybody who goes away.
pub(crate) async fn serve_api(channel: Channel<Msg>, guest: &dyn Guest, end: &CancellationToken) {
    let (from, to) = channel.split();
    let (reading, said) = Reading::of(from);
    tracing::info!(person = %guest.name(), "the API over SSH");
    let wire = tokio::io::join(StreamReader::new(said), to.make_writer());
    let serving = async {
        let code = match guest.serve(Box::new(wire)).await {
            Ok(()) => 0,
            Err(refusal) => {
                tell(&to, &refusal.told()).await;
                FATAL
            }
        };
        finish(&to, code).await;
    };
    if end.run_until_cancelled(reading.gone.run_until_cancelled(serving)).await.is_none() {
        tracing::debug!("a guest had to leave");
    }
}

/// What the server's log has in full is told without paths.
fn refused(error: &DoorError) -> Refusal {
    match error {
        DoorError::NoRepository(_) => Refusal { detail: error.to_string(), hint: Some("push to it first: git push".to_owned()) },
        _ => {
            tracing::warn!(%error, "git could not be answered over SSH");
            Refusal {
                detail: "the server cannot do this at the moment".to_owned(),
                hint: Some("its log has the details".to_owned()),
            }
        }
    }
}

/// What the other side says, read for as long as it is there: also when it has said everything, so that it is noticed when it
/// goes away while git works.
struct Reading {
    gone: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Reading {
    fn of(from: ChannelReadHalf) -> (Self, impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static) {
        let (said, heard) = mpsc::channel(AHEAD);
        let gone = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(read(from, said, gone.clone().drop_guard())));
        let pieces = futures::stream::unfold(heard, |mut heard| async move {
            let piece = heard.recv().await?;
            Some((Ok(piece), heard))
        });
        (Self { gone, _task: task }, Box::pin(pieces))
    }
}

async fn read(mut from: ChannelReadHalf, said: mpsc::Sender<Bytes>, _gone: DropGuard) {
    let mut said = Some(said);
    while let Some(message) = from.wait().await {
        match (message, &said) {
            // If git does not listen any more, the rest is of no use to anybody.
            (ChannelMsg::Data { data }, Some(git)) => {
                let listens = git.send(data).await.is_ok();
                said = said.filter(|_| listens);
            }
            (ChannelMsg::Eof, _) => said = None,
            (ChannelMsg::Close, _) => return,
            _ => {}
        }
    }
}

/// Hands on what git answers until it has ended; the code that it ends with, or `None` if nobody is there any more.
async fn pass_on(
    to: &ChannelWriteHalf<Msg>,
    mut answer: Answer,
    git_ended: oneshot::Receiver<bool>,
    reading: &Reading,
) -> Option<u32> {
    let passing = async {
        while let Some(piece) = answer.recv().await {
            to.data_bytes(piece).await.ok()?;
        }
        // Git has said everything; what is left of its work is short.
        Some(if git_ended.await.unwrap_or(false) { 0 } else { FATAL })
    };
    reading.gone.run_until_cancelled(passing).await.flatten()
}

/// Says something that people read.
pub(crate) async fn tell(to: &ChannelWriteHalf<Msg>, text: &str) {
    if to.extended_data_bytes(STDERR, Bytes::copy_from_slice(text.as_bytes())).await.is_err() {
        tracing::debug!("whoever was to be told something over SSH is gone");
    }
}

/// Ends a channel with a code.
pub(crate) async fn finish(to: &ChannelWriteHalf<Msg>, code: u32) {
    let finishing = async {
        to.exit_status(code).await?;
        to.eof().await?;
        to.close().await
    };
    if finishing.await.is_err() {
        tracing::debug!("a channel was closed from the other side");
    }
}
