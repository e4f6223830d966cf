//! A YAML value that remembers where it was written.

use indexmap::IndexMap;

use crate::position::Mark;

/// A mapping in the order in which it was written.
pub(crate) type Map = IndexMap<String, Node>;

/// What `!reset` and `!override` ask of the merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tag {
    /// Nothing: merge as usual.
    #[default]
    Plain,
    /// Forget what the files before said, and say nothing instead.
    Reset,
    /// Forget what the files before said, and take this value.
    Override,
}

/// The content of a [`Node`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    // Boxed so that the many scalars of a file stay small.
    Map(Box<Map>),
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) data: Data,
    /// Where the value starts.
    pub(crate) at: Mark,
    /// Where the key before it starts; for list items and the top, the value itself.
    pub(crate) key_at: Mark,
    pub(crate) tag: Tag,
}

/// Equality is of content: two services that say the same in two files are the same.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Node {
    pub(crate) fn new(data: Data, at: Mark) -> Self {
        Self { data, at, key_at: at, tag: Tag::Plain }
    }

    pub(crate) fn text(text: impl Into<String>, at: Mark) -> Self {
        Self::new(Data::Text(text.into()), at)
    }

    pub(crate) fn map(map: Map, at: Mark) -> Self {
        Self::new(Data::Map(Box::new(map)), at)
    }

    /// A mapping with the keys given, all at the same place: what a short form stands for.
    pub(crate) fn pairs<const N: usize>(pairs: [(&str, Data); N], at: Mark) -> Self {
        Self::map(pairs.into_iter().map(|(key, data)| (key.to_owned(), Self::new(data, at))).collect(), at)
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// A key's value, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map().and_then(|map| map.get(key))
    }

    /// A key's text, if there is one.
    pub(crate) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::as_text)
    }

    /// A scalar as the text that Go's `%v` prints of it; nothing for lists and mappings, and for null.
    pub(crate) fn printed(&self) -> Option<String> {
        match &self.data {
            Data::Text(text) => Some(text.clone()),
            Data::Bool(value) => Some(value.to_string()),
            Data::Int(value) => Some(value.to_string()),
            Data::Float(value) => Some(crate::scalar::print_float(*value)),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// What the value is called in an error.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.data {
            Data::Null => "null",
            Data::Bool(_) => "boolean",
            Data::Int(_) => "integer",
            Data::Float(_) => "number",
            Data::Text(_) => "string",
            Data::List(_) => "list",
            Data::Map(_) => "mapping",
        }
    }

    /// How much of the loader's budget a copy of this value costs: one for each node, and one for every 32 bytes of text.
    pub(crate) fn cost(&self) -> usize {
        1 + match &self.data {
            Data::Text(text) => text.len() / 32,
            Data::List(items) => items.iter().map(Node::cost).sum(),
            Data::Map(map) => map.iter().map(|(key, node)| key.len() / 32 + node.cost()).sum(),
            _ => 0,
        }
    }

    /// How many mappings and lists stand within each other here.
    pub(crate) fn depth(&self) -> usize {
        match &self.data {
            Data::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Data::Map(map) => 1 + map.values().map(Node::depth).max().unwrap_or(0),
            _ => 0,
        }
    }
}
