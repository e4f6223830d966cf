//! Files of a project that are read whole: regular ones alone, and within bounds. The project may be anybody's.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use coracle_model::ByteSize;

use crate::failure::Failure;

/// Bytes of the largest manifest, as on the server.
const MANIFEST: u64 = 256 << 10;

/// Bytes of the largest file of variables.
const VARIABLES: u64 = 1 << 20;

/// The text of a manifest; `None` if there is none.
pub(crate) fn manifest(path: &Path) -> Result<Option<String>, Failure> {
    text(path, MANIFEST)
}

/// Files of variables and their texts: those that were named where the command was typed; without any, the project's own, if it is
/// there. A named one may be a pipe, as shells make them of `<(…)`.
pub(crate) fn variables(own: PathBuf, named: Vec<PathBuf>) -> Result<Vec<(PathBuf, String)>, Failure> {
    match named.is_empty() {
        true if own.is_file() => Ok(text(&own, VARIABLES)?.map(|text| (own, text)).into_iter().collect()),
        true => Ok(Vec::new()),
        false => named.into_iter().map(|file| named_text(&file).map(|text| (file, text))).collect(),
    }
}

fn named_text(path: &Path) -> Result<String, Failure> {
    let read = std::fs::File::open(path).and_then(|file| coracle_regular_file::read_bounded(file, VARIABLES));
    utf8(path, read.map_err(|error| unreadable(path, &error, VARIABLES))?)
}

fn text(path: &Path, most: u64) -> Result<Option<String>, Failure> {
    match coracle_regular_file::read(path, most) {
        Ok(bytes) => utf8(path, bytes).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error, most)),
    }
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{} is not UTF-8 text", path.display())))
}

fn unreadable(path: &Path, error: &io::Error, most: u64) -> Failure {
    let message = format!("cannot read {}: {error}", path.display());
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::FileTooLarge => Failure::usage(message)
            .hint(format!("put a plain text file of at most {} in its place, or take it away", ByteSize::bytes(most))),
        _ => Failure::failed(message),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_plain_file_is_named_with_cause_and_next_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coracle.toml");
        assert_eq!(manifest(&path), Ok(None));
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let told = manifest(&path).unwrap_err();
        assert_eq!((told.exit_code(), told.told()), (2, format!("cannot read {}: it is not a regular file", path.display())));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, vec![b'#'; 256 << 10]).unwrap();
        assert!(manifest(&path).unwrap().is_some());
        std::fs::write(&path, vec![b'#'; (256 << 10) + 1]).unwrap();
        assert!(manifest(&path).unwrap_err().told().ends_with("it is larger than 256K"));
    }

    #[test]
    fn named_files_without_end_are_not_read_to_it() {
        assert!(variables(PathBuf::from(".env"), vec!["/dev/zero".into()]).unwrap_err().told().contains("it is larger than 1"));
    }
}
