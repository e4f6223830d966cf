//! Licence expressions (SPDX 2.3, annex D, with the old `MIT/Apache-2.0` for `OR`): is there a choice we allow?

/// Licences whose terms a permissive program can keep. `deny.toml` has the same list for cargo-deny.
pub const ALLOWED: &[&str] =
    &["MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "0BSD", "CC0-1.0", "Unicode-3.0"];

/// Whether the expression leaves a choice that consists of allowed licences only.
pub fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let answer = alternatives(&mut words);
    answer && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn alternatives(words: &mut Words<'_>) -> bool {
    let mut any = conjunction(words);
    while words.next_if_eq(&"OR").is_some() {
        any |= conjunction(words);
    }
    any
}

fn conjunction(words: &mut Words<'_>) -> bool {
    let mut all = single(words);
    while words.next_if_eq(&"AND").is_some() {
        all &= single(words);
    }
    all
}

fn single(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => alternatives(words) & words.next_if_eq(&")").is_some(),
        Some(licence) => {
            // An exception only takes conditions away.
            if words.next_if_eq(&"WITH").is_some() {
                words.next();
            }
            ALLOWED.contains(&licence)
        }
        None => false,
    }
}

#[test]
fn a_choice_is_enough_and_every_part_of_a_conjunction_counts() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "MIT OR LGPL-2.1-or-later",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in ["", "none", "GPL-3.0", "MPL-2.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND AGPL-3.0", "MIT GPL-3.0"] {
        assert!(!allowed(bad), "{bad}");
    }
}
