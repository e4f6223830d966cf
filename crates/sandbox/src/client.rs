//! The client: what an unprivileged program says to the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::execution::{Event, Execution, Health, ImageInfo};
use crate::wire::{self, Answer, Refusal, Request, Submission, WireError};

/// How many connections are kept for the next executions.
const MOST_IDLE: usize = 64;

/// Why the daemon does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It is not there, or went away.
    #[error("the sandbox daemon at {socket}: {source}")]
    Unreachable {
        /// Where it should be.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It refuses, and says why.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// What it says makes no sense.
    #[error("the sandbox daemon: {0}")]
    Wire(#[from] WireError),
    /// It says something at the wrong time.
    #[error("the sandbox daemon answered something else than what was asked")]
    OutOfOrder,
    /// The execution cannot be carried out anywhere.
    #[error("{0}")]
    Invalid(String),
}

/// A daemon at a socket. Cheap to clone; connections are made as needed and kept.
#[derive(Debug, Clone)]
pub struct Sandbox {
    socket: Arc<Path>,
    idle: Arc<Mutex<Vec<Wire>>>,
}

impl Sandbox {
    /// Connects, so that a daemon which is not there is known at once.
    pub async fn connect(socket: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let socket: PathBuf = socket.into();
        let sandbox = Self { socket: socket.into(), idle: Arc::default() };
        let wire = sandbox.open().await?;
        sandbox.keep(wire);
        Ok(sandbox)
    }

    /// Has a program executed. Dropping the answer before its end cancels the execution.
    pub async fn execute(&self, execution: &Execution) -> Result<Running, ClientError> {
        check(execution)?;
        let request = Request::Execute(Submission::of(execution));
        let (wire, answer) = self.ask(&request).await?;
        match answer {
            Answer::Event(event) => Ok(Running { sandbox: self.clone(), wire: Some(wire), first: Some(event) }),
            Answer::Refused(refusal) => {
                self.keep(wire);
                Err(ClientError::Refused(refusal))
            }
            _ => Err(ClientError::OutOfOrder),
        }
    }

    /// The images that can be named.
    pub async fn images(&self) -> Result<Vec<ImageInfo>, ClientError> {
        match self.ask(&Request::Images).await? {
            (wire, Answer::Images(images)) => {
                self.keep(wire);
                Ok(images)
            }
            _ => Err(ClientError::OutOfOrder),
        }
    }

    /// How the daemon is.
    pub async fn health(&self) -> Result<Health, ClientError> {
        match self.ask(&Request::Health).await? {
            (wire, Answer::Health(health)) => {
                self.keep(wire);
                Ok(health)
            }
            _ => Err(ClientError::OutOfOrder),
        }
    }

    /// Sends a request and waits for the first answer. A kept connection may belong to a daemon that has been replaced since;
    /// nothing has been executed when it closes without an answer to a request, so a new one is tried once.
    async fn ask(&self, request: &Request) -> Result<(Wire, Answer), ClientError> {
        let kept = self.lock().pop();
        if let Some(mut wire) = kept
            && let Ok(answer) = wire.ask(request).await
        {
            return answer.map(|answer| (wire, answer));
        }
        let mut wire = self.open().await?;
        let answer = wire.ask(request).await.map_err(|source| self.unreachable(source))?;
        answer.map(|answer| (wire, answer))
    }

    async fn open(&self) -> Result<Wire, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.unreachable(source))?;
        Ok(Wire { stream, incoming: BytesMut::with_capacity(16 << 10) })
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { socket: self.socket.to_path_buf(), source }
    }

    fn keep(&self, wire: Wire) {
        let mut idle = self.lock();
        if idle.len() < MOST_IDLE {
            idle.push(wire);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An execution under way.
#[derive(Debug)]
pub struct Running {
    sandbox: Sandbox,
    /// `None` after the end.
    wire: Option<Wire>,
    first: Option<Event>,
}

impl Running {
    /// What happens next; `None` after [`Event::End`]. May be given up and called again.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        let event = match (self.first.take(), &mut self.wire) {
            (Some(event), _) => event,
            (None, None) => return Ok(None),
            (None, Some(wire)) => match wire.answer().await.map_err(|source| self.sandbox.unreachable(source))?? {
                Answer::Event(event) => event,
                Answer::Refused(refusal) => return Err(ClientError::Refused(refusal)),
                _ => return Err(ClientError::OutOfOrder),
            },
        };
        if matches!(event, Event::End(_))
            && let Some(wire) = self.wire.take()
        {
            self.sandbox.keep(wire);
        }
        Ok(Some(event))
    }

    /// Types at an interactive execution. After its end this does nothing.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), ClientError> {
        self.say(&Request::Stdin(bytes.into())).await
    }

    /// Ends what is typed.
    pub async fn close_stdin(&mut self) -> Result<(), ClientError> {
        self.say(&Request::StdinEnd).await
    }

    /// Ends the execution; its end is still told.
    pub async fn cancel(&mut self) -> Result<(), ClientError> {
        self.say(&Request::Cancel).await
    }

    async fn say(&mut self, request: &Request) -> Result<(), ClientError> {
        match &mut self.wire {
            Some(wire) => wire.say(request).await.map_err(|source| self.sandbox.unreachable(source)),
            None => Ok(()),
        }
    }
}

/// A connection.
#[derive(Debug)]
struct Wire {
    stream: UnixStream,
    incoming: BytesMut,
}

impl Wire {
    async fn say(&mut self, request: &Request) -> io::Result<()> {
        let mut frame = BytesMut::new();
        request.encode(&mut frame);
        self.stream.write_all(&frame).await
    }

    async fn ask(&mut self, request: &Request) -> io::Result<Result<Answer, ClientError>> {
        self.say(request).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<Result<Answer, ClientError>> {
        loop {
            match wire::take_frame(&mut self.incoming) {
                Ok(Some((kind, payload))) => return Ok(Answer::decode(kind, payload).map_err(ClientError::Wire)),
                Ok(None) => {}
                Err(error) => return Ok(Err(error.into())),
            }
            self.stream.readable().await?;
            self.incoming.reserve(16 << 10);
            match self.stream.try_read_buf(&mut self.incoming) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
}

/// What no worker could do is refused here, where the reason can be told.
fn check(execution: &Execution) -> Result<(), ClientError> {
    let invalid = |message: String| Err(ClientError::Invalid(message));
    if let Some(argument) = execution.args.iter().find(|argument| argument.contains('\0')) {
        return invalid(format!("the argument {argument:?} contains NUL"));
    }
    for (name, value) in &execution.env {
        if name.is_empty() || name.contains(['\0', '=']) {
            return invalid(format!("{name:?} cannot be the name of a variable"));
        }
        if value.contains('\0') {
            return invalid(format!("the value of the variable {name} contains NUL"));
        }
    }
    for file in &execution.files {
        let clean = file.path.split('/').all(|name| !matches!(name, "" | "." | "..")) && !file.path.contains('\0');
        if !clean {
            return invalid(format!("{:?} is no path of a file below the working directory", file.path));
        }
    }
    let size: usize = execution.files.iter().map(|file| file.content.len()).sum::<usize>() + execution.code.len();
    if size > (wire::LONGEST_FRAME as usize) / 2 {
        return invalid(format!("program and files have {size} bytes; {} is the most", wire::LONGEST_FRAME / 2));
    }
    Ok(())
}
