//! Lines of git's protocols: four hexadecimal digits that count themselves, and as many bytes (gitprotocol-common(5)).

use std::io::{self, ErrorKind, Read, Write};

/// The longest line, its length included.
const LONGEST: usize = 65_520;

/// The end of a list.
pub(crate) const FLUSH: &[u8] = b"0000";

/// A line or the end of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PktLine {
    Data(Vec<u8>),
    Flush,
}

/// The bytes of a line.
pub(crate) fn encoded(data: &[u8]) -> Vec<u8> {
    let mut line = format!("{:04x}", data.len() + 4).into_bytes();
    line.extend_from_slice(data);
    line
}

/// Reads the next line.
pub(crate) fn read(from: &mut impl Read) -> io::Result<PktLine> {
    let invalid = || io::Error::new(ErrorKind::InvalidData, "not a line of git's protocol");
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let digits = std::str::from_utf8(&head).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).ok_or_else(invalid)?;
    match length {
        0 => Ok(PktLine::Flush),
        4..=LONGEST => {
            let mut data = vec![0; length - 4];
            from.read_exact(&mut data)?;
            Ok(PktLine::Data(data))
        }
        _ => Err(invalid()),
    }
}

/// Writes a line.
pub(crate) fn write(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    to.write_all(&encoded(data))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_count_themselves() {
        assert_eq!(encoded(b"a\n"), b"0006a\n");
        let mut stream = &b"0006a\n00000004"[..];
        assert_eq!(read(&mut stream).unwrap(), PktLine::Data(b"a\n".to_vec()));
        assert_eq!(read(&mut stream).unwrap(), PktLine::Flush);
        assert_eq!(read(&mut stream).unwrap(), PktLine::Data(Vec::new()));
        assert!(read(&mut stream).is_err());
    }

    #[test]
    fn what_is_no_line_is_an_error() {
        for bad in ["00", "0001", "0003", "+006a\n", "zzzz", "fff1", "000aab"] {
            assert!(read(&mut bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
