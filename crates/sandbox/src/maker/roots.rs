//! The root file system of each image: made once, in a mount namespace that slots copy.

use std::os::fd::OwnedFd;

use coracle_jail::{JailError, Namespace, Namespaces};

use super::{Plan, Report, send};
use crate::image::Image;

/// Makes the roots and reports on each; an image that failed has none. This process ends up in one of them.
pub(super) fn build(plan: &Plan, socket: &OwnedFd) -> Vec<Option<Namespace>> {
    let home = Namespace::current_mount();
    let numbered = plan.images.iter().zip(0_u32..);
    numbered
        .map(|(image, id)| {
            let built = home.as_ref().map_err(ToString::to_string).and_then(|home| build_one(image, home, plan.rootless));
            match built {
                Ok(root) => {
                    send(socket, &Report::Ready { id });
                    Some(root)
                }
                Err(why) => {
                    send(socket, &Report::Failed { id, why });
                    None
                }
            }
        })
        .collect()
}

fn build_one(image: &Image, home: &Namespace, rootless: bool) -> Result<Namespace, String> {
    let text = |error: JailError| error.to_string();
    home.enter().map_err(text)?;
    Namespaces { mount: true, ..Namespaces::NONE }.unshare().map_err(text)?;
    let made = Namespace::current_mount().map_err(text)?;
    image.root(rootless).map_err(|error| error.to_string())?.apply().map_err(text)?;
    Ok(made)
}

/// Puts this process into the root of an image.
pub(super) fn enter(roots: &[Option<Namespace>], image: u32) -> Result<(), JailError> {
    let root = usize::try_from(image).ok().and_then(|image| roots.get(image)).and_then(Option::as_ref);
    let missing = || JailError { step: format!("enter image {image}"), source: std::io::ErrorKind::NotFound.into() };
    root.ok_or_else(missing)?.enter()
}
