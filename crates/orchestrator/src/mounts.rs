//! Files of the source tree that containers see. The tree itself goes when a deployment has ended, so what is mounted is
//! kept: by release, where it comes with the release, and by app, where it is written to and has to stay.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Component, Path, PathBuf};

use coracle_model::container::{BindMount, BindSource};
use coracle_model::{AppName, AppSpec, ReleaseNumber};

/// The directory that mounted files are kept in.
#[derive(Debug, Clone)]
pub(crate) struct Mounts {
    root: PathBuf,
}

impl Mounts {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn of_app(&self, app: &AppName) -> PathBuf {
        self.root.join(app.as_str())
    }

    fn release(&self, app: &AppName, number: ReleaseNumber) -> PathBuf {
        self.of_app(app).join("releases").join(number.to_string())
    }

    /// Where a bind mount's source is.
    pub(crate) fn place(&self, app: &AppName, number: ReleaseNumber, source: &BindSource) -> PathBuf {
        match source {
            BindSource::Tree(path) => below(&self.release(app, number), path),
            BindSource::Kept(path) => below(&self.of_app(app).join("kept"), path),
            BindSource::Host(path) => PathBuf::from(path),
        }
    }

    /// The same, to be mounted. Containers write to what is kept, and engines follow links: one on the way leads nowhere here.
    pub(crate) fn place_to_mount(&self, app: &AppName, number: ReleaseNumber, source: &BindSource) -> PathBuf {
        let place = self.place(app, number, source);
        let is_safe = matches!(source, BindSource::Host(_)) || refuse_links(&self.root, &place).is_ok();
        if is_safe {
            return place;
        }
        tracing::warn!(%app, release = %number, place = %place.display(), "there is a link where a container mounts: refused");
        self.root.join("refused-for-a-link")
    }

    /// Keeps what the parts of an app mount, from a tree or from what an earlier release kept. What is written to and is
    /// there already stays as it is.
    pub(crate) fn keep(&self, spec: &AppSpec, number: ReleaseNumber, from: &Source<'_>) -> io::Result<()> {
        let sources: BTreeSet<&BindSource> =
            spec.parts().flat_map(|(_, part)| &part.container.binds).map(|bind| &bind.source).collect();
        for source in sources {
            let place = self.place(&spec.app, number, source);
            if !matches!(source, BindSource::Host(_)) {
                refuse_links(&self.root, &place)?;
            }
            match (source, from) {
                (BindSource::Tree(path), Source::Tree(tree)) => copy(&inside(tree, path)?, &place)?,
                (BindSource::Tree(_), Source::Release(earlier)) => {
                    let kept = self.place(&spec.app, *earlier, source);
                    refuse_links(&self.root, &kept)?;
                    copy(&kept, &place)?
                }
                (BindSource::Kept(_), _) if place.exists() => {}
                (BindSource::Kept(path), Source::Tree(tree)) if tree.join(path).exists() => copy(&inside(tree, path)?, &place)?,
                (BindSource::Kept(_), _) => fs::create_dir_all(&place)?,
                (BindSource::Host(_), _) => {}
            }
        }
        Ok(())
    }

    /// Whether what parts mount of their release's tree is the same in a tree. What cannot be read is not.
    pub(crate) async fn are_same<'a>(
        &self,
        app: &AppName,
        number: ReleaseNumber,
        binds: impl IntoIterator<Item = &'a BindMount>,
        tree: &Path,
    ) -> bool {
        let sources: BTreeSet<BindSource> = binds.into_iter().map(|bind| bind.source.clone()).collect();
        if !sources.iter().any(|source| matches!(source, BindSource::Tree(_))) {
            return true;
        }
        let (mounts, app, tree) = (self.clone(), app.clone(), tree.to_owned());
        // Files may be large, and disks slow.
        let comparing =
            tokio::task::spawn_blocking(move || sources.iter().all(|source| mounts.is_same(&app, number, source, &tree)));
        comparing.await.unwrap_or(false)
    }

    fn is_same(&self, app: &AppName, number: ReleaseNumber, source: &BindSource, tree: &Path) -> bool {
        match source {
            BindSource::Tree(path) => {
                inside(tree, path).is_ok_and(|there| same(&self.place(app, number, source), &there).unwrap_or(false))
            }
            BindSource::Kept(_) | BindSource::Host(_) => true,
        }
    }

    /// Where steps of a release's pipeline have their copies of the source tree, each under its name.
    pub(crate) fn workspaces(&self, app: &AppName, number: ReleaseNumber) -> PathBuf {
        self.of_app(app).join("steps").join(number.to_string())
    }

    /// Removes these copies.
    pub(crate) fn remove_workspaces(&self, app: &AppName, number: ReleaseNumber) {
        remove(&self.workspaces(app, number));
    }

    /// Removes what was kept for a release.
    pub(crate) fn remove_release(&self, app: &AppName, number: ReleaseNumber) {
        remove(&self.release(app, number));
        self.remove_workspaces(app, number);
        self.remove_source(app, number);
    }

    /// Removes everything that was kept for an app.
    pub(crate) fn remove_app(&self, app: &AppName) {
        remove(&self.of_app(app));
    }
}

/// Where files to keep come from.
pub(crate) enum Source<'a> {
    /// A source tree.
    Tree(&'a Path),
    /// A release that has kept them.
    Release(ReleaseNumber),
}

/// A path below another, without a way out.
fn below(root: &Path, path: &str) -> PathBuf {
    let pieces = Path::new(path).components().filter_map(|piece| match piece {
        Component::Normal(piece) => Some(piece),
        _ => None,
    });
    pieces.fold(root.to_owned(), |path, piece| path.join(piece))
}

/// A path of a tree; links in it are followed as long as they stay in the tree.
fn inside(tree: &Path, path: &str) -> io::Result<PathBuf> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    let real = below(tree, path).canonicalize().map_err(told)?;
    match real.starts_with(tree.canonicalize()?) {
        true => Ok(real),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{path} leads out of the source tree"))),
    }
}

/// A link that was copied before, or that a container left where it writes, may lead anywhere: nothing is written through one.
fn refuse_links(root: &Path, place: &Path) -> io::Result<()> {
    let below_root = place.ancestors().take_while(|path| path.starts_with(root) && *path != root);
    for path in below_root {
        if path.symlink_metadata().is_ok_and(|facts| facts.is_symlink()) {
            let message = format!("{} is a link: mount what it leads to", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "kept files are left behind");
        }
        _ => {}
    }
}

pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let facts = from.symlink_metadata().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", from.display())))?;
    if facts.is_dir() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, facts.permissions())?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if facts.is_symlink() {
        match std::os::unix::fs::symlink(fs::read_link(from)?, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    } else if facts.is_file() {
        fs::copy(from, to)?;
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (first, second) = (one.symlink_metadata()?, other.symlink_metadata()?);
    if first.file_type() != second.file_type() || first.permissions() != second.permissions() {
        return Ok(false);
    }
    if first.is_symlink() {
        return Ok(fs::read_link(one)? == fs::read_link(other)?);
    }
    if first.is_file() {
        return Ok(first.len() == second.len() && same_content(one, other)?);
    }
    let names = |path: &Path| fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<BTreeSet<_>>>();
    let names = (names(one)?, names(other)?);
    if names.0 != names.1 {
        return Ok(false);
    }
    for name in names.0 {
        if !same(&one.join(&name), &other.join(&name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares two files piece by piece, up to where they differ.
fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    const PIECE: usize = 64 * 1024;
    let mut readers =
        (io::BufReader::with_capacity(PIECE, fs::File::open(one)?), io::BufReader::with_capacity(PIECE, fs::File::open(other)?));
    loop {
        let (first, second) = (readers.0.fill_buf()?, readers.1.fill_buf()?);
        let length = first.len().min(second.len());
        if length == 0 {
            return Ok(first.len() == second.len());
        }
        if first[..length] != second[..length] {
            return Ok(false);
        }
        readers.0.consume(length);
        readers.1.consume(length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_mounted_is_kept_by_release_and_what_is_written_to_by_app() {
        let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mounts = Mounts::new(dir.path().to_owned());
        fs::create_dir_all(tree.path().join("conf/deep")).unwrap();
        fs::write(tree.path().join("conf/deep/a"), "one").unwrap();
        let mut spec = AppSpec::named("shop".parse().unwrap());
        let bind = |source| BindMount { source, path: "/x".into(), read_only: true, propagation: None };
        let mut part = coracle_model::ProcessSpec::default();
        part.container.binds = vec![bind(BindSource::Tree("./conf".into())), bind(BindSource::Kept("data".into()))];
        spec.processes.insert("web".parse().unwrap(), part);
        let number = |number| ReleaseNumber::new(number).unwrap();
        mounts.keep(&spec, number(1), &Source::Tree(tree.path())).unwrap();
        let conf = BindSource::Tree("conf".into());
        let kept = mounts.place(&spec.app, number(1), &BindSource::Kept("data".into()));
        fs::write(kept.join("rows"), "1").unwrap();
        let is_same = || mounts.is_same(&spec.app, number(1), &conf, tree.path());
        assert!(is_same());
        fs::write(tree.path().join("conf/deep/a"), "two").unwrap();
        assert!(!is_same());
        mounts.keep(&spec, number(2), &Source::Release(number(1))).unwrap();
        assert_eq!(fs::read_to_string(mounts.place(&spec.app, number(2), &conf).join("deep/a")).unwrap(), "one");
        mounts.remove_release(&spec.app, number(1));
        assert!(!mounts.place(&spec.app, number(1), &conf).exists() && kept.join("rows").exists());
        assert_eq!(
            mounts.place(&spec.app, number(1), &BindSource::Tree("../../etc".into())),
            mounts.release(&spec.app, number(1)).join("etc")
        );
    }

    #[test]
    fn nothing_is_written_through_a_link_that_was_kept() {
        let (dir, tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mounts = Mounts::new(dir.path().to_owned());
        fs::create_dir_all(tree.path().join("conf")).unwrap();
        fs::write(tree.path().join("real"), "new").unwrap();
        fs::write(outside.path().join("file"), "old").unwrap();
        let mut spec = AppSpec::named("shop".parse().unwrap());
        let bind = |path: &str| BindMount {
            source: BindSource::Tree(path.into()),
            path: "/x".into(),
            read_only: true,
            propagation: None,
        };
        let mut part = coracle_model::ProcessSpec::default();
        part.container.binds = vec![bind("conf/link")];
        spec.processes.insert("web".parse().unwrap(), part);
        let number = ReleaseNumber::new(1).unwrap();
        // What was kept before leads out; what comes now has the same name.
        let kept = mounts.place(&spec.app, number, &BindSource::Tree("conf".into()));
        fs::create_dir_all(&kept).unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), kept.join("link")).unwrap();
        std::os::unix::fs::symlink("../real", tree.path().join("conf/link")).unwrap();
        let refused = mounts.keep(&spec, number, &Source::Tree(tree.path())).unwrap_err();
        assert!(refused.to_string().contains("is a link"), "{refused}");
        assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "old");
    }

    /// Containers write to what they mount, and with it to where their next release is copied from.
    #[test]
    fn a_link_that_a_container_made_leads_nowhere() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mounts = Mounts::new(dir.path().to_owned());
        fs::write(outside.path().join("token"), "secret").unwrap();
        let (token, data) = (BindSource::Tree("d/token".into()), BindSource::Kept("data/sub".into()));
        let mut spec = AppSpec::named("shop".parse().unwrap());
        let mut part = coracle_model::ProcessSpec::default();
        let bind =
            |source: &BindSource| BindMount { source: source.clone(), path: "/x".into(), read_only: false, propagation: None };
        part.container.binds = vec![bind(&token)];
        spec.processes.insert("web".parse().unwrap(), part);
        let number = |number| ReleaseNumber::new(number).unwrap();
        let parent_of = |source| mounts.place(&spec.app, number(1), source).parent().unwrap().to_owned();
        for source in [&token, &data] {
            let parent = parent_of(source);
            fs::create_dir_all(parent.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(outside.path(), &parent).unwrap();
        }
        let refused = mounts.keep(&spec, number(2), &Source::Release(number(1))).unwrap_err();
        assert!(refused.to_string().contains("is a link"), "{refused}");
        assert!(!mounts.place(&spec.app, number(2), &token).exists());
        let place = mounts.place_to_mount(&spec.app, number(1), &data);
        assert!(!place.exists() && place.starts_with(dir.path()), "{}", place.display());
        fs::remove_file(parent_of(&data)).unwrap();
        assert_eq!(mounts.place_to_mount(&spec.app, number(1), &data), mounts.place(&spec.app, number(1), &data));
    }

    #[test]
    fn links_do_not_lead_out_of_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", tree.path().join("etc")).unwrap();
        assert!(inside(tree.path(), "etc/passwd").is_err());
        assert!(inside(tree.path(), "nothing").unwrap_err().to_string().starts_with("nothing"));
    }
}
