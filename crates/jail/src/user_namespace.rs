//! Being root without being root: a user namespace in which an ordinary user has every capability, over nothing but what it
//! makes in there (user_namespaces(7)).
//!
//! Only one user of the machine appears in it, the caller, unless the administrator has given him subordinate ones
//! (subuid(5)) and `newuidmap` and `newgidmap` are installed.
#![allow(unsafe_code)] // unshare(2), as in `namespaces`.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;

use crate::process::{Fork, exit_now, fork};
use crate::{JailError, Step};

/// The most subordinate users that are of any use.
const MOST: u32 = 65_536;

/// Which users appear in a namespace that was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// How many there are beside the one who is 0: they are 1 and up. Groups likewise.
    pub subordinates: u32,
    /// Whether a process may drop groups: only where an administrator had a say in the mapping.
    pub drops_groups: bool,
    /// Who 0 is outside.
    pub outside: u32,
}

/// Who a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The machine's root.
    Root,
    /// Root of a user namespace only.
    RootOfOwn(Mapping),
    /// Anybody else.
    Ordinary,
}

impl Standing {
    /// Of this process.
    pub fn now() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        if !rustix::process::geteuid().is_root() {
            return Self::Ordinary;
        }
        Self::of_root(&read("uid_map"), &read("gid_map"), &read("setgroups"))
    }

    fn of_root(users: &str, groups: &str, setgroups: &str) -> Self {
        let (users, groups) = (mapped(users), mapped(groups));
        match (users.first(), groups.first()) {
            (Some([0, 0, count]), _) if *count == u64::from(u32::MAX) => Self::Root,
            (Some([0, outside, _]), Some([0, _, _])) => {
                let subordinates = contiguous(&users).min(contiguous(&groups)).saturating_sub(1);
                Self::RootOfOwn(Mapping {
                    subordinates: u32::try_from(subordinates).unwrap_or(MOST).min(MOST),
                    drops_groups: setgroups.trim() != "deny",
                    outside: u32::try_from(*outside).unwrap_or(u32::MAX),
                })
            }
            // Root of a namespace that does not know itself can do nothing with it.
            _ => Self::Ordinary,
        }
    }
}

/// The lines of a map: first inside, first outside, how many.
fn mapped(text: &str) -> Vec<[u64; 3]> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        Some([numbers.next()?, numbers.next()?, numbers.next()?])
    };
    text.lines().filter_map(line).collect()
}

/// How many users there are from 0 on without a gap.
fn contiguous(lines: &[[u64; 3]]) -> u64 {
    lines.iter().fold(0, |next, [inside, _, count]| if *inside == next { next + count } else { next })
}

/// A range of a file such as `/etc/subuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

/// Puts this process, which must have a single thread, into a user namespace in which it is root, and into a mount namespace
/// that belongs to it.
pub fn become_root() -> Result<(), JailError> {
    let step = || "make a user namespace".to_owned();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let subordinates = subordinates(uid);
    let (waits, mut go) = std::io::pipe().step(step)?;
    let (mut hears, says) = std::io::pipe().step(step)?;
    // The mapping is written from outside, by a child that stays there.
    let mapper = match fork().step(step)? {
        Fork::Child => {
            drop((go, hears));
            map_from_outside(subordinates, uid, gid, waits, says)
        }
        Fork::Parent(mapper) => mapper,
    };
    drop((waits, says));
    // SAFETY: only namespaces are unshared, never the table of descriptors.
    let made = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) };
    if made.is_ok() {
        go.write_all(b"+").step(step)?;
    }
    drop(go);
    let mut answer = String::new();
    hears.read_to_string(&mut answer).step(step)?;
    rustix::process::waitpid(Some(mapper), WaitOptions::empty()).step(step)?;
    made.step(step)?;
    match (answer.as_str(), subordinates) {
        ("all", Some(_)) => {}
        ("none", _) | ("all", None) => map_oneself(uid, gid)?,
        (why, _) => return Err(std::io::Error::other(why.to_owned())).step(|| "map subordinate users".to_owned()),
    }
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.step(|| "make a mount namespace".to_owned())
}

/// The child's part: waits until the namespace is there, has it mapped and says what has come of it: `all`, `none` (nothing
/// was done) or why it is half done.
fn map_from_outside(
    subordinates: Option<(Range, Range)>,
    uid: u32,
    gid: u32,
    mut waits: std::io::PipeReader,
    mut says: std::io::PipeWriter,
) -> ! {
    let mut word = [0_u8; 1];
    let answer = match (waits.read_exact(&mut word), subordinates) {
        (Ok(()), Some((users, groups))) => {
            let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
            // Groups first: if that is refused, nothing has been done.
            match (run_mapper("newgidmap", parent, gid, groups), run_mapper("newuidmap", parent, uid, users)) {
                (Ok(()), Ok(())) => "all".to_owned(),
                (Err(_), Err(_)) => "none".to_owned(),
                (Ok(()), Err(why)) | (Err(why), Ok(())) => why,
            }
        }
        _ => "none".to_owned(),
    };
    says.write_all(answer.as_bytes()).ok();
    exit_now(0)
}

fn run_mapper(program: &str, process: i32, own: u32, range: Range) -> Result<(), String> {
    let path = installed(program).ok_or_else(|| format!("{program} is not installed"))?;
    let numbers = [process.cast_unsigned(), 0, own, 1, 1, range.first, range.count].map(|number| number.to_string());
    let output = Command::new(path).args(numbers).stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())) }
}

/// Users and groups that the administrator has given to this user, if the programs that map them are there.
fn subordinates(uid: u32) -> Option<(Range, Range)> {
    installed("newuidmap").and(installed("newgidmap"))?;
    let name = name_of(&std::fs::read_to_string("/etc/passwd").unwrap_or_default(), uid);
    let range = |path: &str| range(&std::fs::read_to_string(path).ok()?, name.as_deref(), uid);
    Some((range("/etc/subuid")?, range("/etc/subgid")?))
}

fn installed(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/local/bin"].into_iter().map(|place| Path::new(place).join(program)).find(|path| path.exists())
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let is = |line: &&str| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(uid);
    passwd.lines().find(is)?.split(':').next().map(str::to_owned)
}

/// The first line for this user, by name or number.
fn range(text: &str, name: Option<&str>, uid: u32) -> Option<Range> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        if Some(who) != name && who.parse() != Ok(uid) {
            return None;
        }
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse::<u32>().ok()?);
        (count > 0).then_some(Range { first, count: count.min(MOST) })
    })
}

/// The one mapping that anybody may write: himself. The kernel asks in exchange that groups stay what they are.
fn map_oneself(uid: u32, gid: u32) -> Result<(), JailError> {
    for (file, text) in [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))] {
        std::fs::write(format!("/proc/self/{file}"), text).step(|| format!("write {file}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinates_are_found_by_name_and_by_number() {
        let text = "other:5:1\nann:100000:65536\n77:200000:9999999\nbob:300000:0\n";
        assert_eq!(range(text, Some("ann"), 5000), Some(Range { first: 100_000, count: 65_536 }));
        assert_eq!(range(text, None, 77), Some(Range { first: 200_000, count: MOST }));
        assert_eq!(range(text, Some("bob"), 6), None);
        assert_eq!(range(text, Some("eve"), 8), None);
    }

    #[test]
    fn a_map_tells_who_root_is() {
        let machine = "         0          0 4294967295\n";
        assert_eq!(Standing::of_root(machine, machine, "allow\n"), Standing::Root);
        let alone = Mapping { subordinates: 0, drops_groups: false, outside: 1234 };
        assert_eq!(Standing::of_root("0 1234 1\n", "0 1234 1\n", "deny\n"), Standing::RootOfOwn(alone));
        let many = Mapping { subordinates: MOST, drops_groups: true, outside: 1234 };
        let map = "0 1234 1\n1 100000 65536\n";
        assert_eq!(Standing::of_root(map, map, "allow\n"), Standing::RootOfOwn(many));
        // As in a container of an engine that has users of its own.
        let container = Mapping { subordinates: 65_535, drops_groups: true, outside: 100_000 };
        assert_eq!(Standing::of_root("0 100000 65536\n", "0 100000 65536\n", "allow\n"), Standing::RootOfOwn(container));
        assert_eq!(Standing::of_root("5 5 1\n", "5 5 1\n", "deny\n"), Standing::Ordinary);
    }

    #[test]
    fn names_are_those_of_the_password_file() {
        let text = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_of(text, 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(text, 7), None);
    }
}
