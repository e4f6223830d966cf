//! Names of objects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of an object: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits. It is safe as an argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId(String);

/// It is not the name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not the name of a git object: 40 or 64 hexadecimal digits")]
pub struct NotAnObjectId;

impl ObjectId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is all zeros, which stands for "there is none" where refs are created and deleted.
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'0')
    }
}

impl FromStr for ObjectId {
    type Err = NotAnObjectId;

    fn from_str(text: &str) -> Result<Self, NotAnObjectId> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match matches!(text.len(), 40 | 64) && text.bytes().all(digit) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotAnObjectId),
        }
    }
}

impl TryFrom<String> for ObjectId {
    type Error = NotAnObjectId;

    fn try_from(text: String) -> Result<Self, NotAnObjectId> {
        text.parse()
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_full_lower_case_names_are_names() {
        let id: ObjectId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        assert!(!id.is_zero());
        assert!("0".repeat(64).parse::<ObjectId>().unwrap().is_zero());
        for bad in ["", "HEAD", "--upload-pack=x", "0123456789ABCDEF0123456789ABCDEF01234567", &"0".repeat(41)] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad:?}");
        }
    }
}
