//! How things of ours are named and labelled, and how they are recognised again.
//!
//! Containers are recognised by two labels at once, owner and instance. Images bear neither, since a container inherits
//! its image's labels, and a container that a person starts from our image by hand is not ours.

use std::collections::HashMap;

use coracle_model::{AppName, InstanceId, OwnerId, ReleaseNumber, VolumeName};

/// The owner of a container, network or volume.
pub(crate) const OWNER: &str = "dev.coracle.owner";
/// The instance a container is: `shop.v3.web.1`.
pub(crate) const INSTANCE: &str = "dev.coracle.instance";
/// The app.
pub(crate) const APP: &str = "dev.coracle.app";
/// The release: `3`.
pub(crate) const RELEASE: &str = "dev.coracle.release";
/// The process.
pub(crate) const PROCESS: &str = "dev.coracle.process";
/// Which copy of the process.
pub(crate) const INDEX: &str = "dev.coracle.index";
/// The port an instance listens on.
pub(crate) const PORT: &str = "dev.coracle.port";
/// The volume's name within its app.
pub(crate) const VOLUME: &str = "dev.coracle.volume";
/// The owner an image was built for.
pub(crate) const BUILT_FOR: &str = "dev.coracle.built-for";
/// The app and the release an image was built for: `shop v3`.
pub(crate) const BUILT_RELEASE: &str = "dev.coracle.built-release";

/// The name of an instance's container. Its pieces are joined by dots, which no app's name contains: with hyphens, two
/// different instances could have one name.
pub(crate) fn container_name(owner: &OwnerId, id: &InstanceId) -> String {
    format!("coracle-{owner}.{id}")
}

/// The name of a release's network.
pub(crate) fn network_name(owner: &OwnerId, app: &AppName, release: ReleaseNumber) -> String {
    format!("coracle-{owner}.{app}.{release}")
}

/// The name of a network of those of a release that are kept apart under this name.
pub(crate) fn apart_network_name(owner: &OwnerId, app: &AppName, release: ReleaseNumber, name: &str) -> String {
    format!("coracle-{owner}.{app}.{release}.{name}")
}

/// The name of the network in which an app's stateful services are at home.
pub(crate) fn home_network_name(owner: &OwnerId, app: &AppName) -> String {
    format!("coracle-{owner}.{app}.home")
}

/// The name of an app's volume.
pub(crate) fn volume_name(owner: &OwnerId, app: &AppName, volume: &VolumeName) -> String {
    format!("coracle-{owner}.{app}.{volume}")
}

/// The repository of an app's images.
pub(crate) fn repository(owner: &OwnerId, app: &AppName) -> String {
    format!("coracle-{owner}/{app}")
}

/// An image's name as we gave it: Podman puts a registry in front of names without one.
pub(crate) fn without_registry(tag: &str) -> &str {
    ["localhost/", "docker.io/"].iter().find_map(|registry| tag.strip_prefix(registry)).unwrap_or(tag)
}

/// Whether an image's tag is one of ours.
pub(crate) fn is_our_tag(owner: &OwnerId, tag: &str) -> bool {
    let rest = without_registry(tag).strip_prefix("coracle-").and_then(|rest| rest.strip_prefix(owner.as_str()));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The labels of an instance's container.
pub(crate) fn of_container(owner: &OwnerId, id: &InstanceId, port: Option<u16>) -> HashMap<String, String> {
    let mut labels = of_release(owner, &id.app, id.release);
    labels.insert(INSTANCE.into(), id.to_string());
    labels.insert(PROCESS.into(), id.process.to_string());
    labels.insert(INDEX.into(), id.index.to_string());
    if let Some(port) = port {
        labels.insert(PORT.into(), port.to_string());
    }
    labels
}

/// The labels of a release's network.
pub(crate) fn of_release(owner: &OwnerId, app: &AppName, release: ReleaseNumber) -> HashMap<String, String> {
    HashMap::from([(OWNER.into(), owner.to_string()), (APP.into(), app.to_string()), (RELEASE.into(), release.get().to_string())])
}

/// The labels of what an app owns beside its releases.
pub(crate) fn of_app(owner: &OwnerId, app: &AppName) -> HashMap<String, String> {
    HashMap::from([(OWNER.into(), owner.to_string()), (APP.into(), app.to_string())])
}

/// The labels of an app's volume.
pub(crate) fn of_volume(owner: &OwnerId, app: &AppName, volume: &VolumeName) -> HashMap<String, String> {
    HashMap::from([(OWNER.into(), owner.to_string()), (APP.into(), app.to_string()), (VOLUME.into(), volume.to_string())])
}

/// The labels of an image that was built.
pub(crate) fn of_image(owner: &OwnerId, app: &AppName, release: ReleaseNumber) -> HashMap<String, String> {
    HashMap::from([(BUILT_FOR.into(), owner.to_string()), (BUILT_RELEASE.into(), format!("{app} {release}"))])
}

/// The instance that labels name, if they are those of a container of `owner`.
pub(crate) fn instance_of(owner: &OwnerId, labels: &HashMap<String, String>) -> Option<InstanceId> {
    let ours = labels.get(OWNER).is_some_and(|label| label == owner.as_str());
    labels.get(INSTANCE).filter(|_| ours)?.parse().ok()
}

/// Filters for the engine's lists: everything that bears all these labels.
pub(crate) fn filter(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".into(), labels.iter().map(|(name, value)| format!("{name}={value}")).collect())])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tags_of_another_owner_are_not_ours() {
        let owner: OwnerId = "deadbeef".parse().unwrap();
        assert!(is_our_tag(&owner, "coracle-deadbeef/shop:v1"));
        assert!(is_our_tag(&owner, "localhost/coracle-deadbeef/shop:v1"));
        assert!(is_our_tag(&owner, "docker.io/coracle-deadbeef/shop:v1"));
        for foreign in ["coracle-deadbeef00/shop:v1", "shop:v1", "coracle-deadbeef", "x/coracle-deadbeef/shop:v1"] {
            assert!(!is_our_tag(&owner, foreign), "{foreign}");
        }
    }

    #[test]
    fn a_container_without_both_labels_is_not_an_instance() {
        let owner: OwnerId = "deadbeef".parse().unwrap();
        let id: InstanceId = "shop.v3.cron.nightly.2".parse().unwrap();
        let labels = of_container(&owner, &id, Some(80));
        assert_eq!(instance_of(&owner, &labels), Some(id));
        assert_eq!(instance_of(&"0badcafe".parse().unwrap(), &labels), None);
        let mut less = labels;
        less.remove(INSTANCE);
        assert_eq!(instance_of(&owner, &less), None);
    }
}
