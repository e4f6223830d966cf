//! From a file's text to trees of [`Node`]s, one for each YAML document.
//!
//! Anchors, aliases and merge keys (`<<`) are resolved here, so nothing behind this module knows of them. It refuses
//! what the reference refuses (a key twice, a key that is no text, an alias to itself) and what would only be written
//! to exhaust the reader: more depth, nodes or copies than any real file has.

use std::collections::HashMap;

use indexmap::map::Entry;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag as YamlTag};

use crate::budget::{Budget, MAX_DEPTH};
use crate::error::{ErrorKind, Fault};
use crate::node::{Data, Map, Node, Tag};
use crate::position::Mark;
use crate::scalar;

/// Reads all documents of a file. A document without content is `None`.
pub(crate) fn read(text: &str, file: u32, budget: &mut Budget) -> Result<Vec<Option<Node>>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { file, budget, frames: Vec::new(), anchors: HashMap::new(), documents: Vec::new() };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let mark = reader.mark(*error.marker());
            Fault::new(ErrorKind::Yaml, format!("this is not YAML: {}", error.info())).at(mark)
        })?;
        if matches!(event, Event::StreamEnd) {
            break;
        }
        reader.take(event, span)?;
    }
    Ok(reader.documents)
}

/// A list or mapping whose end has not been read yet.
struct Frame {
    content: Content,
    at: Mark,
    anchor: usize,
    tag: Tag,
}

enum Content {
    List(Vec<Node>),
    Map { map: Map, key: Option<(String, Mark)>, merges: Option<Node> },
}

fn twice(key: &str, first: Mark) -> Fault {
    Fault::new(ErrorKind::Yaml, format!("the key `{key}` is here twice; the first one is in line {}", first.line))
}

struct Reader<'b> {
    file: u32,
    budget: &'b mut Budget,
    frames: Vec<Frame>,
    /// Anchored values; `None` while the value is still being read.
    anchors: HashMap<usize, Option<Node>>,
    documents: Vec<Option<Node>>,
}

impl Reader<'_> {
    fn mark(&self, marker: Marker) -> Mark {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Mark { file: self.file, line: number(marker.line()), column: number(marker.col() + 1) }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let at = self.mark(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.spend(1 + text.len() / 32, at)?;
                if self.expects_key() && tag.is_none() && style == ScalarStyle::Plain && text == "<<" {
                    return self.set_merge_key(at);
                }
                let plain = style == ScalarStyle::Plain;
                let (data, mark) = read_scalar(&text, plain, tag.as_deref(), at)?;
                let mut node = Node::new(data, at);
                node.tag = mark;
                self.finish(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(Content::List(Vec::new()), anchor, tag.as_deref(), at),
            Event::MappingStart(anchor, tag) => {
                self.open(Content::Map { map: Map::new(), key: None, merges: None }, anchor, tag.as_deref(), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::DocumentEnd | Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { content: Content::Map { key: None, .. }, .. }))
    }

    fn open(&mut self, content: Content, anchor: usize, tag: Option<&YamlTag>, at: Mark) -> Result<(), Fault> {
        self.budget.spend(1, at)?;
        if self.frames.len() >= MAX_DEPTH {
            return Err(Fault::new(ErrorKind::Limit, format!("more than {MAX_DEPTH} levels of lists and mappings")).at(at));
        }
        if self.expects_key() {
            return Err(self.bad_key("a list or mapping", at));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.frames.push(Frame { content, at, anchor, tag: merge_tag(tag) });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let data = match frame.content {
            Content::List(mut items) => {
                items.shrink_to_fit();
                Data::List(items)
            }
            Content::Map { mut map, merges, .. } => {
                if let Some(merges) = merges {
                    self.merge(&mut map, merges)?;
                }
                map.shrink_to_fit();
                Data::Map(Box::new(map))
            }
        };
        let mut node = Node::new(data, frame.at);
        node.tag = frame.tag;
        self.finish(node, frame.anchor)
    }

    /// Puts the keys of a `<<` value where the mapping has none.
    fn merge(&mut self, map: &mut Map, merges: Node) -> Result<(), Fault> {
        let at = merges.key_at;
        let refused = || Fault::new(ErrorKind::Yaml, "`<<` takes a mapping or a list of mappings").at(at);
        let sources = match merges.data {
            Data::Map(source) => vec![*source],
            Data::List(items) => items
                .into_iter()
                .map(|item| match item.data {
                    Data::Map(source) => Ok(*source),
                    _ => Err(refused()),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(refused()),
        };
        for (key, value) in sources.into_iter().flatten() {
            if let Entry::Vacant(free) = map.entry(key) {
                free.insert(value);
            }
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), Fault> {
        let node = match self.anchors.get(&anchor) {
            Some(Some(node)) => node,
            Some(None) => return Err(Fault::new(ErrorKind::Yaml, "an anchor contains itself").at(at)),
            None => return Err(Fault::new(ErrorKind::Yaml, "an alias to an anchor that is not there").at(at)),
        };
        self.budget.spend(node.cost(), at)?;
        if node.depth() + self.frames.len() > MAX_DEPTH {
            return Err(Fault::new(ErrorKind::Limit, format!("more than {MAX_DEPTH} levels of lists and mappings")).at(at));
        }
        let node = node.clone();
        self.place(node)
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.budget.spend(node.cost(), node.at)?;
            self.anchors.insert(anchor, Some(node.clone()));
        }
        self.place(node)
    }

    fn place(&mut self, mut node: Node) -> Result<(), Fault> {
        if self.expects_key() {
            return match node.data {
                Data::Text(text) => self.set_key(text, node.at),
                _ => {
                    let shown = node.printed().unwrap_or_else(|| "null".to_owned());
                    Err(self.bad_key(&shown, node.at))
                }
            };
        }
        let Some(frame) = self.frames.last_mut() else {
            self.documents.push((!node.is_null()).then_some(node));
            return Ok(());
        };
        match &mut frame.content {
            Content::List(items) => {
                node.key_at = node.at;
                items.push(node);
            }
            Content::Map { map, key, merges } => {
                let Some((key, key_at)) = key.take() else { return Ok(()) };
                node.key_at = key_at;
                if key == "<<" && merges.as_ref().is_some_and(Node::is_null) {
                    *merges = Some(node);
                } else {
                    map.insert(key, node);
                }
            }
        }
        Ok(())
    }

    fn set_key(&mut self, text: String, at: Mark) -> Result<(), Fault> {
        let trail = self.trail();
        let Some(Frame { content: Content::Map { map, key, .. }, .. }) = self.frames.last_mut() else { return Ok(()) };
        if let Some(first) = map.get(&text) {
            return Err(twice(&text, first.key_at).on_path(trail).at(at));
        }
        *key = Some((text, at));
        Ok(())
    }

    /// The merge key, which is one only without quotes.
    fn set_merge_key(&mut self, at: Mark) -> Result<(), Fault> {
        let trail = self.trail();
        let Some(Frame { content: Content::Map { key, merges, .. }, .. }) = self.frames.last_mut() else { return Ok(()) };
        if let Some(first) = merges {
            return Err(twice("<<", first.key_at).on_path(trail).at(at));
        }
        // Marks that the merge key was seen; its value takes this one's place.
        *merges = Some(Node::new(Data::Null, at));
        *key = Some(("<<".to_owned(), at));
        Ok(())
    }

    fn bad_key(&self, shown: &str, at: Mark) -> Fault {
        let trail = self.trail();
        Fault::new(ErrorKind::Yaml, format!("a key must be a string, and this is none: {shown}"))
            .on_path(trail)
            .at(at)
            .hint("put the key in quotes")
    }

    /// The dotted way to the mapping that is being read.
    fn trail(&self) -> String {
        let mut trail = String::new();
        for frame in &self.frames {
            match &frame.content {
                Content::List(items) => trail.push_str(&format!("[{}]", items.len())),
                Content::Map { key: Some((key, _)), .. } => {
                    if !trail.is_empty() {
                        trail.push('.');
                    }
                    trail.push_str(key);
                }
                Content::Map { .. } => {}
            }
        }
        trail
    }
}

fn merge_tag(tag: Option<&YamlTag>) -> Tag {
    match tag {
        Some(tag) if tag.handle == "!" && tag.suffix == "reset" => Tag::Reset,
        Some(tag) if tag.handle == "!" && tag.suffix == "override" => Tag::Override,
        _ => Tag::Plain,
    }
}

/// A scalar's value by its style and tag.
fn read_scalar(text: &str, plain: bool, tag: Option<&YamlTag>, at: Mark) -> Result<(Data, Tag), Fault> {
    let merge = merge_tag(tag);
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let refused = |kind: &str| Fault::new(ErrorKind::Yaml, format!("`{text}` is not {kind}")).at(at);
    let data = match core {
        Some("int") => match scalar::number(text) {
            Some(Data::Int(value)) => Data::Int(value),
            _ => return Err(refused("an integer")),
        },
        Some("float") => match scalar::resolve(text) {
            Data::Int(value) => Data::Float(value as f64),
            Data::Float(value) => Data::Float(value),
            _ => return Err(refused("a number")),
        },
        Some("bool") => match scalar::resolve(text) {
            Data::Bool(value) => Data::Bool(value),
            _ => return Err(refused("a boolean")),
        },
        Some("null") => Data::Null,
        Some(_) => Data::Text(text.to_owned()),
        // A tag of somebody else's makes text of a scalar; our two say nothing about its type.
        None if plain && (tag.is_none() || merge != Tag::Plain) => scalar::resolve(text),
        None => Data::Text(text.to_owned()),
    };
    Ok((data, merge))
}
