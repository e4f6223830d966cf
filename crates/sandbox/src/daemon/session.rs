//! A slot without walls, for machines on which nothing safe can be made and operators who permit that: an interpreter with a
//! session and a directory of its own, and nothing but the limits of each process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::maker::{DEADLINE, adopt};
use super::seat::Seat;
use super::slot::{Keeper, Slot, Worker};
use super::streams::{Input, Output};
use crate::image::{ALONE, Image};
use crate::maker::VARIABLES;

/// A process group and its directory, which goes with it.
#[derive(Debug)]
pub(super) struct Session {
    leader: Pid,
    directory: PathBuf,
}

impl Session {
    /// Whoever has left the group is not reached: that is what walls are for.
    pub(super) fn kill(&self) {
        rustix::process::kill_process_group(self.leader, Signal::KILL).ok();
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// Starts an interpreter that waits for its job.
pub(super) async fn make(image: &Image, place: &Path, seat: Seat, longest: Duration) -> Result<Slot, (String, Seat)> {
    match start(image, place, &seat, longest).await {
        Ok((session, worker, [stdin, stdout, stderr])) => {
            let connected = connect(stdin, stdout, stderr).await;
            match connected {
                Ok((stdin, stdout, stderr)) => {
                    let (keeper, stdin) = (Keeper::Session(session), Some(Input::Watched(stdin)));
                    let (stdout, stderr) = (Output::Watched(stdout), Output::Watched(stderr));
                    Ok(Slot { keeper, worker, control: None, farewell: None, stdin, stdout, stderr, seat })
                }
                Err(why) => {
                    session.kill();
                    Err((why, seat))
                }
            }
        }
        Err(error) => Err((format!("start an interpreter: {error}"), seat)),
    }
}

type Ends = [OwnedFd; 3];

async fn start(image: &Image, place: &Path, seat: &Seat, longest: Duration) -> io::Result<(Session, Worker, Ends)> {
    let directory = place.join(seat.number.to_string());
    std::fs::remove_dir_all(&directory)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    std::fs::create_dir_all(&directory)?;
    let mut command = Command::new(image.python());
    command.args(["-s", "-c", ALONE]).arg(&directory).arg((longest.as_secs() + 5).to_string());
    command.env_clear().current_dir(&directory).process_group(0);
    for variable in VARIABLES {
        if let Some((name, value)) = variable.split_once('=') {
            let value = if matches!(name, "HOME" | "TMPDIR") { directory.as_os_str() } else { value.as_ref() };
            command.env(name, value);
        }
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let session = Session { leader: pid, directory };
    let worker = Worker::Child(adopt(pid.as_raw_nonzero().get())?);
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let stdin = child.stdin.take().ok_or_else(missing)?.into();
    let stdout = child.stdout.take().ok_or_else(missing)?.into();
    let stderr = child.stderr.take().ok_or_else(missing)?.into();
    Ok((session, worker, [stdin, stdout, stderr]))
}

/// Sends no filter, and waits for the word that it is ready.
async fn connect(
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<(pipe::Sender, pipe::Receiver, pipe::Receiver), String> {
    let text = |error: io::Error| format!("connect an interpreter: {error}");
    let stdin = pipe::Sender::from_owned_fd(stdin).map_err(text)?;
    let mut stdout = pipe::Receiver::from_owned_fd(stdout).map_err(text)?;
    let stderr = pipe::Receiver::from_owned_fd(stderr).map_err(text)?;
    stdin.writable().await.map_err(text)?;
    stdin.try_write(&0_u32.to_le_bytes()).map_err(text)?;
    let mut word = [0_u8; 1];
    match tokio::time::timeout(DEADLINE, stdout.read(&mut word)).await {
        Ok(Ok(1)) if word == *b"+" => Ok((stdin, stdout, stderr)),
        Ok(Ok(_)) => Err("the interpreter does not start".to_owned()),
        Ok(Err(error)) => Err(text(error)),
        Err(_) => Err(format!("the interpreter was not ready within {} s", DEADLINE.as_secs())),
    }
}
