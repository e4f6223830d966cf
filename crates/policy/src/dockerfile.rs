//! A Dockerfile as far as rules ask about it: stages, what they begin from, and their instructions with their lines.
//!
//! Read leniently: whether it is a valid one is the builder's to say. Source of the grammar: "Dockerfile reference".

use std::collections::{BTreeMap, BTreeSet};

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// In capitals.
    pub(crate) keyword: String,
    /// What stands behind it, continued lines joined by blanks, with the text of its here-documents.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: u32,
}

/// What stands between one `FROM` and the next.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    name: Option<String>,
    /// What it begins from, as it is written.
    pub(crate) base: String,
    /// The same with the values of arguments; `None`: they are not known.
    resolved: Option<String>,
    /// The line of its `FROM`.
    pub(crate) line: u32,
    pub(crate) instructions: Vec<Instruction>,
}

/// What a stage or a copy is taken from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Base<'a> {
    /// An earlier stage.
    Stage(usize),
    /// An image.
    Image(&'a str),
    /// Nothing, or what cannot be told.
    Unknown,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Dockerfile {
    pub(crate) stages: Vec<Stage>,
}

impl Instruction {
    /// The words behind flags (`--from=x`).
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_whitespace().skip_while(|word| word.starts_with("--"))
    }

    /// The value of a flag.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        let mut flags = self.text.split_whitespace().take_while(|word| word.starts_with("--"));
        flags.find_map(|flag| flag.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='))
    }

    /// What is copied by `COPY` and `ADD`.
    pub(crate) fn sources(&self) -> Vec<String> {
        let text = self.text.lines().next().unwrap_or_default();
        let behind: Vec<&str> = text.split_whitespace().skip_while(|word| word.starts_with("--")).collect();
        let mut words: Vec<String> = match serde_json::from_str(&behind.join(" ")) {
            Ok(words) => words,
            Err(_) => behind.into_iter().map(str::to_owned).collect(),
        };
        words.pop();
        words.retain(|word| !word.starts_with("<<"));
        words
    }

    /// The argument vector of `CMD` and `ENTRYPOINT`.
    pub(crate) fn argv(&self) -> Vec<String> {
        let text = self.text.trim();
        match serde_json::from_str::<Vec<String>>(text) {
            Ok(argv) => argv,
            Err(_) if text.is_empty() => Vec::new(),
            Err(_) => ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        }
    }
}

impl Dockerfile {
    /// Reads a text; `given` are the build's arguments.
    pub(crate) fn parse(text: &str, given: &BTreeMap<String, String>) -> Self {
        let mut stages: Vec<Stage> = Vec::new();
        let mut arguments: BTreeMap<String, String> = BTreeMap::new();
        for instruction in instructions(text) {
            match (instruction.keyword.as_str(), stages.last_mut()) {
                ("FROM", _) => {
                    let mut words = instruction.words();
                    let base = words.next().unwrap_or_default().to_owned();
                    let name = words.next().filter(|word| word.eq_ignore_ascii_case("AS")).and(words.next()).map(str::to_owned);
                    let resolved = substituted(&base, &arguments);
                    stages.push(Stage { name, resolved, line: instruction.line, instructions: Vec::new(), base });
                }
                ("ARG", None) => {
                    for word in instruction.words() {
                        let (name, default) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
                        let default = default.map(|value| value.trim_matches(['"', '\'']).to_owned());
                        let value = given.get(name).cloned().or_else(|| substituted(&default?, &arguments));
                        arguments.extend(value.map(|value| (name.to_owned(), value)));
                    }
                }
                (_, Some(stage)) => stage.instructions.push(instruction),
                _ => {}
            }
        }
        Self { stages }
    }

    /// The stage that is built.
    pub(crate) fn target(&self, wanted: Option<&str>) -> Option<usize> {
        match wanted {
            Some(wanted) => self.named(wanted, self.stages.len()).or_else(|| wanted.parse().ok()),
            None => self.stages.len().checked_sub(1),
        }
        .filter(|at| *at < self.stages.len())
    }

    /// The last stage of this name before `end`.
    fn named(&self, name: &str, end: usize) -> Option<usize> {
        let has_name = |stage: &Stage| stage.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        self.stages.iter().take(end).rposition(has_name)
    }

    /// What a stage begins from.
    pub(crate) fn base(&self, at: usize) -> Base<'_> {
        match &self.stages[at].resolved {
            Some(base) => self.source(base, at),
            None => Base::Unknown,
        }
    }

    /// What `name` means before stage `end`.
    fn source<'a>(&self, name: &'a str, end: usize) -> Base<'a> {
        match self.named(name, end) {
            Some(stage) => Base::Stage(stage),
            None if name.eq_ignore_ascii_case("scratch") || name.is_empty() || name.contains('$') => Base::Unknown,
            None => Base::Image(name),
        }
    }

    /// What `COPY --from` takes from.
    pub(crate) fn copied_from<'a>(&self, at: usize, instruction: &'a Instruction) -> Option<Base<'a>> {
        let from = instruction.flag("from")?;
        Some(match from.parse::<usize>() {
            Ok(stage) if stage < at => Base::Stage(stage),
            Ok(_) => Base::Unknown,
            Err(_) => self.source(from, at),
        })
    }

    /// The stages that what is built consists of, the target included, in the order of the file.
    pub(crate) fn used(&self, target: usize) -> Vec<usize> {
        let (mut used, mut left) = (BTreeSet::new(), vec![target]);
        while let Some(at) = left.pop() {
            if !used.insert(at) {
                continue;
            }
            let mut sources: Vec<Base<'_>> = vec![self.base(at)];
            sources.extend(self.stages[at].instructions.iter().filter_map(|instruction| self.copied_from(at, instruction)));
            let mounted = self.stages[at].instructions.iter().filter_map(|instruction| instruction.flag("mount"));
            let mounted = mounted.filter_map(|mount| mount.split(',').find_map(|option| option.strip_prefix("from=")));
            sources.extend(mounted.map(|from| self.source(from, at)));
            left.extend(
                sources.into_iter().filter_map(|source| if let Base::Stage(stage) = source { Some(stage) } else { None }),
            );
        }
        used.into_iter().collect()
    }

    /// The last instruction of this kind that a stage has, or inherits from an earlier one, and what the outermost begins from.
    pub(crate) fn effective(&self, mut at: usize, keyword: &str) -> (Option<&Instruction>, Base<'_>) {
        loop {
            let own = self.stages[at].instructions.iter().rev().find(|instruction| instruction.keyword == keyword);
            let base = self.base(at);
            match (own, base) {
                (Some(own), base) => return (Some(own), base),
                // Stages name earlier ones only, so this ends.
                (None, Base::Stage(earlier)) => at = earlier,
                (None, base) => return (None, base),
            }
        }
    }
}

/// The instructions of a text, comments and here-documents apart.
fn instructions(text: &str) -> Vec<Instruction> {
    let text = text.trim_start_matches('\u{feff}');
    let escape = escape(text);
    let mut lines = text.lines().enumerate();
    let mut found = Vec::new();
    while let Some((number, first)) = lines.next() {
        let first = first.trim();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let mut whole = first.to_owned();
        while let Some(rest) = whole.strip_suffix(escape) {
            whole.truncate(rest.trim_end().len());
            // Empty lines and comments within an instruction do not end it.
            let next = lines.by_ref().map(|(_, line)| line.trim()).find(|line| !line.is_empty() && !line.starts_with('#'));
            let Some(next) = next else { break };
            whole.push(' ');
            whole.push_str(next);
        }
        let (keyword, rest) = whole.split_once(char::is_whitespace).unwrap_or((&whole, ""));
        let keyword = keyword.to_ascii_uppercase();
        let mut text = rest.trim().to_owned();
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for end in heredocs(rest) {
                let body = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_start_matches('\t') != end);
                for line in body {
                    text.push('\n');
                    text.push_str(line);
                }
            }
        }
        found.push(Instruction { keyword, text, line: u32::try_from(number + 1).unwrap_or(u32::MAX) });
    }
    found
}

/// The character that continues a line: that of the directive at the head, else a backslash.
fn escape(text: &str) -> char {
    let directives = text.lines().map(str::trim).take_while(|line| line.starts_with('#'));
    let named = directives
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .find_map(|(name, value)| name.trim().eq_ignore_ascii_case("escape").then(|| value.trim().chars().next()).flatten());
    named.filter(|escape| *escape == '`').unwrap_or('\\')
}

/// The words that end the here-documents of an instruction, in order.
fn heredocs(text: &str) -> Vec<String> {
    let names = text.split_whitespace().filter_map(|word| word.split_once("<<").map(|(_, name)| name));
    let names = names.map(|name| name.trim_start_matches('-').trim_matches(['"', '\'']));
    let is_name = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    names.filter(is_name).map(str::to_owned).collect()
}

/// A text with the values of `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`; `None` if one is not known.
fn substituted(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once('$') {
        done.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        rest = match behind.strip_prefix('{') {
            Some(braced) => {
                let (inner, after) = braced.split_once('}')?;
                let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, value)| (name, Some(value)));
                match name.split_once(":+") {
                    Some((name, other)) if values.get(name).is_some_and(|value| !value.is_empty()) => done.push_str(other),
                    Some(_) => {}
                    None => done.push_str(values.get(name).map(String::as_str).filter(|value| !value.is_empty()).or(default)?),
                }
                after
            }
            None => {
                let end = behind.find(|c: char| !is_name(c)).unwrap_or(behind.len());
                done.push_str(values.get(&behind[..end])?);
                &behind[end..]
            }
        };
    }
    done.push_str(rest);
    Some(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Dockerfile {
        Dockerfile::parse(text, &BTreeMap::new())
    }

    #[test]
    fn stages_name_each_other_and_arguments_are_filled_in() {
        let text = "# escape=`\nARG V=3.12 D=${V}-slim\nARG NONE\nFROM python:$D AS build\nRUN a `\n # c\n\n b\nFROM alpine:${NONE}\n\
                    FROM Build\nCOPY --from=0 /a /b\nCOPY --from=nginx /a /b\nUSER app";
        let file = parse(text);
        assert_eq!(file.base(0), Base::Image("python:3.12-slim"));
        assert_eq!(file.base(1), Base::Unknown);
        assert_eq!(file.base(2), Base::Stage(0));
        assert_eq!(file.stages[0].instructions[0].text, "a b");
        assert_eq!((file.stages[0].line, file.stages[2].instructions[2].line), (4, 13));
        assert_eq!(file.used(2), [0, 2]);
        assert_eq!(file.copied_from(2, &file.stages[2].instructions[1]), Some(Base::Image("nginx")));
        assert_eq!(file.target(Some("BUILD")), Some(0));
        assert_eq!(file.target(Some("none")), None);
        let given = BTreeMap::from([("V".to_owned(), "3.13".to_owned())]);
        assert_eq!(Dockerfile::parse(text, &given).base(0), Base::Image("python:3.13-slim"));
    }

    #[test]
    fn a_heredoc_is_no_instruction() {
        let file = parse("FROM a:1\nRUN <<EOF cat\nUSER root\nFROM b\nEOF\nCOPY <<-\"X\" /x\n\tUSER y\n\tX\nUSER app\n");
        let keywords: Vec<_> = file.stages[0].instructions.iter().map(|it| it.keyword.as_str()).collect();
        assert_eq!((file.stages.len(), keywords), (1, vec!["RUN", "COPY", "USER"]));
    }

    #[test]
    fn what_is_inherited_is_found() {
        let file = parse("FROM a:1 AS base\nUSER app\nCMD [\"x\", \"y\"]\nFROM base\nRUN b");
        assert_eq!(file.effective(1, "USER").0.unwrap().text, "app");
        assert_eq!(file.effective(1, "CMD").0.unwrap().argv(), ["x", "y"]);
        assert_eq!(file.effective(1, "ENTRYPOINT"), (None, Base::Image("a:1")));
    }

    #[test]
    fn copies_are_read_in_either_form() {
        let file = parse("FROM a:1\nCOPY --chown=1:1 a b /c/\nADD [\"a b\", \"/c\"]");
        assert_eq!(file.stages[0].instructions[0].sources(), ["a", "b"]);
        assert_eq!(file.stages[0].instructions[1].sources(), ["a b"]);
    }
}
