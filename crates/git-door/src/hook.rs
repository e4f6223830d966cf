//! The hook's side of its conversation with `git receive-pack`: what is to be moved is read, and each is told its fate.
//!
//! Source of the protocol: githooks(5), "proc-receive".

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

/// Where commits lie that wait for a person, each under the number of its deployment.
pub const WAITING: &str = "refs/waiting/";

/// The most branches that one push may move.
const MOST: usize = 4096;

/// A hook that this program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Looks after what has come before git takes it over.
    PreReceive,
    /// Decides about branches.
    ProcReceive,
}

impl Hook {
    /// Every hook.
    pub(crate) const ALL: [Self; 2] = [Self::PreReceive, Self::ProcReceive];

    /// The name git knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PreReceive => "pre-receive",
            Self::ProcReceive => "proc-receive",
        }
    }

    /// The hook that a program was started as, by the name it was started under, if git started it for a push.
    pub fn of(program: &OsStr) -> Option<Self> {
        std::env::var_os(variables::TICKET)?;
        let name = Path::new(program).file_name()?;
        Self::ALL.into_iter().find(|hook| name == hook.name())
    }
}

/// Takes the marks off packs in a quarantine (`GIT_QUARANTINE_PATH`, git-receive-pack(1)) that keep them from being repacked.
///
/// A mark names the process that received the pack, and git takes over no pack whose mark differs from one that is there: the same
/// commits could not be pushed to two branches at a time, nor again while an earlier push of theirs is ending. Nothing depends on
/// the mark: what no ref leads to is tidied away after a week, not sooner.
pub fn unmark(quarantine: &Path) -> io::Result<()> {
    let packs = match std::fs::read_dir(quarantine.join("pack")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        packs => packs?,
    };
    for entry in packs {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "keep") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A ref that is to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it names now; zeros: it is not there.
    pub old: ObjectId,
    /// What it is to name; zeros: it is to go.
    pub new: ObjectId,
    /// Its full name, as in `refs/heads/main`. Whoever pushed chose it.
    pub reference: Reference,
}

/// The full name of a ref. Git takes any bytes but a few; what is no UTF-8 text is never shown and never asked about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference(Vec<u8>);

impl Reference {
    /// As text, if it is one.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Reference {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_owned())
    }
}

impl Command {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let mut object = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
        let (old, new) = (object()?, object()?);
        Some(Self { old, new, reference: Reference(words.next()?.to_owned()) })
    }

    /// The branch, if it is one with a name that is text.
    pub fn branch(&self) -> Option<&str> {
        self.reference.text()?.strip_prefix("refs/heads/")
    }
}

/// What becomes of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Git moves it.
    Move,
    /// It stays as it is for now; what it is to name lies under this ref meanwhile.
    Waits(String),
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
    pkt_line::write(to, b"version=1")?;
    to.write_all(FLUSH)?;
    to.flush()?;
    let mut commands = Vec::new();
    while let PktLine::Data(line) = pkt_line::read(from)? {
        if commands.len() == MOST {
            return Err(invalid("too many refs at once"));
        }
        commands.push(Command::parse(&line).ok_or_else(|| invalid("not a command of git's"))?);
    }
    Ok(commands)
}

/// Tells `receive-pack` what becomes of them.
pub fn report(to: &mut impl Write, fates: &[(Command, Fate)]) -> io::Result<()> {
    for (command, fate) in fates {
        let name = command.reference.0.as_slice();
        match fate {
            Fate::Move => {
                pkt_line::write(to, &[b"ok ", name].concat())?;
                pkt_line::write(to, b"option fall-through")?;
            }
            // The side that pushes learns where it went, and leaves its picture of the branch as it is.
            Fate::Waits(reference) => {
                pkt_line::write(to, &[b"ok ", name].concat())?;
                let nothing = "0".repeat(command.new.as_str().len());
                for option in [format!("refname {reference}"), format!("old-oid {nothing}"), format!("new-oid {}", command.new)] {
                    pkt_line::write(to, format!("option {option}").as_bytes())?;
                }
            }
            Fate::Refused(reason) => pkt_line::write(to, &[b"ng ", name, b" ", reason.as_bytes()].concat())?,
        }
    }
    to.write_all(FLUSH)?;
    to.flush()
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
        said.extend(encoded(&[format!("{ZEROS} {ONE} refs/heads/").as_bytes(), b"\xff"].concat()));
        said.extend_from_slice(FLUSH);
        let mut answered = Vec::new();
        let commands = read_commands(&mut said.as_slice(), &mut answered).unwrap();
        assert_eq!(answered, b"000dversion=10000");
        assert_eq!(commands[0].branch(), Some("$(touch x);`y`"));
        assert!(commands[0].old.is_zero() && commands[1].new.is_zero());
        assert_eq!(commands[2].branch(), None);
        let refused = Fate::Refused("no".to_owned());
        let fates = [(commands[0].clone(), Fate::Move), (commands[1].clone(), refused), (commands[2].clone(), Fate::Move)];
        let mut reported = Vec::new();
        report(&mut reported, &fates).unwrap();
        let mut reported = reported.as_slice();
        let mut lines = Vec::new();
        while let PktLine::Data(line) = pkt_line::read(&mut reported).unwrap() {
            lines.push(line);
        }
        let expected: [&[u8]; 5] = [
            b"ok refs/heads/$(touch x);`y`",
            b"option fall-through",
            b"ng refs/heads/main no",
            b"ok refs/heads/\xff",
            b"option fall-through",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn another_version_or_nonsense_is_no_conversation() {
        for said in [&encoded(b"version=2")[..], FLUSH, b"nonsense", b""] {
            assert!(read_commands(&mut &said[..], &mut Vec::new()).is_err());
        }
    }
}
