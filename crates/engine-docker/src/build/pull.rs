//! Ready images.

use bollard::query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder};
use coracle_engine::{BuildError, BuildRequest, EngineError, OutputSink, Stream};
use coracle_model::stack::PullPolicy;
use coracle_model::{ArtifactId, ImageReference, Logins, PinnedImage};
use futures::StreamExt;

use super::registry;
use crate::client::{Client, is_disk_full, is_unreachable, message, status, timely};

/// Where a fetched image is named.
pub(super) struct Name<'a> {
    pub(super) repository: &'a str,
    pub(super) tag: &'a str,
}

/// Sees to it that the image is there and bears our name. An image that is there already is used if no newer one can be
/// fetched. Answers where a registry has it, if one has.
pub(super) async fn fetch(
    client: &Client,
    request: &BuildRequest,
    (text, policy): (&str, PullPolicy),
    name: Name<'_>,
    output: &OutputSink,
) -> Result<(ArtifactId, Option<PinnedImage>), BuildError> {
    let wanted: ImageReference = text.parse().map_err(unreadable)?;
    let reference = wanted.exact();
    // Of several that want the same image one asks for it, and the next finds its layers there; nobody takes a name off it while
    // somebody else is about to use it. Each asks with what it may show itself.
    let _turn = client.pulls.take(&reference).await;
    let before = local_id(client, &reference).await?;
    if before.is_some() {
        allowed(client, &wanted, &request.logins).await?;
    }
    let fetch = match policy {
        PullPolicy::Never if before.is_none() => {
            let cause = format!("image {reference} is not here, and pull_policy says never to fetch it");
            return Err(BuildError::CannotBuild(cause));
        }
        PullPolicy::Never => false,
        PullPolicy::Missing => before.is_none(),
        // A digest names one image for ever.
        PullPolicy::Always => before.is_none() || wanted.digest().is_none(),
    };
    if fetch {
        match (pull(client, &wanted, &request.logins, output).await, &before) {
            (Err(error @ BuildError::Registry { .. }), Some(_)) => {
                output.line(Stream::Stderr, format!("{error}; using the copy that is already here"));
            }
            (result, _) => result?,
        }
    }
    let (id, pinned) = found(client, &wanted).await?;
    let options = TagImageOptionsBuilder::default().repo(name.repository).tag(name.tag).build();
    let named = timely(client.docker.tag_image(&id, Some(options))).await;
    named.map_err(|error| client.error(format!("name image {reference}"), &error))?;
    if before.is_none() {
        // Nobody had it before us, so its own name would only keep it alive after its last release, and offer it to everybody.
        registry::forget(client, &reference).await;
    }
    Ok((ArtifactId::new(id), pinned))
}

/// Asks a registry to which single apps log in whether this app may have what is on the machine already: another one's login may
/// have brought it there.
pub(super) async fn allowed(client: &Client, wanted: &ImageReference, logins: &Logins) -> Result<(), BuildError> {
    match logins.guards(wanted.host()) {
        true => registry::resolve(client, wanted, logins).await.map(drop),
        false => Ok(()),
    }
}

/// Fetches an image that is not there.
pub(super) async fn unless_present(client: &Client, text: &str, logins: &Logins, output: &OutputSink) -> Result<(), BuildError> {
    let reference: ImageReference = text.parse().map_err(unreadable)?;
    let _turn = client.pulls.take(&reference.exact()).await;
    if local_id(client, &reference.exact()).await?.is_none() {
        pull(client, &reference, logins, output).await?;
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

/// The id of an image that is there, and which digest its repository has it by.
async fn found(client: &Client, wanted: &ImageReference) -> Result<(String, Option<PinnedImage>), BuildError> {
    let gone = || BuildError::CannotBuild(format!("image {wanted} vanished while it was being fetched"));
    let inspected = match timely(client.docker.inspect_image(&wanted.exact())).await {
        Ok(image) => image,
        Err(error) if status(&error) == Some(404) => return Err(gone()),
        Err(error) => return Err(client.error(format!("inspect image {wanted}"), &error).into()),
    };
    let digests = inspected.repo_digests.unwrap_or_default();
    let mut digests = digests.iter().filter_map(|text| text.parse::<ImageReference>().ok());
    let known = match wanted.digest() {
        Some(digest) => Some(digest.to_owned()),
        None => digests.find(|it| it.repository() == wanted.repository()).and_then(|it| it.digest().map(str::to_owned)),
    };
    let pinned = known.and_then(|digest| wanted.pinned(&digest).ok());
    Ok((inspected.id.ok_or_else(gone)?, pinned))
}

async fn pull(client: &Client, reference: &ImageReference, logins: &Logins, output: &OutputSink) -> Result<(), BuildError> {
    output.line(Stream::Stdout, format!("Fetching image {reference}"));
    let options = CreateImageOptionsBuilder::default().from_image(&reference.exact()).build();
    let docker = client.patient();
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, registry::credentials(logins, reference)));
    while let Some(step) = progress.next().await {
        match step {
            // Layers tell of themselves many times a second; what has no id is about the whole.
            Ok(info) if info.id.is_none() => output.line(Stream::Stdout, info.status.unwrap_or_default()),
            Ok(_) => {}
            Err(error) if is_unreachable(&error) || is_disk_full(&message(&error)) => {
                return Err(client.error(format!("fetch image {reference}"), &error).into());
            }
            Err(error) => return Err(registry::refused("fetch", reference, &message(&error))),
        }
    }
    Ok(())
}

fn unreadable(error: coracle_model::ReferenceError) -> BuildError {
    BuildError::CannotBuild(error.to_string())
}
