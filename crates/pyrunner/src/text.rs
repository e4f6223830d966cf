//! Bytes of a stream as text, piece by piece: what is no UTF-8 becomes U+FFFD, and characters that arrive in two pieces stay
//! whole (Unicode Standard, section 3.9, substitution of maximal subparts).

/// What a piece has begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The first bytes of a character; three at most.
    begun: Vec<u8>,
}

impl Decoder {
    /// The text of the next piece, as far as it is known.
    pub(crate) fn push(&mut self, piece: &[u8]) -> String {
        if self.begun.is_empty() {
            return self.decode(piece);
        }
        let mut whole = std::mem::take(&mut self.begun);
        whole.extend_from_slice(piece);
        self.decode(&whole)
    }

    /// What is left when nothing follows.
    pub(crate) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.begun)).into_owned()
    }

    fn decode(&mut self, bytes: &[u8]) -> String {
        let keep = unfinished(bytes);
        let (now, later) = bytes.split_at(bytes.len() - keep);
        self.begun.extend_from_slice(later);
        String::from_utf8_lossy(now).into_owned()
    }
}

/// How many of the last bytes are the valid beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.len().min(3);
    for length in (1..=tail).rev() {
        let start = bytes.len() - length;
        let Some(candidate) = bytes.get(start..) else { continue };
        if let Err(error) = std::str::from_utf8(candidate)
            && error.valid_up_to() == 0
            && error.error_len().is_none()
        {
            return length;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> String {
        let mut decoder = Decoder::default();
        let mut text: String = pieces.iter().map(|piece| decoder.push(piece)).collect();
        text.push_str(&decoder.finish());
        text
    }

    #[test]
    fn pieces_say_what_the_whole_says_wherever_it_is_cut() {
        for whole in ["a€😀z".as_bytes(), b"\xff\xe2\x82z\xf0\x9f\x98", b"\xed\xa0\x80\x00\x1b[31m", b"\xf0\x9f\x98\x80\xe2"]
        {
            let expected = String::from_utf8_lossy(whole);
            for first in 0..=whole.len() {
                for second in first..=whole.len() {
                    let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
                    assert_eq!(all(&pieces), expected, "{whole:?} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn a_whole_character_is_never_kept_back() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push("é".as_bytes()), "é");
        assert_eq!(decoder.push(b"\xc3"), "");
        assert_eq!(decoder.push(b"\xa9!"), "é!");
    }
}
