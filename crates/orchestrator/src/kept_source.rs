//! Source trees that outlive their deployment, because what they describe depends on the app's configuration: compose files
//! are read again when a variable changes. Kept by release, as they were sent; releases made of one tree share it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle_model::{AppName, ReleaseNumber};

use crate::mounts::{Mounts, Source};

/// A source tree as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSource {
    /// The gzip-compressed tar archive.
    pub archive: PathBuf,
    /// How it is read, in whoever reads it's own words.
    pub reading: String,
}

impl Mounts {
    fn sources(&self, app: &AppName) -> PathBuf {
        self.of_app(app).join("sources")
    }

    fn source_files(&self, app: &AppName, number: ReleaseNumber) -> (PathBuf, PathBuf) {
        let sources = self.sources(app);
        (sources.join(format!("{number}.tar.gz")), sources.join(format!("{number}.json")))
    }

    /// Keeps what a release is made of, or what the release that it is made from was made of.
    pub(crate) fn keep_source(&self, app: &AppName, number: ReleaseNumber, from: &KeptFrom) -> io::Result<()> {
        let kept = match from {
            KeptFrom::Nothing => return Ok(()),
            KeptFrom::Sent(kept) => kept.clone(),
            KeptFrom::Release(earlier) => match self.source_of(app, *earlier)? {
                Some(kept) => kept,
                None => return Ok(()),
            },
        };
        let (archive, reading) = self.source_files(app, number);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.sources(app))?;
        let new = archive.with_extension("new");
        remove_file(&new)?;
        // A second name costs nothing; an archive is written once and never changed.
        if fs::hard_link(&kept.archive, &new).is_err() {
            fs::copy(&kept.archive, &new)?;
        }
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &archive)?;
        let temporary = reading.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(kept.reading.as_bytes())?;
        file.sync_all()?;
        // It is there when this is.
        fs::rename(&temporary, &reading)
    }

    /// What a release was made of, if that was kept.
    pub(crate) fn source_of(&self, app: &AppName, number: ReleaseNumber) -> io::Result<Option<KeptSource>> {
        let (archive, reading) = self.source_files(app, number);
        match fs::read_to_string(&reading) {
            Ok(reading) => Ok(Some(KeptSource { archive, reading })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn remove_source(&self, app: &AppName, number: ReleaseNumber) {
        let (archive, reading) = self.source_files(app, number);
        for path in [reading, archive] {
            if let Err(error) = remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a kept source is left behind");
            }
        }
    }
}

/// Where the source of a release comes from.
#[derive(Debug)]
pub(crate) enum KeptFrom {
    /// It is not kept.
    Nothing,
    /// It was sent.
    Sent(KeptSource),
    /// It is that of an earlier release, if that has one.
    Release(ReleaseNumber),
}

impl KeptFrom {
    /// Of something made of a tree, or of what an earlier release was made of.
    pub(crate) fn of(source: &Source<'_>, sent: Option<KeptSource>) -> Self {
        match (source, sent) {
            (_, Some(kept)) => Self::Sent(kept),
            (Source::Release(number), None) => Self::Release(*number),
            (Source::Tree(_), None) => Self::Nothing,
        }
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn releases_of_one_tree_share_its_archive_and_each_may_go() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = Mounts::new(dir.path().join("mounts"));
        let (app, number) = ("shop".parse().unwrap(), |number| ReleaseNumber::new(number).unwrap());
        let sent = KeptSource { archive: dir.path().join("sent"), reading: "{}".to_owned() };
        fs::write(&sent.archive, "archive").unwrap();
        mounts.keep_source(&app, number(1), &KeptFrom::Sent(sent.clone())).unwrap();
        fs::remove_file(&sent.archive).unwrap();
        mounts.keep_source(&app, number(2), &KeptFrom::Release(number(1))).unwrap();
        mounts.keep_source(&app, number(3), &KeptFrom::Release(number(9))).unwrap();
        mounts.remove_source(&app, number(1));
        let kept = |number| mounts.source_of(&app, number).unwrap();
        assert_eq!((kept(number(1)), kept(number(3))), (None, None));
        let second = kept(number(2)).unwrap();
        assert_eq!((fs::read_to_string(second.archive).unwrap().as_str(), second.reading.as_str()), ("archive", "{}"));
    }
}
