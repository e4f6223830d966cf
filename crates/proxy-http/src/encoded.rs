//! Percent-encoded characters that some targets decode into something that changes what a path means.

/// Which encoded characters a path may have.
///
/// By default all but the NUL, which no path of an ordinary application has: paths are passed on as they came, so that it is
/// the target alone that decodes them. A target that decodes before it looks for `/`, or decodes twice, is to be protected
/// by [`EncodedCharacters::strict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedCharacters {
    /// `%2F`
    pub slash: bool,
    /// `%5C`
    pub backslash: bool,
    /// `%00`
    pub nul: bool,
    /// `%3B`
    pub semicolon: bool,
    /// `%25`
    pub percent: bool,
    /// `%3F`
    pub question_mark: bool,
    /// `%23`
    pub hash: bool,
}

impl Default for EncodedCharacters {
    fn default() -> Self {
        Self { slash: true, backslash: true, nul: false, semicolon: true, percent: true, question_mark: true, hash: true }
    }
}

impl EncodedCharacters {
    /// None of them.
    pub fn strict() -> Self {
        Self { slash: false, backslash: false, nul: false, semicolon: false, percent: false, question_mark: false, hash: false }
    }

    /// None but those that are named: `slash`, `backslash`, `nul`, `semicolon`, `percent`, `question-mark`, `hash`. The first
    /// that is none of these is given back.
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, &'n str> {
        let mut allowed = Self::strict();
        for name in names {
            *match name {
                "slash" => &mut allowed.slash,
                "backslash" => &mut allowed.backslash,
                "nul" => &mut allowed.nul,
                "semicolon" => &mut allowed.semicolon,
                "percent" => &mut allowed.percent,
                "question-mark" => &mut allowed.question_mark,
                "hash" => &mut allowed.hash,
                _ => return Err(name),
            } = true;
        }
        Ok(allowed)
    }

    /// Whether the path has none but those allowed. (The client is to be answered 400 otherwise.)
    pub fn allow(self, path: &str) -> bool {
        let path = path.as_bytes();
        memchr::memchr_iter(b'%', path).all(|at| match path.get(at + 1..at + 3) {
            Some([b'2', b'f' | b'F']) => self.slash,
            Some([b'5', b'c' | b'C']) => self.backslash,
            Some(b"00") => self.nul,
            Some([b'3', b'b' | b'B']) => self.semicolon,
            Some(b"25") => self.percent,
            Some([b'3', b'f' | b'F']) => self.question_mark,
            Some(b"23") => self.hash,
            _ => true,
        })
    }
}
