//! Files that an instance finds when it starts. They lie in a directory of the server's own and are mounted into the
//! container one by one, so that they are there on a read-only root, below a tmpfs or a volume as well.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_engine::{Bind, EngineError, File, InstanceSpec};
use coracle_model::{AppName, InstanceId};

/// Writes the files of an instance and answers how they are mounted.
pub(super) async fn write(state_dir: &Path, spec: &InstanceSpec) -> Result<Vec<Bind>, EngineError> {
    let files = spec.surroundings.files.clone();
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let place = place(state_dir, &spec.id);
    let action = format!("write the files of {}", spec.id);
    let written = tokio::task::spawn_blocking(move || write_all(&place, &files)).await;
    written.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| EngineError::io(action, &error))
}

/// Removes what was written for an instance.
pub(super) fn remove(state_dir: &Path, id: &InstanceId) {
    remove_tree(&place(state_dir, id));
}

/// Removes what was written for all instances of an app.
pub(super) fn remove_all_of(state_dir: &Path, app: &AppName) {
    remove_tree(&of_app(state_dir, app));
}

fn of_app(state_dir: &Path, app: &AppName) -> PathBuf {
    state_dir.join("docker-files").join(app.as_str())
}

fn place(state_dir: &Path, id: &InstanceId) -> PathBuf {
    of_app(state_dir, &id.app).join(id.to_string())
}

fn remove_tree(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "files of an instance are left behind");
        }
        _ => {}
    }
}

fn write_all(place: &Path, files: &[File]) -> io::Result<Vec<Bind>> {
    remove_tree(place);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(place)?;
    let one = |(number, file): (usize, &File)| {
        let source = place.join(number.to_string());
        let mut written = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&source)?;
        written.write_all(file.content.expose().as_bytes())?;
        // A server that is no superuser leaves them its own; so does Compose.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&source, Some(file.uid), Some(file.gid))?;
        }
        written.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))?;
        Ok(Bind { source, path: file.path.clone(), read_only: true, propagation: None })
    };
    files.iter().enumerate().map(one).collect()
}
