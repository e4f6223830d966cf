//! Reading files, with a bound on their size.

use std::fs::File;
use std::io::Read;

use crate::budget::MAX_FILE;
use crate::error::{ErrorKind, Fault};

/// Reads a whole file as text.
pub(crate) fn read_text(path: &str) -> Result<String, Fault> {
    let unreadable = |error: std::io::Error| Fault::new(ErrorKind::File, format!("cannot read {path}: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_large(path));
    }
    String::from_utf8(bytes).map_err(|_| Fault::new(ErrorKind::File, format!("{path} is not UTF-8")))
}

/// The error for a file past the bound.
pub(crate) fn too_large(path: &str) -> Fault {
    Fault::new(ErrorKind::Limit, format!("{path} is larger than {} MiB", MAX_FILE / 1024 / 1024))
}
