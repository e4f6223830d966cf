//! Reading the files of a tree that somebody else made: what is no regular file is refused, and nothing is read without a bound.
//!
//! A pipe would keep its reader waiting for a writer, and a device may never end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use coracle_model::ByteSize;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a regular file. Links are followed.
///
/// # Errors
/// It cannot be opened; of the kind [`io::ErrorKind::InvalidInput`] if it is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // What it is, is asked of the open file, which cannot be replaced any more; until then nothing is waited for.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let irregular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match Errno::from_io_error(&error) {
        // A socket, or a device that nothing is behind (open(2)).
        Some(Errno::NXIO) => irregular(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

/// All of a regular file, which has `most` bytes at most.
///
/// # Errors
/// Those of [`open`]; of the kind [`io::ErrorKind::FileTooLarge`] if there is more.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_bounded(open(path)?, most)
}

/// All of what is read from a file of any kind, `most` bytes at most.
///
/// # Errors
/// Reading fails; of the kind [`io::ErrorKind::FileTooLarge`] if there is more.
pub fn read_bounded(file: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {}", ByteSize::bytes(most)))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn neither_pipes_nor_devices_nor_large_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("endless")).unwrap();
        std::fs::write(at("plain"), "four").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["pipe", "socket", "endless", "."] {
            assert_eq!(read(&at(name), 4).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert_eq!(read(&at("plain"), 4).unwrap(), b"four");
        assert_eq!(read(&at("plain"), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&at("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
