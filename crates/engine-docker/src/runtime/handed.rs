//! What is put into a container before it starts, and taken out of it after it has ended. The engine looks up every path inside the
//! container, so that no link in there leads to a file of the machine.

use std::io;
use std::path::Path;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bytes::Bytes;
use coracle_engine::{EngineError, Handed, InstanceSpec};
use futures::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::ContainerRuntime;
use crate::client::status;

/// What a directory is that everybody may write to, and in which nobody removes what is another's.
const OPEN_TO_ALL: u32 = 0o1777;

impl ContainerRuntime {
    /// Opens the volumes of a container that was created, and lays over its working directory what it is brought; removes it if
    /// that cannot be.
    pub(super) async fn prepare(&self, spec: &InstanceSpec, container: &str) -> Result<(), EngineError> {
        let prepared = async {
            if spec.surroundings.open_volumes && !spec.volumes.is_empty() {
                let archive = open_folders(spec).map_err(|error| EngineError::io("describe the volumes", &error))?;
                let whole = futures::stream::once(std::future::ready(Ok(Bytes::from(archive))));
                self.lay(spec, container, "/", whole).await?;
            }
            let Some(handed) = &spec.surroundings.handed else { return Ok(()) };
            if handed.brought.is_empty() {
                return Ok(());
            }
            let place = self.working_dir(spec).await?;
            for archive in &handed.brought {
                let unread = |error: io::Error| EngineError::io(format!("read {}", archive.display()), &error);
                let file = tokio::fs::File::open(archive).await.map_err(unread)?;
                self.lay(spec, container, &place, ReaderStream::new(file)).await?;
            }
            Ok(())
        };
        let prepared: Result<(), EngineError> = prepared.await;
        if prepared.is_err() {
            self.remove(container).await?;
        }
        prepared
    }

    async fn lay(
        &self,
        spec: &InstanceSpec,
        container: &str,
        path: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let options = UploadToContainerOptionsBuilder::default().path(path).build();
        let body = bollard::body_try_stream(archive);
        let laid = self.client.patient().upload_to_container(container, Some(options), body).await;
        laid.map_err(|error| self.client.error(format!("copy files into {}", spec.id), &error))
    }

    async fn working_dir(&self, spec: &InstanceSpec) -> Result<String, EngineError> {
        if let Some(place) = &spec.surroundings.container.working_dir {
            return Ok(place.clone());
        }
        Ok(self.client.image(&spec.artifact).await?.working_dir.clone().unwrap_or_else(|| "/".to_owned()))
    }

    /// Writes what is to be taken out of a container that has ended.
    pub(super) async fn take_out(&self, spec: &InstanceSpec, container: &str) -> Result<(), EngineError> {
        let Some(handed) = spec.surroundings.handed.as_ref().filter(|handed| !handed.taken.is_empty()) else { return Ok(()) };
        let place = self.working_dir(spec).await?;
        for (number, path) in handed.taken.iter().enumerate() {
            // With `/.` the engine answers what is in a folder, as entries below `./`.
            let full = if path == "." { format!("{place}/.") } else { format!("{}/{path}", place.trim_end_matches('/')) };
            self.take_one(spec, container, &full, handed, number).await?;
        }
        Ok(())
    }

    async fn take_one(
        &self,
        spec: &InstanceSpec,
        container: &str,
        path: &str,
        handed: &Handed,
        number: usize,
    ) -> Result<(), EngineError> {
        let to = handed.archive(number);
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let patient = self.client.patient();
        let mut pieces = std::pin::pin!(patient.download_from_container(container, Some(options)));
        let mut file = None;
        let mut left = handed.limit;
        while let Some(piece) = pieces.next().await {
            let piece: Bytes = match piece {
                Ok(piece) => piece,
                Err(error) if status(&error) == Some(404) && file.is_none() => return Ok(()),
                Err(error) => return Err(self.client.error(format!("take files out of {}", spec.id), &error)),
            };
            left = left.checked_sub(piece.len() as u64).ok_or_else(|| too_much(spec, handed.limit))?;
            let unwritten = |error: io::Error| EngineError::io(format!("write {}", to.display()), &error);
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(create(&to).await.map_err(unwritten)?),
            };
            file.write_all(&piece).await.map_err(unwritten)?;
        }
        if let Some(mut file) = file {
            file.flush().await.map_err(|error| EngineError::io(format!("write {}", to.display()), &error))?;
        }
        Ok(())
    }
}

async fn create(path: &Path) -> io::Result<tokio::fs::File> {
    tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await
}

fn too_much(spec: &InstanceSpec, limit: u64) -> EngineError {
    let cause = format!("there are more than {}", coracle_model::ByteSize::bytes(limit));
    EngineError::Failed { action: format!("take files out of {}", spec.id), cause }
}

/// An archive of the folders of an instance's volumes, which gives those that are there new permissions.
fn open_folders(spec: &InstanceSpec) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for volume in spec.volumes.iter().filter(|volume| !volume.read_only && volume.external.is_none()) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(OPEN_TO_ALL);
        header.set_mtime(0);
        archive.append_data(&mut header, format!("{}/", volume.path.trim_start_matches('/')), io::empty())?;
    }
    archive.into_inner()
}
