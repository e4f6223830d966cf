//! `.dockerignore`, with Docker's own semantics, which are not those of `.gitignore`: patterns are anchored at the root, a
//! pattern that matches a directory matches all below it, and the last pattern that matches decides.
//!
//! Source of the rules: "Dockerfile reference, .dockerignore file", and moby/patternmatcher where that is silent. As with
//! BuildKit, a `!` pattern with wildcards reaches into ignored folders; Docker's classic client does not look there.

mod pattern;

use std::io;
use std::path::Path;

use pattern::Pattern;

/// Bytes of the largest ignore file that is read.
pub const LARGEST_IGNORE_FILE: u64 = 1 << 20;

/// The rules of one ignore file.
#[derive(Debug, Clone, Default)]
pub struct DockerIgnore {
    rules: Vec<Rule>,
    /// Never ignored, whatever the rules say.
    always: Vec<String>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// `!pattern`: takes back what an earlier one ignored.
    keeps: bool,
    pattern: Pattern,
}

/// Why an ignore file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    /// A pattern is malformed.
    #[error("{file}:{line}: {pattern:?} is not a pattern: {cause}")]
    Pattern {
        /// The ignore file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The pattern, cut to a printable length.
        pattern: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl DockerIgnore {
    /// Reads rules. Patterns that Docker refuses are errors; `file` is the name they bear in them.
    pub fn parse(text: &str, file: &str) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            // A comment begins in the first column; ` #x` is a pattern.
            let pattern = line.trim();
            if line.starts_with('#') || pattern.is_empty() {
                continue;
            }
            let wrong = |cause| {
                let pattern = pattern.chars().take(80).collect();
                IgnoreError::Pattern { file: file.to_owned(), line: n + 1, pattern, cause }
            };
            let (keeps, text) = match pattern.strip_prefix('!') {
                Some("") => return Err(wrong("it takes back nothing")),
                Some(rest) if rest.trim().starts_with('/') && pattern::clean(rest.trim()).is_empty() => {
                    return Err(wrong("it takes back nothing"));
                }
                Some(rest) => (true, rest.trim()),
                None => (false, pattern),
            };
            rules.push(Rule { keeps, pattern: Pattern::new(text).map_err(wrong)? });
        }
        Ok(Self { rules, always: Vec::new() })
    }

    /// Reads the ignore file of this name in the root; `None` if there is none.
    pub fn read(root: &Path, file: &str) -> Result<Option<Self>, IgnoreError> {
        let io = |source| IgnoreError::Io { path: file.to_owned(), source };
        // What is no regular file has no rules.
        use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
        let text = match coracle_regular_file::read(&root.join(file), LARGEST_IGNORE_FILE) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), NotFound | NotADirectory | InvalidInput) => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        Self::parse(&String::from_utf8_lossy(&text), file).map(Some)
    }

    /// The rules for building with this Dockerfile: those of `<Dockerfile>.dockerignore` if it is there, else of
    /// `.dockerignore`. The Dockerfile and the ignore file are never ignored, since the builder needs them; it is the builder
    /// that hides them from `COPY` where the rules say so.
    pub fn for_dockerfile(root: &Path, dockerfile: &str) -> Result<Self, IgnoreError> {
        let own = format!("{dockerfile}.dockerignore");
        let ignore = match Self::read(root, &own)? {
            Some(ignore) => ignore.always(&own),
            None => Self::read(root, ".dockerignore")?.unwrap_or_default().always(".dockerignore"),
        };
        Ok(ignore.always(dockerfile))
    }

    /// The same rules, but this path (relative to the root) is never ignored.
    #[must_use]
    pub fn always(mut self, path: &str) -> Self {
        self.always.push(path.to_owned());
        self
    }

    /// Whether the path (relative to the root, with `/`) is left out, be it by a pattern of its own or of a folder above it.
    pub fn ignores(&self, path: &str) -> bool {
        if self.always.iter().any(|always| always == path) {
            return false;
        }
        let mut ignored = false;
        for rule in &self.rules {
            // A rule that could not change the answer is not asked.
            if rule.keeps == ignored && with_parents(path).any(|path| rule.pattern.matches(path)) {
                ignored = !rule.keeps;
            }
        }
        ignored
    }

    /// Whether anything below this ignored folder may have to be kept, so that it must be looked into.
    pub(crate) fn may_keep_below(&self, folder: &str) -> bool {
        let within = |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        self.always.iter().any(|always| within(always))
            || self.rules.iter().any(|rule| {
                let fixed = rule.pattern.fixed_start();
                rule.keeps && (within(fixed) || (!rule.pattern.is_fixed() && format!("{folder}/").starts_with(fixed)))
            })
    }
}

/// The path and the folders it is in, the outermost first.
fn with_parents(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at);
    ends.chain(std::iter::once(path.len())).map(|end| &path[..end])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn ignore(text: &str) -> DockerIgnore {
        DockerIgnore::parse(text, ".dockerignore").unwrap()
    }

    #[track_caller]
    fn check(rules: &str, ignored: &[&str], kept: &[&str]) {
        let ignore = ignore(rules);
        for path in ignored {
            assert!(ignore.ignores(path), "{rules:?} keeps {path}");
        }
        for path in kept {
            assert!(!ignore.ignores(path), "{rules:?} ignores {path}");
        }
    }

    #[test]
    fn the_documented_rules() {
        check("*/temp*", &["somedir/temporary.txt", "somedir/temp", "somedir/temp/x"], &["temp", "a/b/temp"]);
        check("*/*/temp*", &["somedir/subdir/temporary.txt"], &["somedir/temp", "a/b/c/temp"]);
        check("temp?", &["tempa", "tempb", "tempa/x"], &["temp", "tempab", "x/tempa"]);
        check("**/*.go", &["a.go", "x/a.go", "x/y/a.go"], &["a.gox", "go"]);
        check("*.md\n!README.md", &["a.md", "README-secret.md"], &["README.md", "x/a.md"]);
        check("*.md\n!README*.md\nREADME-secret.md", &["a.md", "README-secret.md"], &["README.md"]);
        check("*.md\nREADME-secret.md\n!README*.md", &["a.md"], &["README.md", "README-secret.md"]);
        check("/foo/bar", &["foo/bar", "foo/bar/x"], &["x/foo/bar", "foo"]);
        check("foo/bar", &["foo/bar"], &["x/foo/bar"]);
    }

    #[test]
    fn lines_are_trimmed_and_cleaned() {
        check("# foo\n\n  bar/  \n", &["bar", "bar/x"], &["foo", "# foo", "x/bar"]);
        check(" #x", &["#x"], &["x"]);
        check("./a/../b//c/", &["b/c"], &["a", "b"]);
        check("a\r\n!  a/b \r\n", &["a/c"], &["a/b"]);
        check("\u{feff}a", &["a"], &[]);
        check(".", &[], &["a"]);
        check("/", &[], &["a"]);
        check("../a", &[], &["a"]);
    }

    #[test]
    fn folders_take_all_below_them_and_give_it_back() {
        check("node_modules", &["node_modules/a/b.js"], &["x/node_modules", "node_modules2"]);
        check("**/node_modules", &["node_modules/a", "x/y/node_modules/a"], &["x/node_modules2"]);
        check("*\n!src", &["a", "a/b", "srcx"], &["src", "src/a/b"]);
        check("*\n!src\nsrc/secret", &["src/secret/x", "src/secret"], &["src/a"]);
        check("**\n!**/*.py", &["a.txt", "x/a.txt"], &["a.py", "x/y/a.py"]);
        check("a/**", &["a/b", "a/b/c"], &["a", "b"]);
        check("a/**/z", &["a/z", "a/b/z", "a/b/c/z/y"], &["az", "a/zz"]);
        check("**foo", &["foo", "xfoo", "a/xfoo"], &["foox"]);
        check("foo**", &["foo", "foobar", "foo/x"], &["xfoo"]);
    }

    #[test]
    fn classes_and_escapes() {
        check("[a-c]x", &["ax", "cx"], &["dx", "x"]);
        check("[^a-c]x", &["dx"], &["ax", "/x"]);
        check("[]]x\n[*]y", &["]x", "*y"], &["x", "ay"]);
        check(r"\*x", &["*x"], &["ax"]);
        check(r"\!x", &["!x"], &["x"]);
        check(r"a\", &[r"a\"], &["a"]);
        check("a+b(c)|{d}^$.x", &["a+b(c)|{d}^$.x"], &["aab(c)|{d}^$.x", "a+b(c)|{d}^$_x"]);
        for bad in ["[", "[]", "a[b", "[z-a]", "!", "!/", "!/.", "![", "[a-"] {
            assert!(DockerIgnore::parse(bad, "x").is_err(), "{bad}");
        }
        assert_eq!(
            DockerIgnore::parse("a\nb[", ".dockerignore").unwrap_err().to_string(),
            ".dockerignore:2: \"b[\" is not a pattern: a [ has no ]"
        );
    }

    #[test]
    fn a_dockerfile_brings_its_own_rules_and_is_never_ignored() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join(".dockerignore"), "*\n").unwrap();
        let ignore = DockerIgnore::for_dockerfile(tree.path(), "Dockerfile").unwrap();
        assert!(ignore.ignores("a") && !ignore.ignores("Dockerfile") && !ignore.ignores(".dockerignore"));
        std::fs::create_dir(tree.path().join("docker")).unwrap();
        std::fs::write(tree.path().join("docker/web.dockerignore"), "b\ndocker\n").unwrap();
        let ignore = DockerIgnore::for_dockerfile(tree.path(), "docker/web").unwrap();
        assert!(!ignore.ignores("a") && ignore.ignores("b") && ignore.ignores("docker/x"));
        assert!(!ignore.ignores("docker/web") && !ignore.ignores("docker/web.dockerignore"));
        assert!(ignore.may_keep_below("docker"));
    }

    #[test]
    fn many_stars_cost_no_more_than_their_number() {
        let ignore = ignore(&"**/*a*".repeat(40));
        assert!(!ignore.ignores(&"b/".repeat(400)));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_found(rules in prop::collection::vec("!?(\\*\\*/|a/|b/|\\*/){0,2}(a|b|\\*|a\\*|\\*\\*|\\?)", 1..5),
                                 path in "[ab](/[ab]){0,3}") {
            let ignore = ignore(&rules.join("\n"));
            if !ignore.ignores(&path) {
                for (at, _) in path.match_indices('/') {
                    let folder = &path[..at];
                    prop_assert!(!ignore.ignores(folder) || ignore.may_keep_below(folder), "{} in {}", path, folder);
                }
            }
        }

        #[test]
        fn reading_never_panics(text in ".{0,30}", path in ".{0,20}") {
            if let Ok(ignore) = DockerIgnore::parse(&text, "x") {
                ignore.ignores(&path);
                ignore.may_keep_below(&path);
            }
        }
    }
}
