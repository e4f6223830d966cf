//! Label trees read into types: names of fields whatever their case, lists by commas, `true` alone for what may stand without
//! settings.
//!
//! It is a deserializer, so that the types in `dynamic` are the one place that says what labels there are.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::node::Node;

/// By which [`switch`] tells the deserializer below what it wants.
const SWITCH: &str = "\0switch";

/// What is wrong with a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecodeError {
    /// The label's name from `traefik` on; empty until it is known.
    label: String,
    reason: String,
}

impl DecodeError {
    fn at(mut self, label: &str) -> Self {
        if self.label.is_empty() {
            label.clone_into(&mut self.label);
        }
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.label, self.reason)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { label: String::new(), reason: message.to_string() }
    }
}

/// Reads the tree below the root, whose name is `traefik`.
pub(crate) fn decode<T: DeserializeOwned>(root: &Node) -> Result<T, DecodeError> {
    T::deserialize(Place { node: root, label: "traefik".to_owned(), may_be_bare: true })
}

/// Settings that may be left out where the name stands alone or is `true`, and that are not there at all with any other value.
pub(crate) fn switch<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Switched<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Switched<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("settings, or true")
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            T::deserialize(deserializer).map(Some)
        }
    }
    deserializer.deserialize_newtype_struct(SWITCH, Switched(std::marker::PhantomData))
}

/// A node, and where it is.
struct Place<'a> {
    node: &'a Node,
    label: String,
    /// Whether it may have neither a value nor anything below it, though settings are expected there.
    may_be_bare: bool,
}

impl<'a> Place<'a> {
    fn below(&self, child: &'a Node, may_be_bare: bool) -> Self {
        let dot = if child.name.starts_with('[') { "" } else { "." };
        Self { node: child, label: format!("{}{dot}{}", self.label, child.name), may_be_bare }
    }

    fn wrong(&self, reason: impl Into<String>) -> DecodeError {
        DecodeError { label: self.label.clone(), reason: reason.into() }
    }

    fn settings_expected(&self) -> Result<(), DecodeError> {
        if self.node.children.is_empty() && !self.may_be_bare {
            return Err(self.wrong("cannot stand alone; settings go below it"));
        }
        Ok(())
    }

    /// The field of a structure that a child is.
    fn field(&self, child: &Node, fields: &'static [&'static str]) -> Result<&'static str, DecodeError> {
        if let Some(field) = fields.iter().find(|field| field.eq_ignore_ascii_case(&child.name)) {
            return Ok(field);
        }
        let distance = |field: &&&str| strsim::damerau_levenshtein(&field.to_lowercase(), &child.name.to_lowercase());
        let nearest = fields.iter().min_by_key(distance).filter(|field| distance(field) <= 3);
        let hint = nearest.map(|field| format!("; did you mean {field:?}?")).unwrap_or_default();
        Err(self.below(child, true).wrong(format!("there is no such setting{hint}")))
    }
}

/// As Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty,)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let number: $type = self.node.value.parse().map_err(|_| self.wrong(format!("{:?} is no number", self.node.value)))?;
            visitor.$visit(number).map_err(|error: DecodeError| error.at(&self.label))
        }
    )* };
}

impl<'de> Deserializer<'de> for Place<'_> {
    type Error = DecodeError;

    numbers! {
        deserialize_i64 visit_i64 i64,
        deserialize_i32 visit_i64 i64,
        deserialize_u64 visit_u64 u64,
        deserialize_u32 visit_u64 u64,
        deserialize_u16 visit_u64 u64,
        deserialize_u8 visit_u64 u64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = &self.node.value;
        visitor.visit_bool(parse_bool(value).ok_or_else(|| self.wrong(format!("{value:?} is neither true nor false")))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_str(&self.node.value).map_err(|error: DecodeError| error.at(&self.label))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        if name != SWITCH {
            return visitor.visit_newtype_struct(self);
        }
        match self.node.value.is_empty() || self.node.value.eq_ignore_ascii_case("true") {
            true => visitor.visit_some(Self { may_be_bare: true, ..self }),
            false => visitor.visit_none(),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if !self.node.children.is_empty() {
            let elements = self.node.children.iter().map(|child| self.below(child, true));
            return visitor.visit_seq(SeqDeserializer::new(elements)).map_err(|error: DecodeError| error.at(&self.label));
        }
        let value = self.node.value.as_str();
        let elements = value.split(',').map(str::trim).filter(|_| !value.is_empty());
        visitor.visit_seq(SeqDeserializer::new(elements)).map_err(|error: DecodeError| error.at(&self.label))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.settings_expected()?;
        let entries = self.node.children.iter().map(|child| (child.name.as_str(), self.below(child, true)));
        visitor.visit_map(MapDeserializer::new(entries)).map_err(|error: DecodeError| error.at(&self.label))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.settings_expected()?;
        let mut named = Vec::new();
        for child in &self.node.children {
            named.push((self.field(child, fields)?, self.below(child, false)));
        }
        let label = self.label.clone();
        visitor.visit_map(Fields { rest: named.into_iter(), next: None }).map_err(|error| error.at(&label))
    }

    /// What nobody has types for (plugins) is a map or a text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.node.children.is_empty() { self.deserialize_str(visitor) } else { self.deserialize_map(visitor) }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

impl<'a> IntoDeserializer<'_, DecodeError> for Place<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The fields of a structure, each with its node.
struct Fields<'a> {
    rest: std::vec::IntoIter<(&'static str, Place<'a>)>,
    next: Option<Place<'a>>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((field, place)) = self.rest.next() else { return Ok(None) };
        self.next = Some(place);
        seed.deserialize(field.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        match self.next.take() {
            Some(place) => {
                let label = place.label.clone();
                seed.deserialize(place).map_err(|error| error.at(&label))
            }
            None => Err(de::Error::custom("a value without a name")),
        }
    }
}
