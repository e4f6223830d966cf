//! Names of executions and jobs: UUIDs of version 7 (RFC 9562, section 5.7), which sort by the time they were made.
//!
//! So the primary key is also the order of the history, and one index serves both.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::error::StoreError;

/// The name of an execution or a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

/// This is not an [`Id`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not an id: 32 hexadecimal digits, with or without hyphens")]
pub struct IdError;

impl Id {
    /// A new one for something that began at that moment. Fails if the kernel gives no random bytes.
    pub fn new(moment: Timestamp) -> Result<Self, StoreError> {
        let mut bytes = Self::first_at(moment).0;
        getrandom::fill(&mut bytes[6..]).map_err(|error| StoreError::invalid("make an id", error))?;
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Ok(Self(bytes))
    }

    /// Not after any id of that millisecond or later.
    pub(crate) fn first_at(moment: Timestamp) -> Self {
        let milliseconds = u64::try_from(moment.as_millisecond()).unwrap_or(0);
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&milliseconds.to_be_bytes()[2..]);
        Self(bytes)
    }

    /// Its bytes, most significant first.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        bytes.try_into().map(Self).map_err(|_| IdError)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        Self::from_slice(&hex_decode(&digits).ok_or(IdError)?)
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex_encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Hexadecimal digits as bytes.
pub(crate) fn hex_decode(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_a_version_7_uuid_that_sorts_by_time_and_reads_back() {
        let moment = Timestamp::from_millisecond(0x017f_22e2_79b0).unwrap();
        let id = Id::new(moment).unwrap();
        let text = id.to_string();
        assert!(text.starts_with("017f22e2-79b0-7"), "{text}");
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.replace('-', "").to_uppercase().parse(), Ok(id));
        assert!(Id::first_at(moment) < id);
        assert!(id < Id::first_at(Timestamp::from_millisecond(0x017f_22e2_79b1).unwrap()));
        assert_ne!(Id::new(moment).unwrap(), id);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in ["", "017f", "017f22e2-79b0-7cc3-98c4-dc0c0c07398", "017f22e2-79b0-7cc3-98c4-dc0c0c07398g", "é"] {
            assert_eq!(text.parse::<Id>(), Err(IdError), "{text:?}");
        }
    }
}
