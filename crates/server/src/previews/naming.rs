//! What the preview of a branch is called: by app and branch, as readable as can be, never the same for two of them.

use coracle_model::AppName;

/// Bytes of the longest name of an app.
const LONGEST: usize = 40;

/// Hexadecimal digits of the digest in a name.
const DIGITS: usize = 8;

/// Names for the preview of a branch, the best first, each with the part that tells it from the app's other previews.
///
/// The first, `APP-BRANCH`, is not the only branch's that leads to it; whoever finds it taken goes on to the second, which has a
/// digest of both in it and is that of no other branch.
pub(super) fn candidates(app: &AppName, branch: &str) -> Vec<(AppName, String)> {
    let word = word(branch);
    let plain = (!word.is_empty()).then(|| (format!("{app}-{word}"), word.clone())).filter(|(name, _)| name.len() <= LONGEST);
    let digest = blake3::hash(format!("{app}\0{branch}").as_bytes()).to_hex();
    let digest = &digest[..DIGITS];
    let start = cut(app.as_str(), 16);
    let middle = cut(&word, LONGEST - start.len() - DIGITS - 2);
    let part = if middle.is_empty() { digest.to_owned() } else { format!("{middle}-{digest}") };
    let unique = (format!("{start}-{part}"), part);
    plain.into_iter().chain([unique]).filter_map(|(name, part)| Some((name.parse().ok()?, part))).collect()
}

/// A branch's name as a part of a label: lower-case letters and digits, everything else a hyphen, no two in a row.
fn word(branch: &str) -> String {
    let mut word = String::new();
    for c in branch.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => word.push(c),
            _ if word.is_empty() || word.ends_with('-') => {}
            _ => word.push('-'),
        }
    }
    word.trim_end_matches('-').to_owned()
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..most).unwrap_or(text).trim_end_matches('-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(app: &str, branch: &str) -> Vec<String> {
        candidates(&app.parse().unwrap(), branch).into_iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn the_plain_name_comes_first_where_there_is_one() {
        assert_eq!(names("shop", "feature/x")[0], "shop-feature-x");
        assert_eq!(names("shop", "Feature_X--y/")[0], "shop-feature-x-y");
        assert_eq!(names("shop", "-x")[0], "shop-x");
        assert_eq!(names("shop", "日本").len(), 1);
    }

    #[test]
    fn the_second_name_is_no_other_branchs() {
        let branches =
            ["feature/x", "feature-x", "Feature/x", "feature//x", "feature.x", &"x".repeat(250), &"x".repeat(251), "日本", "日"];
        let unique: std::collections::BTreeSet<_> = branches.iter().map(|branch| names("shop", branch).pop().unwrap()).collect();
        assert_eq!(unique.len(), branches.len(), "{unique:?}");
        // Parts of the same words at another place are another app's preview.
        assert_ne!(names("shop", "a-b").pop(), names("shop-a", "b").pop());
    }

    #[test]
    fn every_name_is_one_however_the_branch_is_called() {
        let longest = "a".repeat(40);
        let hyphens = format!("a{}b", "-".repeat(30));
        for app in ["s", "shop", &longest, &hyphens] {
            for branch in ["x", "--", "$(touch x)", ";`'\"", "\u{202e}x", "../../x", &"é".repeat(120), &"x/".repeat(100), "9"] {
                let all = candidates(&app.parse().unwrap(), branch);
                assert!(!all.is_empty(), "{app} {branch}");
                for (name, part) in all {
                    assert!(name.as_str().ends_with(&part) && name.as_str() != app, "{name} {part}");
                }
            }
        }
    }
}
