//! The pages of the program's own file that only its start needed.
//!
//! A start goes through much of a program once: arguments, settings, relocations, certificates. The kernel maps every page that
//! this touches together with its neighbours (64 kB at a time), and they count as resident for as long as nobody else wants the
//! memory: of the idle proxy, most of it. [`let_go`] gives them up at once. What is still used comes back as it is used, from the
//! page cache and without a disk: tens of faults of a few microseconds each, once. The page cache itself is left alone; but
//! where memory is scarce, what nobody has mapped is what the kernel takes first.
#![allow(unsafe_code)] // madvise(2) may throw away what was written; it has no safe binding.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

use rustix::mm::Advice;

/// Gives up what is mapped of the program's file and was never written to. For a program that has started.
///
/// Where the kernel does not tell enough (smaps needs `CONFIG_PROC_PAGE_MONITOR`) or refuses, everything stays as it is.
pub fn let_go() {
    match try_let_go() {
        Ok(bytes) => tracing::debug!(bytes, "the start's pages of the program are let go of"),
        Err(error) => tracing::debug!(%error, "the start's pages of the program stay in memory"),
    }
}

/// The same. Answers how many bytes were resident of what was given up.
fn try_let_go() -> io::Result<u64> {
    let mut resident = 0;
    for mapping in of_this_program()?.iter().filter(|mapping| mapping.is_as_in_the_file()) {
        give_up(&mapping.addresses)?;
        resident += mapping.resident;
    }
    Ok(resident)
}

fn give_up(addresses: &Range<usize>) -> io::Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(addresses.start);
    // SAFETY: for these pages, the advice is what the kernel may do to them at any time when memory is scarce. They belong to a
    // private mapping of a file that cannot be written to and has no page of its own, resident or swapped out: all that can be
    // read there is what the file says, and the next access reads the same from it. The mapping is of the file that this very
    // function is in; it stays where it is for as long as the process lives, so that nothing else has come to these addresses
    // since they were read.
    unsafe { rustix::mm::madvise(start, addresses.len(), Advice::LinuxDontNeed) }?;
    Ok(())
}

/// A part of the process's memory that is mapped from a file (proc_pid_smaps(5)). Sizes are in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mapping {
    addresses: Range<usize>,
    /// Such as `r-xp`.
    permissions: String,
    /// Its device, inode and path.
    file: String,
    resident: u64,
    /// What has been written to, so that it is no longer what the file says; nothing if the kernel does not tell.
    own: Option<u64>,
    /// As much of that as is swapped out.
    swapped: Option<u64>,
}

impl Mapping {
    /// What its first line says: `start-end permissions offset device inode path`.
    fn begin(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let addresses = address(start)?..address(end)?;
        let permissions = words.next()?.to_owned();
        let file = words.skip(1).collect::<Vec<_>>().join(" ");
        Some(Self { addresses, permissions, file, ..Self::default() })
    }

    /// Takes what one of the following lines says: `Name:  number kB`.
    fn take(&mut self, line: &str) {
        let Some((name, rest)) = line.split_once(':') else { return };
        let Some(bytes) = rest.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok()?.checked_mul(1024)) else {
            return;
        };
        match name {
            "Rss" => self.resident = bytes,
            "Anonymous" => self.own = Some(bytes),
            "Swap" => self.swapped = Some(bytes),
            _ => {}
        }
    }

    /// Whether it is code or constants, and all of it is what the file says. What the linker has written addresses into is not,
    /// although it is read-only by now.
    fn is_as_in_the_file(&self) -> bool {
        matches!(self.permissions.as_str(), "r-xp" | "r--p") && (self.own, self.swapped) == (Some(0), Some(0))
    }
}

/// What is mapped of the file that this function is in.
fn of_this_program() -> io::Result<Vec<Mapping>> {
    let here = of_this_program as fn() -> _ as usize;
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in BufReader::new(File::open("/proc/self/smaps")?).lines() {
        let line = line?;
        // Only the names of values end in a colon.
        match (line.split_ascii_whitespace().next(), mappings.last_mut()) {
            (Some(word), Some(last)) if word.ends_with(':') => last.take(&line),
            _ => mappings.extend(Mapping::begin(&line)),
        }
    }
    let program = mappings.iter().find(|mapping| mapping.addresses.contains(&here)).map(|mapping| mapping.file.clone());
    mappings.retain(|mapping| Some(&mapping.file) == program.as_ref());
    Ok(mappings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page in the middle of it is constant, and of nobody's neighbourhood.
    static CONSTANT: [u8; 256 * 1024] = [7; 256 * 1024];

    #[test]
    fn what_is_given_up_is_there_again_when_it_is_used() {
        let seen: u64 = CONSTANT.iter().copied().map(u64::from).sum();
        let before: u64 = of_this_program().unwrap().iter().map(|mapping| mapping.resident).sum();
        let given_up = try_let_go().unwrap();
        let after: u64 = of_this_program().unwrap().iter().map(|mapping| mapping.resident).sum();
        assert!(given_up >= CONSTANT.len() as u64, "{given_up}");
        assert!(after < before, "{before} bytes were resident, and {after} are");
        assert_eq!(std::hint::black_box(&CONSTANT).iter().copied().map(u64::from).sum::<u64>(), seen);
    }

    #[test]
    fn what_was_written_to_is_kept() {
        let mappings = of_this_program().unwrap();
        let (kept, given_up): (Vec<_>, Vec<_>) = mappings.iter().partition(|mapping| !mapping.is_as_in_the_file());
        assert!(given_up.iter().any(|mapping| mapping.permissions == "r-xp"), "{mappings:?}");
        assert!(given_up.iter().all(|mapping| !mapping.permissions.contains('w')), "{mappings:?}");
        // A table of functions has been relocated: it is read-only, and not what the file says.
        static FUNCTIONS: [fn(); 1] = [let_go];
        let table = std::hint::black_box(&FUNCTIONS).as_ptr() as usize;
        assert!(kept.iter().any(|mapping| mapping.addresses.contains(&table)), "{mappings:?}");
    }

    #[test]
    fn smaps_are_read() {
        let mut mapping = Mapping::begin("55ac-66ac r-xp 00940000 fe:00 10018980     /opt/a b (deleted)").unwrap();
        let say = |mapping: &mut Mapping, lines: &[&str]| lines.iter().for_each(|line| mapping.take(line));
        say(&mut mapping, &["Size:    999 kB", "Rss:       12 kB", "VmFlags: rd ex mr mw me", "Anonymous:    0 kB"]);
        assert!(!mapping.is_as_in_the_file(), "nothing was said about swap");
        say(&mut mapping, &["Swap:   0 kB"]);
        assert!(mapping.is_as_in_the_file());
        assert_eq!((mapping.addresses.clone(), mapping.resident), (0x55ac..0x66ac, 12 * 1024));
        assert_eq!(mapping.file, "fe:00 10018980 /opt/a b (deleted)");
        for line in ["Anonymous:  4 kB", "Swap:  4 kB"] {
            let mut written = Mapping::begin("55ac-66ac r--p 0 fe:00 1 /a").unwrap();
            say(&mut written, &["Anonymous:  0 kB", "Swap: 0 kB", line]);
            assert!(!written.is_as_in_the_file(), "{line}");
        }
        assert_eq!((Mapping::begin("VmFlags: rd"), Mapping::begin("")), (None, None));
    }
}
