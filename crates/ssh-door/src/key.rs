//! Public keys that people hand in, as `ssh-keygen` writes them.

use russh::keys::{Algorithm, HashAlg, PublicKey as Key};

/// Bytes of a line with a key; those that are taken are far shorter.
const LONGEST: usize = 16 * 1024;

/// Characters of a comment that are kept.
const COMMENT: usize = 100;

/// Why a text is not a key that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is the half that nobody else may see.
    #[error("this is a private key, which must not leave its machine")]
    Private,
    /// It is no key.
    #[error("this is not an SSH public key: one line as in `ssh-ed25519 AAAAC3Nza… name@machine` is wanted")]
    Unreadable,
    /// Its algorithm is not taken here.
    #[error("keys of the kind {0} are not taken")]
    Algorithm(String),
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Private => "hand in the file beside it that ends with .pub; consider the private one known",
            Self::Unreadable => "`cat ~/.ssh/id_ed25519.pub` shows one; options before it are not taken",
            Self::Algorithm(_) => "make an Ed25519 key: ssh-keygen -t ed25519",
        }
    }
}

/// A public key that can be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// As it stands in `authorized_keys`, without its comment.
    pub text: String,
    /// `SHA256:` and the digest in Base64, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// What its owner wrote behind it, without what a terminal would obey; maybe nothing.
    pub comment: String,
}

impl PublicKey {
    /// Reads a line of `authorized_keys` that has no options (sshd(8)).
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let line = text.trim();
        if line.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        if line.len() > LONGEST || line.lines().count() != 1 {
            return Err(KeyError::Unreadable);
        }
        let mut words = line.splitn(3, [' ', '\t']);
        let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return Err(KeyError::Unreadable) };
        let mut key = Key::from_openssh(&format!("{kind} {blob}")).map_err(|_| KeyError::Unreadable)?;
        if !is_taken(&key.algorithm()) {
            return Err(KeyError::Algorithm(key.algorithm().to_string()));
        }
        key.set_comment("");
        let text = key.to_openssh().map_err(|_| KeyError::Unreadable)?.trim().to_owned();
        let comment = words.next().unwrap_or_default().chars().filter(|letter| !letter.is_control());
        let comment = comment.take(COMMENT).collect::<String>().trim().to_owned();
        Ok(Self { text, fingerprint: fingerprint(&key), comment })
    }
}

/// The fingerprint of a key.
pub(crate) fn fingerprint(key: &Key) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Which kinds of keys are let in. RSA is not among them: the crate that would check its signatures has an open advisory, and OpenSSH
/// makes Ed25519 keys unless told otherwise since 2023. Keys in hardware (`sk-`) are not, as whether they were touched would not be
/// checked.
fn is_taken(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { .. })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_line_of_ssh_keygen_is_taken_with_or_without_a_comment() {
        let plain = PublicKey::parse(KEY).unwrap();
        assert_eq!((plain.text.as_str(), plain.comment.as_str()), (KEY, ""));
        assert!(plain.fingerprint.starts_with("SHA256:") && plain.fingerprint.len() == 50, "{}", plain.fingerprint);
        let named = PublicKey::parse(&format!("  {KEY} ana@laptop of \u{1b}[2Jours\r\n")).unwrap();
        assert_eq!((&named.text, &named.fingerprint), (&plain.text, &plain.fingerprint));
        assert_eq!(named.comment, "ana@laptop of [2Jours");
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_its_reason() {
        let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----";
        assert_eq!(PublicKey::parse(private), Err(KeyError::Private));
        let options = format!("command=\"x\" {KEY}");
        for bad in
            ["", "ssh-ed25519", "ssh-ed25519 AAAA", "x y", &format!("{KEY}\n{KEY}"), &options, &KEY[..60], &"a".repeat(20_000)]
        {
            assert_eq!(PublicKey::parse(bad), Err(KeyError::Unreadable), "{bad:?}");
        }
        // The name in front says another algorithm than the key itself.
        assert!(PublicKey::parse(&KEY.replace("ssh-ed25519 ", "ecdsa-sha2-nistp256 ")).is_err());
    }

    #[test]
    fn keys_of_other_kinds_are_named() {
        // RFC 4253 section 6.6: the name, e = 65537 and a modulus, which need not be a real one to be read.
        let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7vbqajDw4o6gJy8UtmIbkcpnkO3Kwc4qsEnSZp/TR+fQi62F79RHWmwKOtFmwteURgLbj7D/WGuNLGOfa/2vse3G2eHnHl5CB8ruRX9fBl/KgwCVr2JaEuUm66bBQeP5XeBotdR4cvX38uPYivCDdPjJ1QWPdspTBKcxeFbccDw==";
        let refused = PublicKey::parse(rsa).unwrap_err();
        assert!(matches!(&refused, KeyError::Algorithm(name) if name.contains("rsa")), "{refused}");
        assert!(refused.hint().contains("ed25519"));
    }
}
