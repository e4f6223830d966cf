//! The root file system of a Docker image, exported once.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Base, LibraryError, Manifest, ROOT, at};
use crate::docker::Engine;
use crate::image::{Image, Source};

/// What a slot has of its own, and what no program needs.
const LEFT_OUT: [&str; 6] = ["dev", "proc", "sys", "tmp", "run", "work"];

/// Exports it below `staging`. The image is not run: a container is created, read and removed.
pub(super) fn export(
    reference: &str,
    socket: Option<PathBuf>,
    staging: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Manifest, LibraryError> {
    let failed = |why: String| LibraryError::Export { reference: reference.to_owned(), why };
    let engine = Engine::at(socket.unwrap_or_else(Engine::usual_socket));
    engine.info().map_err(|why| failed(format!("no Docker engine answers: {why}")))?;
    let container =
        json!({ "Image": reference, "Cmd": ["/bin/false"], "NetworkDisabled": true, "Labels": { "coracle.sandbox": "export" } });
    let created = engine.call("POST", "/containers/create", Some(&container)).map_err(failed)?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = text(&created, "Id");
    tell(&format!("exporting {reference}"));
    let root = staging.join(ROOT);
    let unpacked = engine.stream(&format!("/containers/{id}/export")).map_err(failed).and_then(|archive| unpack(archive, &root));
    let described = engine.get(&format!("/containers/{id}/json"));
    engine.call("DELETE", &format!("/containers/{id}?force=1&v=1"), None).map_err(failed)?;
    let files = unpacked?;
    tell(&format!("{files} files"));
    let image = Image::find(reference, Source::Directory { path: root, python: None }, 1)?;
    let base = Base::Docker { reference: reference.to_owned(), id: text(&described.map_err(failed)?, "Image") };
    let python = image.python().display().to_string();
    Ok(Manifest { base, python, preload: Vec::new(), requirements: String::new(), installed: Vec::new() })
}

/// Unpacks what programs may see: files, directories and links. Whoever made the image may have written anything into it,
/// and nothing gets out of `root`.
fn unpack(archive: impl std::io::Read, root: &Path) -> Result<usize, LibraryError> {
    std::fs::create_dir(root).map_err(at(root))?;
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    let mut files = 0;
    for entry in archive.entries().map_err(at(root))? {
        let mut entry = entry.map_err(at(root))?;
        let path = entry.path().map_err(at(root))?.into_owned();
        let kind = entry.header().entry_type();
        let plain = kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link() || kind.is_contiguous();
        if !plain || LEFT_OUT.iter().any(|name| path.starts_with(name)) {
            continue;
        }
        entry.unpack_in(root).map_err(at(&root.join(path)))?;
        files += 1;
    }
    Ok(files)
}
