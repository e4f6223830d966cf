//! References to images, as registries and engines write them (`distribution/reference`): `[host/]path[:tag][@digest]`.
//!
//! A reference without a host means one of Docker Hub's. Ids of images are no references: they name what lies on a machine,
//! whoever put it there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::registry::RegistryHost;

/// Bytes of the longest name, host included (`NameTotalLengthMax`).
const LONGEST_NAME: usize = 255;
/// Characters of the longest tag.
const LONGEST_TAG: usize = 128;

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no reference of an image: {rule}")]
pub struct ReferenceError {
    /// The text, cut to a printable length.
    pub given: String,
    /// What is wrong with it.
    pub rule: &'static str,
}

/// A reference, checked and made whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<String>,
}

/// A place in a registry that holds versions of one image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    host: RegistryHost,
    path: String,
}

/// One image of a registry, by what it consists of: it can be fetched anew, and is the same then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// Where it is.
    pub repository: Repository,
    /// The digest of its manifest or index: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// The tag that led to it, or that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl PinnedImage {
    /// The reference that always means this image.
    pub fn reference(&self) -> ImageReference {
        ImageReference { repository: self.repository.clone(), tag: None, digest: Some(self.digest.clone()) }
    }

    /// How people name it: `registry.example.com/shop:v1 (sha256:0123456789ab)`.
    pub fn described(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        format!("{}{tag} ({})", self.repository, self.digest.chars().take("sha256:".len() + 12).collect::<String>())
    }
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference().fmt(f)
    }
}

impl ImageReference {
    /// Where it is.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The registry.
    pub fn host(&self) -> &RegistryHost {
        &self.repository.host
    }

    /// The tag, if one is written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is written.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The same place, by this digest and by nothing else.
    pub fn pinned(&self, digest: &str) -> Result<PinnedImage, ReferenceError> {
        check_digest(digest).map_err(|rule| wrong(digest, rule))?;
        let tag = self.tag.clone().or_else(|| self.digest.is_none().then(|| "latest".to_owned()));
        Ok(PinnedImage { repository: self.repository.clone(), digest: digest.to_owned(), tag })
    }

    /// As engines are asked for it: by the digest if there is one, else by the tag, which is `latest` where none is written.
    pub fn exact(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository),
            (None, Some(tag)) => format!("{}:{tag}", self.repository),
            (None, None) => format!("{}:latest", self.repository),
        }
    }

    /// The name of an app of this kind of server whose image it is: `coracle-…/shop:v3`, in whatever words.
    pub fn names_an_app(&self) -> Option<&str> {
        // Podman writes `localhost/` where nothing is written; engines take `docker.io/` for nothing as well.
        let local = self.repository.host == RegistryHost::hub() || self.repository.host.as_str() == "localhost";
        let (owner, app) = self.repository.path.split_once('/')?;
        (local && owner.starts_with("coracle-")).then_some(app)
    }
}

impl Repository {
    /// The registry.
    pub fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// What is in the registry: `team/shop`; of Docker Hub's own images `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The reference of a tag in it.
    pub fn tagged(&self, tag: &str) -> Result<ImageReference, ReferenceError> {
        check_tag(tag).map_err(|rule| wrong(tag, rule))?;
        Ok(ImageReference { repository: self.clone(), tag: Some(tag.to_owned()), digest: None })
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the host's port.
        let name_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_at..].split_once(':') {
            Some((name, tag)) => (&rest[..name_at + name.len()], Some(tag)),
            None => (rest, None),
        };
        if name == "sha256" {
            return Err(wrong(text, "it is an image's id; name a repository, and a tag or a digest"));
        }
        let repository = name.parse::<Repository>().map_err(|error| ReferenceError { given: printable(text), ..error })?;
        tag.map_or(Ok(()), check_tag).and_then(|()| digest.map_or(Ok(()), check_digest)).map_err(|rule| wrong(text, rule))?;
        Ok(Self { repository, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() || text.len() > LONGEST_NAME {
            return Err(wrong(text, "a name has 1 to 255 characters"));
        }
        let (host, path) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                let host = first.parse().map_err(|_| wrong(text, "what stands before its first / is no registry's address"))?;
                (host, rest.to_owned())
            }
            Some(_) => (RegistryHost::hub(), text.to_owned()),
            None => (RegistryHost::hub(), format!("library/{text}")),
        };
        let path = match path.split_once('/') {
            None if host == RegistryHost::hub() => format!("library/{path}"),
            _ => path,
        };
        if !path.split('/').all(is_path_component) {
            return Err(wrong(
                text,
                "names are lower-case letters and digits, with single .-_ between them, and parts separated by /",
            ));
        }
        Ok(Self { host, path })
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let allowed = |byte: &u8| is_plain(*byte) || matches!(byte, b'.' | b'_' | b'-');
    let separators = bytes.split(|byte| is_plain(*byte)).filter(|piece| !piece.is_empty());
    let good = |piece: &[u8]| matches!(piece, b"." | b"_" | b"__") || piece.iter().all(|byte| *byte == b'-');
    is_plain(*first) && is_plain(*last) && bytes.iter().all(allowed) && separators.into_iter().all(good)
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = tag.bytes().next().is_some_and(is_word)
        && tag.len() <= LONGEST_TAG
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
    if good { Ok(()) } else { Err("a tag has up to 128 letters, digits and any of _.-, and begins with a letter, a digit or _") }
}

fn check_digest(digest: &str) -> Result<(), &'static str> {
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    let good = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    if good { Ok(()) } else { Err("a digest is sha256: and 64 lower-case hexadecimal digits") }
}

fn wrong(text: &str, rule: &'static str) -> ReferenceError {
    ReferenceError { given: printable(text), rule }
}

fn printable(text: &str) -> String {
    text.chars().take(120).collect()
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Repository {
    /// As people write it: Docker Hub is not named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host != RegistryHost::hub() {
            return write!(f, "{}/{}", self.host, self.path);
        }
        f.write_str(self.path.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(&self.path))
    }
}

impl TryFrom<String> for Repository {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parts(text: &str) -> (String, String, Option<String>, bool) {
        let it: ImageReference = text.parse().unwrap();
        (it.host().to_string(), it.repository().path().to_owned(), it.tag().map(str::to_owned), it.digest().is_some())
    }

    #[test]
    fn references_are_taken_apart_as_engines_do() {
        let tag = |text: &str| Some(text.to_owned());
        for (text, host, path, tagged) in [
            ("nginx", "docker.io", "library/nginx", None),
            ("nginx:1", "docker.io", "library/nginx", tag("1")),
            ("docker.io/nginx", "docker.io", "library/nginx", None),
            ("team/shop:v1", "docker.io", "team/shop", tag("v1")),
            ("localhost/shop", "localhost", "shop", None),
            ("localhost:5000/shop", "localhost:5000", "shop", None),
            ("172.17.0.1:5000/a/b_c/d--e:1.0-rc", "172.17.0.1:5000", "a/b_c/d--e", tag("1.0-rc")),
            ("registry.example.com/team/shop", "registry.example.com", "team/shop", None),
        ] {
            assert_eq!(parts(text), (host.to_owned(), path.to_owned(), tagged, false), "{text}");
        }
        assert!(parts(&format!("a/b@{DIGEST}")).3);
        let both: ImageReference = format!("a.b/c:1@{DIGEST}").parse().unwrap();
        assert_eq!(both.exact(), format!("a.b/c@{DIGEST}"));
        assert_eq!("redis".parse::<ImageReference>().unwrap().exact(), "redis:latest");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let id = &DIGEST["sha256:".len()..];
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a b",
            "a:",
            "a:-x",
            "a@sha256:00",
            "a@md5:00",
            "a:1:2",
            "-x",
            "a//b",
            "a..b",
            "a___b",
            "\u{1b}[31m",
            "host:port/a",
            "a\nb",
            "../a",
            "http://a/b",
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text:?}");
        }
        assert!(DIGEST.parse::<ImageReference>().is_err());
        assert!(format!("a:{}", "x".repeat(129)).parse::<ImageReference>().is_err());
        assert!(format!("a@sha256:{}", id.to_uppercase()).parse::<ImageReference>().is_err());
        assert!("x".repeat(256).parse::<ImageReference>().is_err());
    }

    #[test]
    fn images_of_apps_are_known_in_whatever_words() {
        for text in [
            "coracle-abc/shop:v3",
            "docker.io/coracle-abc/shop",
            "index.docker.io/coracle-abc/shop:v1",
            "localhost/coracle-abc/shop:v1.web",
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().names_an_app(), Some("shop"), "{text}");
        }
        for text in ["registry.example.com/coracle-abc/shop", "coracle-abc", "shop:v3", "my/coracle-shop"] {
            assert_eq!(text.parse::<ImageReference>().unwrap().names_an_app(), None, "{text}");
        }
    }

    #[test]
    fn a_pinned_image_says_what_led_to_it() {
        let tagged: ImageReference = "a.b/team/shop:v1".parse().unwrap();
        let pinned = tagged.pinned(DIGEST).unwrap();
        assert_eq!(pinned.to_string(), format!("a.b/team/shop@{DIGEST}"));
        assert_eq!(pinned.described(), "a.b/team/shop:v1 (sha256:0123456789ab)");
        assert_eq!("a.b/c".parse::<ImageReference>().unwrap().pinned(DIGEST).unwrap().tag.as_deref(), Some("latest"));
        assert!(tagged.pinned("sha256:00").is_err());
        let text = serde_json::to_string(&pinned).unwrap();
        assert_eq!(serde_json::from_str::<PinnedImage>(&text).unwrap(), pinned);
    }
}
