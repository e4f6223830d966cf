//! A key that this server shows to others, in order to read one repository of theirs.

use std::io::Error;

use coracle_model::Secret;
use russh::keys::ssh_key::LineEnding;

use crate::host_key::generate;

/// Both halves of a key. Nothing is kept here.
#[derive(Debug, Clone)]
pub struct DeployKey {
    /// As OpenSSH writes it.
    pub private: Secret,
    /// A line of `authorized_keys`, as forges take it.
    pub public: String,
}

impl DeployKey {
    /// Makes an Ed25519 key with this comment, one plain word.
    pub fn generate(comment: &str) -> std::io::Result<Self> {
        let key = generate(comment)?;
        let private = key.to_openssh(LineEnding::LF).map_err(Error::other)?;
        let public = key.public_key().to_openssh().map_err(Error::other)?;
        Ok(Self { private: Secret::new(private.as_str()), public: public.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::PublicKey;

    #[test]
    fn each_key_is_new_and_its_private_half_does_not_show() {
        let (one, other) = (DeployKey::generate("coracle-shop").unwrap(), DeployKey::generate("coracle-shop").unwrap());
        assert_ne!(one.public, other.public);
        assert!(one.public.starts_with("ssh-ed25519 ") && one.public.ends_with(" coracle-shop"), "{}", one.public);
        assert!(PublicKey::parse(&one.public).is_ok());
        assert!(!format!("{one:?}").contains("PRIVATE") && one.private.expose().starts_with("-----BEGIN OPENSSH PRIVATE KEY"));
    }
}
