//! Header fields in the order in which they came, over one arena of bytes.
//!
//! Removing a field forgets where it was; setting one appends to the arena. Nothing is ever moved, so that a request that
//! is parsed, edited and written costs two copies of its bytes and no allocation once the arena has grown.

use smallvec::SmallVec;

use crate::error::BadField;
use crate::known::Known;
use crate::octet;

/// An arena that has grown beyond this is given back when it is cleared, in bytes.
const KEPT_CAPACITY: usize = 16 * 1024;
/// More places for fields than this are given back when they are cleared.
const KEPT_FIELDS: usize = 64;

/// Header fields, in order. Names are compared without regard to case and written as they came.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    fields: SmallVec<[Field; 24]>,
}

/// Where one field stands in the arena.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    known: Known,
    /// Whether the bytes from the name to behind the value are exactly `name: value CRLF`, as they are to be written.
    is_line: bool,
}

impl Field {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.name as usize..][..usize::from(self.name_len)]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.value as usize..][..self.value_len as usize]
    }
}

impl Fields {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Forgets all of them and keeps the room, unless that has grown beyond 16 kB.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        }
        if self.fields.capacity() > KEPT_FIELDS {
            self.fields = SmallVec::new();
        }
    }

    /// All of them: name as it came, value without the white space around it.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &[u8])> + ExactSizeIterator {
        self.fields.iter().map(|field| (text(field.name(&self.bytes)), field.value(&self.bytes)))
    }

    /// All of them, with what the name is known as.
    pub fn iter_known(&self) -> impl DoubleEndedIterator<Item = (Known, &str, &[u8])> + ExactSizeIterator {
        self.fields.iter().map(|field| (field.known, text(field.name(&self.bytes)), field.value(&self.bytes)))
    }

    /// All of them, names as bytes.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.fields.iter().map(|field| (field.known, field.name(&self.bytes), field.value(&self.bytes)))
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The first value of that name, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of that name.
    pub fn get_all<'f, 'n>(&'f self, name: &'n str) -> impl Iterator<Item = &'f [u8]> + use<'f, 'n> {
        let name = Name::of(name.as_bytes());
        self.fields.iter().filter(move |field| name.is(field, &self.bytes)).map(|field| field.value(&self.bytes))
    }

    /// The first value of that name.
    #[inline]
    pub fn get_known(&self, known: Known) -> Option<&[u8]> {
        self.get_all_known(known).next()
    }

    /// The first value of that name, if it is UTF-8.
    pub fn get_known_str(&self, known: Known) -> Option<&str> {
        self.get_known(known).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of that name.
    #[inline]
    pub fn get_all_known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.known == known).map(|field| field.value(&self.bytes))
    }

    /// Whether there is one of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether there is one of that name.
    #[inline]
    pub fn contains_known(&self, known: Known) -> bool {
        self.fields.iter().any(|field| field.known == known)
    }

    /// How many there are of that name.
    pub fn count(&self, name: &str) -> usize {
        self.get_all(name).count()
    }

    /// Whether a value of that name, read as a comma-separated list, has this member in any case.
    pub fn has_token(&self, known: Known, token: &str) -> bool {
        self.get_all_known(known).flat_map(octet::list).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Adds a field behind all others.
    ///
    /// # Errors
    /// [`BadField`] if the name is no token or the value has a control character other than HTAB; nothing is changed then.
    pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), BadField> {
        let field = self.write_line(name.as_bytes(), value.as_ref())?;
        self.fields.push(field);
        Ok(())
    }

    /// Puts one field in the place of all of that name.
    ///
    /// # Errors
    /// As [`Fields::append`].
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), BadField> {
        let field = self.write_line(name.as_bytes(), value.as_ref())?;
        self.replace(Name { known: field.known, name: name.as_bytes() }, field);
        Ok(())
    }

    /// Puts one field in the place of all of that name.
    ///
    /// # Errors
    /// As [`Fields::append`]; [`Known::Other`] is no name.
    pub fn set_known(&mut self, known: Known, value: impl AsRef<[u8]>) -> Result<(), BadField> {
        if known == Known::Other {
            return Err(BadField::Name);
        }
        let field = self.write_line(known.name().as_bytes(), value.as_ref())?;
        self.replace(Name { known, name: b"" }, field);
        Ok(())
    }

    fn replace(&mut self, name: Name<'_>, field: Field) {
        let bytes = &self.bytes;
        let mut place = Some(field);
        self.fields.retain(|old| {
            if !name.is(old, bytes) {
                return true;
            }
            match place.take() {
                Some(field) => {
                    *old = field;
                    true
                }
                None => false,
            }
        });
        self.fields.extend(place);
    }

    /// Takes all of that name off; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let name = Name::of(name.as_bytes());
        let (before, bytes) = (self.fields.len(), &self.bytes);
        self.fields.retain(|field| !name.is(field, bytes));
        self.fields.len() != before
    }

    /// Takes all of that name off; whether there was one.
    pub fn remove_known(&mut self, known: Known) -> bool {
        let before = self.fields.len();
        if self.contains_known(known) {
            self.fields.retain(|field| field.known != known);
        }
        self.fields.len() != before
    }

    /// Keeps those for which the answer is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        self.retain_known(|_, name, value| keep(name, value));
    }

    /// Keeps those for which the answer is true.
    pub fn retain_known(&mut self, mut keep: impl FnMut(Known, &str, &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.fields.retain(|field| keep(field.known, text(field.name(bytes)), field.value(bytes)));
    }

    /// Adds a field whose value is known to be one.
    pub(crate) fn put(&mut self, known: Known, value: &[u8]) {
        debug_assert!(known != Known::Other && octet::is_value(value));
        // Too large for the arena is the only thing that it can be, and then it is not there.
        if let Some(field) = self.put_line(self.bytes.len(), known.name().as_bytes(), value, known) {
            self.fields.push(field);
        }
    }

    /// Keeps those for which the answer is true; names as bytes.
    pub(crate) fn keep(&mut self, keep: impl Fn(Known, &[u8]) -> bool) {
        let bytes = &self.bytes;
        // Mostly there is nothing to take off, and looking is cheaper than moving.
        let Some(first) = self.fields.iter().position(|field| !keep(field.known, field.name(bytes))) else { return };
        let mut kept = first;
        for index in first + 1..self.fields.len() {
            let field = self.fields[index];
            if keep(field.known, field.name(bytes)) {
                self.fields[kept] = field;
                kept += 1;
            }
        }
        self.fields.truncate(kept);
    }

    /// Takes all fields off that the values of `list` name, unless they are to be kept; `list` itself stays.
    pub(crate) fn remove_listed(&mut self, list: Known, keep: impl Fn(Known, &[u8]) -> bool) {
        let bytes = &self.bytes;
        let lists: SmallVec<[Field; 4]> = self.fields.iter().filter(|field| field.known == list).copied().collect();
        self.fields.retain(|field| {
            let name = field.name(bytes);
            let listed = |list: &Field| octet::list(list.value(bytes)).any(|member| member.eq_ignore_ascii_case(name));
            field.known == list || keep(field.known, name) || !lists.iter().any(listed)
        });
    }

    /// Adds all fields of `others` behind these.
    pub fn extend_from(&mut self, others: &Self) {
        for field in &others.fields {
            let (name, value) = (field.name(&others.bytes), field.value(&others.bytes));
            let start = self.bytes.len();
            if let Some(field) = self.put_line(start, name, value, field.known) {
                self.fields.push(field);
            }
        }
    }

    fn write_line(&mut self, name: &[u8], value: &[u8]) -> Result<Field, BadField> {
        if !octet::is_token(name) {
            return Err(BadField::Name);
        }
        let value = octet::trim(value);
        if !octet::is_value(value) {
            return Err(BadField::Value);
        }
        self.put_line(self.bytes.len(), name, value, Known::of(name)).ok_or(BadField::Size)
    }

    fn put_line(&mut self, start: usize, name: &[u8], value: &[u8], known: Known) -> Option<Field> {
        let name_len = u16::try_from(name.len()).ok()?;
        u32::try_from(start + name.len() + value.len() + 4).ok()?;
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        let value_start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        Some(Field { name: start as u32, value: value_start, value_len: value.len() as u32, name_len, known, is_line: true })
    }

    /// The arena with the whole header section of a message copied into it, to be followed by [`Fields::push_parsed`].
    pub(crate) fn load(&mut self, section: &[u8]) {
        self.clear();
        self.bytes.extend_from_slice(section);
    }

    /// Adds a field that the parser found in the bytes loaded: it has checked both, and the lengths.
    #[inline]
    pub(crate) fn push_parsed(&mut self, name: usize, name_len: u16, value: usize, value_len: usize, known: Known) {
        let is_line = value == name + usize::from(name_len) + 2
            && self.bytes[value - 1] == b' '
            && self.bytes.get(value + value_len) == Some(&b'\r');
        let (name, value, value_len) = (name as u32, value as u32, value_len as u32);
        self.fields.push(Field { name, value, value_len, name_len, known, is_line });
    }

    /// Writes those that `keep` wants as field lines; neighbours in one go.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>, keep: impl Fn(Known) -> bool) {
        let mut run = 0..0;
        for field in &self.fields {
            if !keep(field.known) {
                continue;
            }
            let start = field.name as usize;
            let end = field.value as usize + field.value_len as usize + 2;
            if field.is_line && start == run.end {
                run.end = end;
                continue;
            }
            out.extend_from_slice(&self.bytes[run]);
            run = if field.is_line {
                start..end
            } else {
                out.extend_from_slice(field.name(&self.bytes));
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value(&self.bytes));
                out.extend_from_slice(b"\r\n");
                0..0
            };
        }
        out.extend_from_slice(&self.bytes[run]);
    }

    /// How many bytes [`Fields::write_to`] writes at most.
    pub(crate) fn written_len(&self) -> usize {
        self.bytes.len() + 2 * self.fields.len()
    }
}

/// A name to look for.
#[derive(Clone, Copy)]
struct Name<'n> {
    known: Known,
    name: &'n [u8],
}

impl<'n> Name<'n> {
    fn of(name: &'n [u8]) -> Self {
        // What is no token is the name of nothing.
        let known = if octet::is_token(name) { Known::of(name) } else { Known::Other };
        Self { known, name }
    }

    fn is(self, field: &Field, bytes: &[u8]) -> bool {
        field.known == self.known && (self.known != Known::Other || field.name(bytes).eq_ignore_ascii_case(self.name))
    }
}

/// Names are tokens and so ASCII.
fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or_default()
}

impl PartialEq for Fields {
    /// The same fields in the same order, names in any case.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other.iter()).all(|(a, b)| a.0.eq_ignore_ascii_case(b.0) && a.1 == b.1)
    }
}

impl Eq for Fields {}

impl std::fmt::Debug for Fields {
    /// Without values that are credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.iter_known().map(|(known, name, value)| {
            let secret = matches!(known, Known::Authorization | Known::ProxyAuthorization | Known::Cookie | Known::SetCookie);
            (name, if secret { "…".into() } else { String::from_utf8_lossy(value) })
        });
        f.debug_map().entries(shown).finish()
    }
}
