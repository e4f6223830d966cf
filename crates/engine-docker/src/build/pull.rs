//! Ready images.

use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use coracle_engine::{BuildError, EngineError, OutputSink, Stream};
use coracle_model::ArtifactId;
use coracle_model::stack::PullPolicy;
use futures::StreamExt;

use crate::client::{Client, is_disk_full, is_unreachable, message, status, timely};

/// Sees to it that the image is there and bears our name. An image that is there already is used if no newer one can be
/// fetched.
pub(super) async fn fetch(
    client: &Client,
    reference: &str,
    policy: PullPolicy,
    repository: &str,
    tag: &str,
    output: &OutputSink,
) -> Result<ArtifactId, BuildError> {
    let reference = complete(reference);
    let before = local_id(client, &reference).await?;
    let wanted = match policy {
        PullPolicy::Never if before.is_none() => {
            let cause = format!("image {reference} is not here, and pull_policy says never to fetch it");
            return Err(BuildError::CannotBuild(cause));
        }
        PullPolicy::Never => false,
        PullPolicy::Missing => before.is_none(),
        // A digest names one image for ever.
        PullPolicy::Always => before.is_none() || !reference.contains('@'),
    };
    if wanted {
        match (pull(client, &reference, output).await, &before) {
            (Err(BuildError::CannotBuild(cause)), Some(_)) => {
                output.line(Stream::Stderr, format!("{cause}; using the copy that is already here"));
            }
            (result, _) => result?,
        }
    }
    let gone = || BuildError::CannotBuild(format!("image {reference} vanished while it was being fetched"));
    let id = local_id(client, &reference).await?.ok_or_else(gone)?;
    let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
    let named = timely(client.docker.tag_image(&id, Some(options))).await;
    named.map_err(|error| client.error(format!("name image {reference}"), &error))?;
    if before.is_none() {
        // Nobody had it before us, so its own name would only keep it alive after its last release.
        let options = RemoveImageOptionsBuilder::default().noprune(true).build();
        if let Err(error) = timely(client.docker.remove_image(&reference, Some(options), None)).await {
            tracing::debug!(reference, error = message(&error), "the image keeps its own name");
        }
    }
    Ok(ArtifactId::new(id))
}

/// Fetches an image that is not there.
pub(super) async fn unless_present(client: &Client, reference: &str, output: &OutputSink) -> Result<(), BuildError> {
    let reference = complete(reference);
    if local_id(client, &reference).await?.is_none() {
        pull(client, &reference, output).await?;
    }
    Ok(())
}

pub(super) async fn local_id(client: &Client, reference: &str) -> Result<Option<String>, EngineError> {
    match timely(client.docker.inspect_image(reference)).await {
        Ok(image) => Ok(image.id),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(client.error(format!("inspect image {reference}"), &error)),
    }
}

async fn pull(client: &Client, reference: &str, output: &OutputSink) -> Result<(), BuildError> {
    output.line(Stream::Stdout, format!("Fetching image {reference}"));
    let options = CreateImageOptionsBuilder::default().from_image(reference).build();
    let docker = client.patient();
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
    while let Some(step) = progress.next().await {
        match step {
            // Layers tell of themselves many times a second; what has no id is about the whole.
            Ok(info) if info.id.is_none() => output.line(Stream::Stdout, info.status.unwrap_or_default()),
            Ok(_) => {}
            Err(error) if is_unreachable(&error) || is_disk_full(&message(&error)) => {
                return Err(client.error(format!("fetch image {reference}"), &error).into());
            }
            Err(error) => return Err(BuildError::CannotBuild(format!("cannot fetch image {reference}: {}", message(&error)))),
        }
    }
    Ok(())
}

/// Without a tag the engine would fetch all of them.
fn complete(reference: &str) -> String {
    let name = reference.rsplit_once('/').map_or(reference, |(_, name)| name);
    if name.contains(':') || name.contains('@') { reference.to_owned() } else { format!("{reference}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_without_a_tag_mean_the_latest() {
        for (given, meant) in [
            ("redis", "redis:latest"),
            ("redis:7", "redis:7"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("a/b@sha256:00", "a/b@sha256:00"),
        ] {
            assert_eq!(complete(given), meant);
        }
    }
}
