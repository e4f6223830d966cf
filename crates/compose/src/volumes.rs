//! The short form of `volumes`: `[source:]target[:options]`, where the source is a path (a bind mount) or a volume's name.
//!
//! It is read without knowing the target's platform: a letter and a colon at the beginning of a part are a Windows drive. Whether
//! a path exists or a name is declared, and against which folder a relative path counts, is the caller's to say. Options nobody
//! knows are ignored, as by the reference loader.

use thiserror::Error;

/// What kind of thing is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume of the engine, named or anonymous.
    Volume,
}

impl MountKind {
    /// The word for it in the long form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
        }
    }
}

/// A mount in the terms of the long form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `type`.
    pub kind: MountKind,
    /// `source`: a path as it was written, a volume's name, or empty for an anonymous volume.
    pub source: String,
    /// `target`: the path in the container.
    pub target: String,
    /// `read_only`.
    pub read_only: bool,
    /// The `bind` mapping, where the reference loader has one: for every path, and for every mount with such an option.
    pub bind: Option<BindOptions>,
    /// The `volume` mapping, where the reference loader has one: for every volume but a target of one or two characters, and
    /// for every mount with such an option.
    pub volume: Option<VolumeOptions>,
}

/// Options of bind mounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BindOptions {
    /// How mounts below propagate: `shared`, `rslave` and so on.
    pub propagation: Option<String>,
    /// The SELinux label: `z` shared, `Z` private.
    pub selinux: Option<String>,
}

/// Options of volume mounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeOptions {
    /// Whether the image's files stay out of a new volume.
    pub nocopy: bool,
}

/// Why a text is no mount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VolumeError {
    /// Nothing at all.
    #[error("invalid empty volume spec")]
    Empty,
    /// Two colons in a row, or one at either end.
    #[error("invalid spec: {0}: empty section between colons")]
    EmptySection(String),
    /// More than source, target and options.
    #[error("invalid spec: {0}: too many colons")]
    TooManyColons(String),
}

/// Reads one entry of `volumes`.
///
/// # Errors
/// See [`VolumeError`].
pub fn parse(entry: &str) -> Result<Mount, VolumeError> {
    match entry.len() {
        0 => return Err(VolumeError::Empty),
        1 | 2 => return Ok(Mount { volume: None, ..mount("", entry) }),
        _ => {}
    }
    let sections = sections(entry);
    if sections.iter().any(|section| section.is_empty()) {
        return Err(VolumeError::EmptySection(entry.to_owned()));
    }
    match sections[..] {
        [target] => Ok(mount("", target)),
        [source, target] => Ok(mount(source, target)),
        [source, target, options] => {
            let mut mount = mount(source, target);
            options.split(',').for_each(|option| apply(option, &mut mount));
            Ok(mount)
        }
        _ => Err(VolumeError::TooManyColons(entry.to_owned())),
    }
}

/// Cuts an entry at its colons, except one that makes a single letter before it a Windows drive.
fn sections(entry: &str) -> Vec<&str> {
    let mut sections = Vec::new();
    let mut start = 0;
    for (at, _) in entry.match_indices(':') {
        if at >= start && !is_letter(&entry[start..at]) {
            sections.push(&entry[start..at]);
            start = at + 1;
        }
    }
    sections.push(&entry[start..]);
    sections
}

fn is_letter(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(char::is_alphabetic) && characters.next().is_none()
}

fn mount(source: &str, target: &str) -> Mount {
    let path = is_path(source);
    Mount {
        kind: if path { MountKind::Bind } else { MountKind::Volume },
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: false,
        bind: path.then(BindOptions::default),
        volume: (!path).then(VolumeOptions::default),
    }
}

/// Whether a source is a path: `.`, `/` or `~` first, a Windows drive, or a Windows pipe.
fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~'])
        || source.starts_with(r"\\")
        || source.split_once(':').is_some_and(|(drive, _)| is_letter(drive))
}

fn apply(option: &str, mount: &mut Mount) {
    match option {
        "ro" => mount.read_only = true,
        "rw" => mount.read_only = false,
        "nocopy" => mount.volume = Some(VolumeOptions { nocopy: true }),
        "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
            mount.bind.get_or_insert_default().propagation = Some(option.to_owned());
        }
        "z" | "Z" => mount.bind.get_or_insert_default().selinux = Some(option.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[track_caller]
    fn check(entry: &str, kind: MountKind, source: &str, target: &str) -> Mount {
        let mount = parse(entry).unwrap();
        assert_eq!((mount.kind, mount.source.as_str(), mount.target.as_str()), (kind, source, target), "{entry}");
        mount
    }

    #[test]
    fn anonymous_volumes() {
        assert_eq!(check("/data", MountKind::Volume, "", "/data").volume, Some(VolumeOptions::default()));
        assert_eq!(check("/a", MountKind::Volume, "", "/a").volume, None);
        check("C:", MountKind::Volume, "", "C:");
        check("c:\\data", MountKind::Volume, "", "c:\\data");
        check("~/data", MountKind::Volume, "", "~/data");
    }

    #[test]
    fn named_volumes() {
        let mount = check("pgdata:/var/lib/postgresql", MountKind::Volume, "pgdata", "/var/lib/postgresql");
        assert_eq!((mount.bind, mount.volume, mount.read_only), (None, Some(VolumeOptions { nocopy: false }), false));
        check("a.b-c:relative", MountKind::Volume, "a.b-c", "relative");
        check("name:d:", MountKind::Volume, "name", "d:");
        check("name:D:\\x:ro", MountKind::Volume, "name", "D:\\x");
    }

    #[test]
    fn paths() {
        for source in ["/srv", "./srv", "../srv", ".", "~/srv", "~", "C:\\srv", "c:/srv", "\\\\.\\pipe\\docker"] {
            let mount = check(&format!("{source}:/data"), MountKind::Bind, source, "/data");
            assert_eq!((mount.bind, mount.volume), (Some(BindOptions::default()), None));
        }
        check("C:\\srv:D:\\data:ro", MountKind::Bind, "C:\\srv", "D:\\data");
        check("é:/x:/y", MountKind::Bind, "é:/x", "/y");
    }

    #[test]
    fn options() {
        let mount = parse("/srv:/data:ro,z,rslave,nobody-knows").unwrap();
        assert!(mount.read_only);
        assert_eq!(mount.bind, Some(BindOptions { propagation: Some("rslave".to_owned()), selinux: Some("z".to_owned()) }));
        assert!(!parse("vol:/data:ro,rw").unwrap().read_only);
        assert_eq!(parse("vol:/data:nocopy").unwrap().volume, Some(VolumeOptions { nocopy: true }));
        let both = parse("vol:/data:Z").unwrap();
        assert_eq!((both.kind, both.bind.unwrap().selinux.as_deref()), (MountKind::Volume, Some("Z")));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(parse(""), Err(VolumeError::Empty));
        for entry in ["/srv::/data", ":/data", "::x", "/srv:/data:ro:", "/srv:/data:", "vol::rw"] {
            assert!(matches!(parse(entry), Err(VolumeError::EmptySection(_))), "{entry}");
        }
        for entry in ["/a:/b:ro:rw", "a1:b1:c1:d1:e1"] {
            assert!(matches!(parse(entry), Err(VolumeError::TooManyColons(_))), "{entry}");
        }
    }
}
