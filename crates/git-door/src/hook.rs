//! The hook's side of its conversation with `git receive-pack`: what is to be moved is read, and each is told its fate.
//!
//! Source of the protocol: githooks(5), "proc-receive" and "post-receive".

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::object_id::ObjectId;
use crate::pkt_line::{self, FLUSH, PktLine};

/// The variables that tell the hook whose push it is in.
pub mod variables {
    /// The server's socket.
    pub const SOCKET: &str = "CORACLE_PUSH_SOCKET";
    /// The app.
    pub const APP: &str = "CORACLE_PUSH_APP";
    /// What shows that the push is a real one.
    pub const TICKET: &str = "CORACLE_PUSH_TICKET";
    /// Branches that may be deployed, in order of preference, separated by blanks.
    pub const BRANCHES: &str = "CORACLE_PUSH_BRANCHES";
}

/// The most refs that one push may bring to the gate.
const MOST: usize = 64;

/// A hook that this program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Decides about the branch that is deployed.
    ProcReceive,
    /// Tells what became of everything else.
    PostReceive,
}

impl Hook {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::ProcReceive, Self::PostReceive];

    /// The name git knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ProcReceive => "proc-receive",
            Self::PostReceive => "post-receive",
        }
    }

    /// The hook that a program was started as, by the name it was started under, if git started it for a push.
    pub fn of(program: &OsStr) -> Option<Self> {
        std::env::var_os(variables::TICKET)?;
        let name = Path::new(program).file_name()?;
        Self::ALL.into_iter().find(|hook| name == hook.name())
    }
}

/// A ref that is to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it names now; zeros: it is not there.
    pub old: ObjectId,
    /// What it is to name; zeros: it is to go.
    pub new: ObjectId,
    /// Its full name, as in `refs/heads/main`. Whoever pushed chose it.
    pub reference: String,
}

impl Command {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.trim_end_matches('\n').splitn(3, ' ');
        let (old, new, reference) = (words.next()?, words.next()?, words.next()?);
        Some(Self { old: old.parse().ok()?, new: new.parse().ok()?, reference: reference.to_owned() })
    }

    /// The branch, if it is one.
    pub fn branch(&self) -> Option<&str> {
        self.reference.strip_prefix("refs/heads/")
    }
}

/// What becomes of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Git moves it.
    Move,
    /// It stays as it is, for this reason: one line.
    Refused(String),
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Agrees with `receive-pack` on the protocol and reads what it wants to move.
pub fn read_commands(from: &mut impl Read, to: &mut impl Write) -> io::Result<Vec<Command>> {
    let PktLine::Data(version) = pkt_line::read(from)? else { return Err(invalid("git says no version")) };
    if !version.starts_with(b"version=1") {
        return Err(invalid("git speaks another version of the hook's protocol"));
    }
    while pkt_line::read(from)? != PktLine::Flush {}
    pkt_line::write(to, "version=1")?;
    to.write_all(FLUSH)?;
    to.flush()?;
    let mut commands = Vec::new();
    while let PktLine::Data(line) = pkt_line::read(from)? {
        if commands.len() == MOST {
            return Err(invalid("too many refs at once"));
        }
        commands.push(Command::parse(&line).ok_or_else(|| invalid("a ref's name is not UTF-8 text"))?);
    }
    Ok(commands)
}

/// Tells `receive-pack` what becomes of them.
pub fn report(to: &mut impl Write, fates: &[(Command, Fate)]) -> io::Result<()> {
    for (command, fate) in fates {
        match fate {
            Fate::Move => {
                pkt_line::write(to, &format!("ok {}", command.reference))?;
                pkt_line::write(to, "option fall-through")?;
            }
            Fate::Refused(reason) => pkt_line::write(to, &format!("ng {} {reason}", command.reference))?,
        }
    }
    to.write_all(FLUSH)?;
    to.flush()
}

/// Reads what has been moved, as `post-receive` is told it. What cannot be read is passed over: it is only told about.
pub fn read_moved(from: &mut impl Read) -> io::Result<Vec<Command>> {
    /// Bytes of the list that are read.
    const MOST_BYTES: u64 = 1 << 20;
    let mut list = Vec::new();
    from.take(MOST_BYTES).read_to_end(&mut list)?;
    Ok(list.split(|byte| *byte == b'\n').filter_map(Command::parse).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pkt_line::encoded;

    const ZEROS: &str = "0000000000000000000000000000000000000000";
    const ONE: &str = "1111111111111111111111111111111111111111";

    #[test]
    fn what_is_to_be_moved_is_read_and_answered() {
        let mut said = encoded(b"version=1\0push-options atomic");
        said.extend_from_slice(FLUSH);
        said.extend(encoded(format!("{ZEROS} {ONE} refs/heads/$(touch x);`y`").as_bytes()));
        said.extend(encoded(format!("{ONE} {ZEROS} refs/heads/main\n").as_bytes()));
        said.extend_from_slice(FLUSH);
        let mut answered = Vec::new();
        let commands = read_commands(&mut said.as_slice(), &mut answered).unwrap();
        assert_eq!(answered, b"000dversion=10000");
        assert_eq!(commands[0].branch(), Some("$(touch x);`y`"));
        assert!(commands[0].old.is_zero() && commands[1].new.is_zero());
        let fates = [(commands[0].clone(), Fate::Move), (commands[1].clone(), Fate::Refused("no".to_owned()))];
        let mut reported = Vec::new();
        report(&mut reported, &fates).unwrap();
        let mut reported = reported.as_slice();
        let mut lines = Vec::new();
        while let PktLine::Data(line) = pkt_line::read(&mut reported).unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["ok refs/heads/$(touch x);`y`", "option fall-through", "ng refs/heads/main no"]);
    }

    #[test]
    fn another_version_or_nonsense_is_no_conversation() {
        for said in [&encoded(b"version=2")[..], FLUSH, b"nonsense", b""] {
            assert!(read_commands(&mut &said[..], &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn what_was_moved_is_read_as_far_as_it_can_be() {
        let list = format!("{ZEROS} {ONE} refs/tags/v1\nnonsense\n{ZEROS} {ONE} refs/heads/feature\n");
        let moved = read_moved(&mut list.as_bytes()).unwrap();
        assert_eq!(moved.iter().filter_map(Command::branch).collect::<Vec<_>>(), ["feature"]);
        assert_eq!(moved.len(), 2);
    }
}
