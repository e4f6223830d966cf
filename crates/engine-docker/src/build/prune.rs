//! Removes images of ours that no release needs. Each by its name or id: the engine's own pruning knows no owners.

use std::collections::{HashMap, HashSet};

use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use coracle_engine::EngineError;
use coracle_model::{AppName, ArtifactId, ReleaseNumber};
use jiff::Timestamp;

use super::journal::{self, Stale};
use crate::client::{Client, status, timely};
use crate::labels;

/// Removes the names that releases gave to images which are not kept, and with the last name the image. Of several names
/// for one kept image only the newest stays.
pub(super) async fn images(client: &Client, app: &AppName, keep: &[ArtifactId]) -> Result<(), EngineError> {
    let repository = labels::repository(&client.owner, app);
    let filters = HashMap::from([("reference", vec![repository.as_str()])]);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    let listed = timely(client.docker.list_images(Some(options))).await;
    for image in listed.map_err(|error| client.error("list images", &error))? {
        let mut tags: Vec<(ReleaseNumber, &String)> =
            image.repo_tags.iter().filter_map(|tag| Some((release_of(tag, &repository)?, tag))).collect();
        tags.sort();
        if keep.iter().any(|kept| kept.as_str() == image.id) {
            tags.pop();
        } else {
            client.forget_image(&ArtifactId::new(&image.id));
        }
        for (_, tag) in tags {
            remove(client, tag).await?;
        }
    }
    Ok(())
}

/// Removes the layers that recent builds did not need; all of them if the app keeps nothing.
pub(super) async fn layers(client: &Client, app: &AppName, keep: &[ArtifactId]) -> Result<(), EngineError> {
    let cached = if keep.is_empty() { 0 } else { journal::CACHED_BUILDS };
    let mut gone = HashSet::new();
    for layer in journal::stale(&client.state_dir, app, cached) {
        if remove_layer(client, &layer).await? {
            gone.insert(layer.id);
        }
    }
    journal::forget(&client.state_dir, app, cached, &gone).map_err(|error| EngineError::io("note which layers are gone", &error))
}

/// The release in `coracle-<owner>/<app>:v3` or `…:v3.worker`.
fn release_of(tag: &str, repository: &str) -> Option<ReleaseNumber> {
    let tag = labels::without_registry(tag).strip_prefix(repository)?.strip_prefix(':')?;
    tag.split('.').next()?.parse().ok()
}

/// Whether the layer is gone, or not ours to remove after all.
async fn remove_layer(client: &Client, layer: &Stale) -> Result<bool, EngineError> {
    let inspected = match timely(client.docker.inspect_image(&layer.id)).await {
        Ok(inspected) => inspected,
        Err(error) if status(&error) == Some(404) => return Ok(true),
        Err(error) => return Err(client.error(format!("inspect image {}", layer.id), &error)),
    };
    let named = inspected.repo_tags.is_some_and(|tags| !tags.is_empty());
    let made = inspected.created.and_then(|created| Timestamp::from_second(created.unix_timestamp()).ok());
    // A build can print anything, an id of somebody else's image included; but that image is older than the build.
    if made.is_none_or(|made| made < layer.since) {
        return Ok(true);
    }
    if named {
        return Ok(false);
    }
    remove(client, &layer.id).await
}

/// Removes a name, or an image without one. Whether it is gone: what is in use stays.
async fn remove(client: &Client, image: &str) -> Result<bool, EngineError> {
    // Parents without a name may be somebody else's: ours are in the journal.
    let options = RemoveImageOptionsBuilder::default().noprune(true).build();
    match timely(client.docker.remove_image(image, Some(options), None)).await {
        Ok(_) => Ok(true),
        Err(error) if status(&error) == Some(404) => Ok(true),
        Err(error) if status(&error) == Some(409) => Ok(false),
        Err(error) => Err(client.error(format!("remove image {image}"), &error)),
    }
}
