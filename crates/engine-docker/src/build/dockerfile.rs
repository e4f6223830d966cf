//! The Dockerfile of a build: found in the tree, or made for it.

use std::io;
use std::path::{Component, Path};

use coracle_build::DockerIgnore;
use coracle_engine::{BuildError, BuildRequest};
use coracle_model::plan::Recipe;

/// What a Dockerfile that is made for a tree is called in it.
const GENERATED: &str = ".coracle.Dockerfile";

/// The largest Dockerfile that is looked into.
const LARGEST: u64 = 4 << 20;

/// Arguments that BuildKit alone sets.
const PLATFORM_ARGUMENTS: [&str; 4] = ["BUILDPLATFORM", "TARGETPLATFORM", "TARGETARCH", "TARGETOS"];

/// A Dockerfile and what it leaves out of the tree.
pub(super) struct Dockerfile {
    /// Its path in the tree.
    pub(super) path: String,
    /// Which files stay behind.
    pub(super) ignore: DockerIgnore,
    text: String,
    generated: bool,
}

impl Dockerfile {
    /// The Dockerfile of a request.
    pub(super) async fn of(request: &BuildRequest) -> Result<Self, BuildError> {
        let request = request.clone();
        let read = tokio::task::spawn_blocking(move || Self::read(&request)).await;
        read.map_err(|error| BuildError::CannotBuild(error.to_string()))?
    }

    fn read(request: &BuildRequest) -> Result<Self, BuildError> {
        let (path, text, generated) = match &request.plan.recipe {
            Recipe::Dockerfile { extras, .. } if extras.inline.is_some() => {
                (GENERATED.to_owned(), extras.inline.clone().unwrap_or_default(), true)
            }
            Recipe::Dockerfile { path, .. } => (path.clone(), read_from(&request.source, path)?, false),
            recipe => {
                let text = coracle_build::dockerfile::generate(&request.plan).ok_or_else(|| {
                    BuildError::CannotBuild(format!(
                        "the docker engine cannot build {recipe} without a Dockerfile; use engine = \"process\" or add a Dockerfile"
                    ))
                })?;
                (GENERATED.to_owned(), text, true)
            }
        };
        let ignore = DockerIgnore::for_dockerfile(&request.source, &path)
            .map_err(|error| BuildError::CannotBuild(format!(".dockerignore: {error}")))?;
        Ok(Self { path, ignore, text, generated })
    }

    /// Puts stages before the first of its own, so that its instructions can name them.
    pub(super) fn put_before(&mut self, stages: &[(String, String)]) -> Result<(), BuildError> {
        if stages.is_empty() {
            return Ok(());
        }
        let text = with_stages(&self.text, stages);
        self.text = text.ok_or_else(|| BuildError::CannotBuild(format!("{} has no FROM", self.path)))?;
        (self.path, self.generated) = (GENERATED.to_owned(), true);
        Ok(())
    }

    /// Files to send that are not in the tree.
    pub(super) fn extra(&self) -> Vec<(String, Vec<u8>)> {
        if self.generated { vec![(self.path.clone(), self.text.clone().into_bytes())] } else { Vec::new() }
    }

    /// Whether it is written for BuildKit: a frontend of its own, or what the classic builder does not know.
    pub(super) fn needs_buildkit(&self) -> bool {
        needs_buildkit(&self.text)
    }

    /// Whether a step of it mounts a secret.
    pub(super) fn mounts_secrets(&self) -> bool {
        self.text.contains("type=secret")
    }

    /// Its text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The images it begins from, as far as they are named outright.
    pub(super) fn bases(&self) -> Vec<String> {
        bases(&self.text)
    }
}

/// What stands before the first `FROM` (directives, arguments for it) stays there.
fn with_stages(text: &str, stages: &[(String, String)]) -> Option<String> {
    let is_from = |line: &&str| line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("FROM"));
    let first = text.lines().find(is_from)?;
    // The line is a piece of the text, so the text begins before it.
    let at = first.as_ptr() as usize - text.as_ptr() as usize;
    let (head, tail) = text.split_at(at);
    let stages: String = stages.iter().map(|(name, image)| format!("FROM {image} AS {name}\n")).collect();
    Some(format!("{head}{stages}{tail}"))
}

fn read_from(root: &Path, path: &str) -> Result<String, BuildError> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(BuildError::CannotBuild(format!("the Dockerfile {path:?} is not inside the source tree")));
    }
    let file = root.join(path);
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => BuildError::CannotBuild(format!("there is no {path} in the source tree")),
        _ => BuildError::CannotBuild(format!("cannot read {path}: {error}")),
    };
    // A link may lead out of the tree; the engine would not follow it, so neither do we.
    let real = file.canonicalize().map_err(cannot)?;
    if !real.starts_with(root.canonicalize().map_err(cannot)?) {
        return Err(BuildError::CannotBuild(format!("the Dockerfile {path:?} leads out of the source tree")));
    }
    let facts = real.metadata().map_err(cannot)?;
    if !facts.is_file() || facts.len() > LARGEST {
        return Err(BuildError::CannotBuild(format!("{path} is not a file that could be a Dockerfile")));
    }
    std::fs::read(&real).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(cannot)
}

fn needs_buildkit(text: &str) -> bool {
    let directives = text.lines().map(str::trim).take_while(|line| line.starts_with('#'));
    let has_frontend = directives
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .any(|(name, _)| name.trim().eq_ignore_ascii_case("syntax"));
    let has_platform = PLATFORM_ARGUMENTS.iter().any(|argument| text.contains(argument));
    has_frontend || has_platform || text.lines().any(is_for_buildkit)
}

fn is_for_buildkit(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let Some(instruction) = words.next() else { return false };
    if !["RUN", "COPY", "ADD"].iter().any(|known| instruction.eq_ignore_ascii_case(known)) {
        return false;
    }
    // `--chown` and `--from` are the flags that the classic builder knows too.
    let flags = words.clone().take_while(|word| word.starts_with("--"));
    let has_new_flag = flags.filter_map(|flag| flag.split('=').next()).any(|flag| flag != "--chown" && flag != "--from");
    let is_heredoc = |word: &str| {
        let name = word.strip_prefix("<<").map(|rest| rest.trim_start_matches(['-', '"', '\'']));
        name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    };
    has_new_flag || words.any(is_heredoc)
}

fn bases(text: &str) -> Vec<String> {
    let (mut bases, mut stages) = (Vec::new(), vec!["scratch".to_owned()]);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("FROM")) {
            continue;
        }
        let mut words = words.skip_while(|word| word.starts_with("--"));
        let Some(base) = words.next() else { continue };
        if !base.contains('$') && !stages.iter().any(|stage| stage.eq_ignore_ascii_case(base)) {
            bases.push(base.to_owned());
        }
        if words.next().is_some_and(|word| word.eq_ignore_ascii_case("AS")) {
            stages.extend(words.next().map(str::to_owned));
        }
    }
    bases.dedup();
    bases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_buildkit_knows_is_noticed() {
        for text in [
            "# syntax=docker/dockerfile:1\nFROM a",
            "# check=skip=all\n# Syntax = x\nFROM a",
            "FROM a\nRUN --mount=type=cache,target=/c make",
            "FROM a\ncopy --chmod=755 a b",
            "FROM a\nCOPY --from=b --link a b",
            "FROM a\nRUN <<EOF\necho\nEOF",
            "FROM a\nCOPY <<-\"EOF\" /a",
            "FROM --platform=$BUILDPLATFORM a",
        ] {
            assert!(needs_buildkit(text), "{text}");
        }
        for text in [
            "FROM a\nCOPY --from=b --chown=1:1 a b\nRUN make --mount=x",
            "# a comment about syntax\nFROM a\nRUN cat <<<word",
            "FROM a\n# syntax=late",
            "",
        ] {
            assert!(!needs_buildkit(text), "{text}");
        }
    }

    #[test]
    fn named_sources_become_stages_after_the_directives() {
        let text = "# syntax=x\nARG V=1\n  from debian:$V\nCOPY --from=assets /a /a\n";
        let expected = "# syntax=x\nARG V=1\nFROM img:1 AS assets\n  from debian:$V\nCOPY --from=assets /a /a\n";
        let stages = [("assets".to_owned(), "img:1".to_owned())];
        // The indentation of the line belongs to the line.
        assert_eq!(with_stages(text, &stages).as_deref(), Some(expected));
        assert_eq!(with_stages("RUN x", &stages), None);
    }

    #[test]
    fn stages_are_not_base_images() {
        let text = "FROM --platform=linux/amd64 debian:12 AS base\nFROM base\nFROM scratch\nfrom python as x\nFROM $VERSION";
        assert_eq!(bases(text), ["debian:12", "python"]);
    }
}
