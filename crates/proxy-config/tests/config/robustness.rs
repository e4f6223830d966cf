//! No text makes it panic, and many sites are no trouble.

use std::path::Path;

use coracle_proxy_config::Config;
use proptest::prelude::*;

fn lines() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/proxy.md")).unwrap();
    text.rsplit("```toml\n").next().unwrap().lines().map(str::to_owned).collect()
}

/// Whatever comes of it: mistakes have places in the text.
fn check(text: &str) {
    match Config::parse(text, Path::new("")) {
        Ok(config) => assert_eq!(config.table.check(), Ok(()), "{text}"),
        Err(mistakes) => {
            assert!(!mistakes.all.is_empty());
            let lines = text.lines().count().max(1);
            for place in mistakes.all.iter().filter_map(|mistake| mistake.place) {
                assert!(place.line >= 1 && place.line <= lines + 1 && place.column >= 1, "{text}\n{mistakes}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn files_with_lines_missing_changed_or_moved(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_u8), 1..8),
    ) {
        let mut lines = lines();
        for (one, other, edit) in edits {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            match edit {
                0 => lines[one].clear(),
                1 => lines.swap(one, other),
                2 => lines[one] = lines[other].clone(),
                3 => {
                    // The value of one line after the key of another.
                    let value = lines[other].split_once('=').map_or("\"\"", |(_, value)| value).to_owned();
                    if let Some((key, _)) = lines[one].clone().split_once('=') {
                        lines[one] = format!("{key}={value}");
                    }
                }
                _ => {
                    let cut = lines[one].chars().count() / 2;
                    lines[one] = lines[one].chars().take(cut).collect();
                }
            }
        }
        check(&lines.join("\n"));
    }

    #[test]
    fn any_text(text in "(\\[(sites|routes|services|middlewares|listen|tls)(\\.\"?[a*./é]{1,4}\"?)?\\]\n|(to|rule|files|targets|tls|path|http) = ([0-9]{1,5}|\"[:a-z0-9*/.`()é]{0,8}\"|true|\\{\\}|\\[\\])\n|[ -~é\n]{0,5})*") {
        check(&text);
    }
}

#[test]
fn ten_thousand_sites() {
    let text: String = (0..10_000)
        .map(|n| format!("[sites.\"s{n}.localhost\"]\nto = \"10.0.0.1:80\"\nredirect_from = \"www.s{n}.localhost\"\n"))
        .collect();
    let config = Config::parse(&text, Path::new("")).unwrap();
    assert_eq!(config.table.routes.len(), 30_000);
}
