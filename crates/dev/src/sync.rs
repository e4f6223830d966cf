//! Files on their way into running parts.

use std::io;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header, HeaderMode};

/// A file and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Errand {
    /// On this machine.
    pub source: PathBuf,
    /// Inside the part, absolute.
    pub target: String,
}

/// What is put into a part, and what is removed from it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// A tar stream to be unpacked at `/`; empty if nothing is put.
    pub archive: Vec<u8>,
    /// Absolute paths.
    pub gone: Vec<String>,
    /// How many files are put.
    pub count: usize,
}

/// Packs what is there and names what is not. Everything belongs to root, as what `COPY` brings does.
pub(crate) fn pack(errands: &[Errand]) -> io::Result<Load> {
    let mut load = Load::default();
    let mut tar = Builder::new(Vec::new());
    tar.mode(HeaderMode::Complete);
    for errand in errands {
        match add(&mut tar, errand) {
            Ok(true) => load.count += 1,
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => load.gone.push(errand.target.clone()),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", errand.source.display()))),
        }
    }
    if load.count > 0 {
        load.archive = tar.into_inner()?;
    }
    Ok(load)
}

/// Whether something was added.
fn add(tar: &mut Builder<Vec<u8>>, errand: &Errand) -> io::Result<bool> {
    let facts = errand.source.symlink_metadata()?;
    let mut header = Header::new_gnu();
    header.set_metadata(&facts);
    header.set_uid(0);
    header.set_gid(0);
    let path = Path::new(errand.target.trim_start_matches('/'));
    if facts.is_file() {
        // Read at once: a file that grows meanwhile would break the archive.
        let content = std::fs::read(&errand.source)?;
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_slice())?;
    } else if facts.is_symlink() {
        header.set_size(0);
        tar.append_link(&mut header, path, std::fs::read_link(&errand.source)?)?;
    } else if facts.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        tar.append_data(&mut header, path, io::empty())?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_there_is_packed_and_what_is_not_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "one").unwrap();
        let errand = |name: &str| Errand { source: dir.path().join(name), target: format!("/app/{name}") };
        let load = pack(&[errand("a"), errand("b")]).unwrap();
        assert_eq!((load.count, load.gone), (1, vec!["/app/b".to_owned()]));
        let mut archive = tar::Archive::new(load.archive.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!((entry.path().unwrap().to_str().unwrap(), entry.header().uid().unwrap()), ("app/a", 0));
        assert!(pack(&[errand("b")]).unwrap().archive.is_empty());
    }
}
