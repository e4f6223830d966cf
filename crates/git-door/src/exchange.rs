//! Git's services without what carries them: what is asked goes into a git program, what it answers comes back as it is written,
//! and a push is seen through to its end even when nobody listens any more. HTTP asks in pieces that know nothing of each other
//! (gitprotocol-http(5)); over a line that stays, as SSH has it, there is one conversation (gitprotocol-pack(5)).

use std::io::{Error, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_model::{AppName, Bearer};
use flate2::write::GzDecoder;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::door::{Door, DoorError};
use crate::git::{Git, Running, told};
use crate::hook::variables;
use crate::pkt_line::{FLUSH, encoded};
use crate::push::{Push, Ticket};
use crate::repository::Repository;

/// How long whoever asks may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// How long one exchange may take at most.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// How long one with a deployment in it may take at most. What takes longer is called off.
const LONGEST_PUSH: Duration = Duration::from_secs(24 * 3600);

/// How much is read at a time.
const PIECE: usize = 32 * 1024;

/// Pieces on their way to whoever reads them.
const AHEAD: usize = 8;

/// Bytes of what a fetch says it wants and has, unpacked.
const MOST_WANTS: u64 = 64 << 20;

/// How much compressed input is unpacked at a time, so that a bomb cannot fill the memory: a byte becomes a thousand at most.
const PINCH: usize = 2 * 1024;

/// What git is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Clones and fetches.
    UploadPack,
    /// Pushes.
    ReceivePack,
}

impl Service {
    /// The service of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack].into_iter().find(|service| service.name() == name)
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }
}

/// What git answers, piece by piece. Dropping it before its end means that nobody listens any more.
pub type Answer = mpsc::Receiver<Bytes>;

/// The version of the protocol that is asked for, if it is one we pass on.
fn version(protocol: Option<&str>) -> Option<&'static str> {
    let asked = protocol?;
    ["version=2", "version=1"].into_iter().find(|version| asked.split(':').any(|word| word == *version))
}

impl Door {
    /// What refs there are, and what can be done with them. A push makes the repository if it is not there.
    pub async fn advertise(&self, app: &AppName, service: Service, protocol: Option<&str>) -> Result<Bytes, DoorError> {
        let repository = match service {
            Service::ReceivePack => self.ensure(app).await?,
            Service::UploadPack => self.known(app)?,
        };
        let protocol = version(protocol).filter(|_| service == Service::UploadPack);
        let mut git = repository.git(&[service.word(), "--stateless-rpc", "--advertise-refs"]);
        git.argument(repository.path());
        if let Some(protocol) = protocol {
            git.env("GIT_PROTOCOL", protocol);
        }
        let refs = git.ask().await?;
        let mut answer = Vec::new();
        if protocol != Some("version=2") {
            answer.extend(encoded(format!("# service={}\n", service.name()).as_bytes()));
            answer.extend_from_slice(FLUSH);
        }
        answer.extend(refs);
        Ok(answer.into())
    }

    /// A fetch. `compressed`: what is asked comes gzip-compressed.
    pub fn upload_pack<B>(&self, app: &AppName, protocol: Option<&str>, compressed: bool, asked: B) -> Result<Answer, DoorError>
    where
        B: Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let repository = self.known(app)?;
        let mut git = repository.git(&[Service::UploadPack.word(), "--stateless-rpc"]);
        git.argument(repository.path());
        if let Some(protocol) = version(protocol) {
            git.env("GIT_PROTOCOL", protocol);
        }
        let asked = Asked::new(asked, compressed);
        let (sender, answer) = mpsc::channel(AHEAD);
        let exchange = Exchange { running: git.start()?, stop: self.inner.stop.clone(), line: Line::Asked };
        self.inner.tasks.spawn(async move { exchange.carry_out(asked, sender, None).await });
        Ok(answer)
    }

    /// A push, by the administrator or by a person. When nobody listens any more, the gate is told, and git is let come to its end:
    /// what is live is what the ref says.
    pub async fn receive_pack<B>(
        &self,
        app: &AppName,
        by: Option<Bearer>,
        compressed: bool,
        asked: B,
    ) -> Result<Answer, DoorError>
    where
        B: Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let (answer, _) = self.receive(app, self.known(app)?, by, Line::Asked, Asked::new(asked, compressed)).await?;
        Ok(answer)
    }

    /// A whole conversation over a line that stays: a fetch or a push. A push makes the repository if it is not there. What comes
    /// second tells, at the end, whether git succeeded.
    pub async fn converse<B>(
        &self,
        app: &AppName,
        service: Service,
        by: Option<Bearer>,
        protocol: Option<&str>,
        said: B,
    ) -> Result<(Answer, oneshot::Receiver<bool>), DoorError>
    where
        B: Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    {
        // Git says nothing while it packs what it is about to push; whether somebody is there yet, the line has to find out.
        let said = Asked { silence: LONGEST, ..Asked::new(said, false) };
        if service == Service::ReceivePack {
            return self.receive(app, self.ensure(app).await?, by, Line::Open, said).await;
        }
        let repository = self.known(app)?;
        let mut git = repository.git(&[Service::UploadPack.word()]);
        git.argument(repository.path());
        if let Some(protocol) = version(protocol) {
            git.env("GIT_PROTOCOL", protocol);
        }
        let (sender, answer) = mpsc::channel(AHEAD);
        let (ended, end) = oneshot::channel();
        let exchange = Exchange { running: git.start()?, stop: self.inner.stop.clone(), line: Line::Open };
        self.inner.tasks.spawn(async move {
            let succeeded = exchange.carry_out(said, sender, None).await;
            // Whoever asked may be gone.
            let _told: Result<(), bool> = ended.send(succeeded);
        });
        Ok((answer, end))
    }

    async fn receive<B>(
        &self,
        app: &AppName,
        repository: Repository,
        by: Option<Bearer>,
        line: Line,
        asked: Asked<B>,
    ) -> Result<(Answer, oneshot::Receiver<bool>), DoorError>
    where
        B: Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let gone = self.inner.stop.child_token();
        let (ticket, push) = self.begin(app, repository.clone(), by, gone)?;
        let ending = Ending { door: self.clone(), ticket: ticket.clone() };
        let git = self.receiving(app, &repository, line, &ticket).await?;
        let (sender, answer) = mpsc::channel(AHEAD);
        let (ended, end) = oneshot::channel();
        let exchange = Exchange { running: git.start()?, stop: self.inner.stop.clone(), line };
        let door = self.clone();
        self.inner.tasks.spawn(async move {
            let succeeded = exchange.carry_out(asked, sender, Some(push.clone())).await;
            push.git_ended().await;
            drop(ending);
            // Whoever pushes may be gone.
            let _told: Result<(), bool> = ended.send(succeeded);
            door.tidy(repository);
        });
        Ok((answer, end))
    }

    async fn receiving(&self, app: &AppName, repository: &Repository, line: Line, ticket: &Ticket) -> Result<Git, DoorError> {
        let branches = repository.candidates().await?;
        let mut git = repository.git(&[Service::ReceivePack.word()]);
        if line == Line::Asked {
            git.argument("--stateless-rpc");
        }
        git.argument(repository.path()).set("core.hooksPath", &self.inner.hooks);
        // Every branch comes to the gate: the deployed one is deployed, and others may have previews.
        git.set("receive.procReceiveRefs", "refs/heads");
        git.env(variables::SOCKET, &self.inner.socket).env(variables::APP, app.as_str());
        git.env(variables::TICKET, ticket.as_str()).env(variables::BRANCHES, branches.join(" "));
        Ok(git)
    }
}

/// Takes the ticket away when the push has ended, however it ended.
struct Ending {
    door: Door,
    ticket: Ticket,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.door.ended(&self.ticket);
    }
}

/// What is asked, as it comes in.
struct Asked<B> {
    body: B,
    gunzip: Option<GzDecoder<Vec<u8>>>,
    unpacked: u64,
    /// How long nothing may come.
    silence: Duration,
}

impl<B: Stream<Item = std::io::Result<Bytes>> + Unpin> Asked<B> {
    fn new(body: B, compressed: bool) -> Self {
        Self { body, gunzip: compressed.then(|| GzDecoder::new(Vec::new())), unpacked: 0, silence: SILENCE }
    }

    async fn feed(mut self, mut into: ChildStdin) -> std::io::Result<()> {
        loop {
            let piece =
                tokio::time::timeout(self.silence, self.body.next()).await.map_err(|_| Error::from(ErrorKind::TimedOut))?;
            let Some(piece) = piece.transpose()? else { break };
            for pinch in piece.chunks(if self.gunzip.is_some() { PINCH } else { piece.len().max(1) }) {
                match &mut self.gunzip {
                    None => into.write_all(pinch).await?,
                    Some(gunzip) => {
                        gunzip.write_all(pinch)?;
                        let plain = std::mem::take(gunzip.get_mut());
                        self.unpacked += plain.len() as u64;
                        if self.unpacked > MOST_WANTS {
                            return Err(Error::new(ErrorKind::InvalidData, "more is asked than anybody could want"));
                        }
                        into.write_all(&plain).await?;
                    }
                }
            }
        }
        if let Some(gunzip) = self.gunzip {
            into.write_all(&gunzip.finish()?).await?;
        }
        into.shutdown().await
    }
}

/// What stands between git and whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// What is asked ends by itself, and then the answer comes.
    Asked,
    /// Both sides talk until git has ended.
    Open,
}

struct Exchange {
    running: Running,
    stop: CancellationToken,
    line: Line,
}

impl Exchange {
    /// Passes both ways until git has ended; whether it succeeded.
    async fn carry_out<B>(mut self, asked: Asked<B>, answer: mpsc::Sender<Bytes>, push: Option<Arc<Push>>) -> bool
    where
        B: Stream<Item = std::io::Result<Bytes>> + Unpin,
    {
        let (stdin, stdout) = (self.running.child.stdin.take(), self.running.child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else { return false };
        let complaint = self.running.complaint();
        let passing = async {
            let feeding = async {
                // Cut off, git's input ends early, which it takes for what it is.
                if let Some(Err(error)) = self.stop.run_until_cancelled(asked.feed(stdin)).await {
                    tracing::debug!(%error, "what git is asked ended early");
                }
            };
            let listening = async { tokio::join!(pass_on(stdout, answer, push.as_deref()), complaint).1 };
            let complaint = match self.line {
                Line::Asked => tokio::join!(feeding, listening).1,
                Line::Open => until_second(feeding, listening).await,
            };
            (self.running.child.wait().await, complaint)
        };
        let longest = if push.is_some() { LONGEST_PUSH } else { LONGEST };
        match tokio::time::timeout(longest, passing).await {
            Ok((Ok(status), _)) if status.success() => return true,
            Ok((Ok(status), complaint)) => tracing::info!(%status, complaint = told(&complaint), "git did not succeed"),
            Ok((Err(error), _)) => tracing::warn!(%error, "git cannot be waited for"),
            Err(_) => tracing::warn!("an exchange with git did not end and is cut off"),
        }
        false
    }
}

/// Does both until the second has ended, which is not held up by the first.
async fn until_second<T>(first: impl Future<Output = ()>, second: impl Future<Output = T>) -> T {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let mut done = false;
    loop {
        tokio::select! {
            () = &mut first, if !done => done = true,
            ended = &mut second => return ended,
        }
    }
}

/// Hands on what git writes. Whoever fetches and goes away ends it; a push is read to its end, since git must not break off
/// between the gate and the ref.
async fn pass_on(mut from: ChildStdout, answer: mpsc::Sender<Bytes>, push: Option<&Push>) {
    let mut listener = Some(answer);
    let mut piece = vec![0; PIECE];
    loop {
        let read = match &listener {
            None => from.read(&mut piece).await,
            Some(answer) => tokio::select! {
                read = from.read(&mut piece) => read,
                () = answer.closed() => Ok(usize::MAX),
            },
        };
        let gone = match read {
            Ok(0) | Err(_) => return,
            Ok(usize::MAX) => true,
            Ok(length) => match &listener {
                None => false,
                Some(answer) => answer.send(Bytes::copy_from_slice(&piece[..length])).await.is_err(),
            },
        };
        if gone {
            listener = None;
            match push {
                Some(push) => push.gone().cancel(),
                None => return,
            }
        }
    }
}
