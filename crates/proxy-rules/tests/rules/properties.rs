//! What holds for any rule and any request.

use coracle_proxy_rules::{Dialect, Router, Rule, domains};
use proptest::prelude::*;

use crate::request::{Request, get};

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "com", "x-y"]), 1..4).prop_map(|labels| labels.join("."))
}

fn path() -> impl Strategy<Value = String> {
    let segments = prop::sample::select(vec!["a", "ab", "b", "%61", "%2F", "é", "%", ""]);
    prop::collection::vec(segments, 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn matcher() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => name().prop_map(|name| format!("Host(`{name}`)")),
        1 => name().prop_map(|name| format!("Host(`*.{name}`)")),
        1 => name().prop_map(|name| format!("Host(`**.{name}`)")),
        1 => name().prop_map(|name| format!("HostRegexp(`^[^.]+\\.{}$`)", name.replace('.', "\\."))),
        1 => name().prop_map(|name| format!("HostRegexp(`(?i)(a|b)?{}$`)", name.replace('.', "\\."))),
        1 => name().prop_map(|name| format!("HostRegexp(`{name}$|^{name}`)")),
        2 => path().prop_map(|path| format!("Path(`{path}`)")),
        2 => path().prop_map(|path| format!("PathPrefix(`{path}`)")),
        1 => path().prop_map(|path| format!("PathRegexp(`^{path}[ab]*`)")),
        1 => path().prop_map(|path| format!("PathRegexp(\"{path}?$\")")),
        1 => Just("Method(`get`)".to_owned()),
        1 => Just("Query(`q`, `1`)".to_owned()),
        1 => Just("ClientIP(`192.0.2.0/31`)".to_owned()),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    matcher().prop_recursive(4, 24, 4, |inner| {
        let several = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            2 => several.clone().prop_map(|parts| format!("({})", parts.join(" && "))),
            2 => several.prop_map(|parts| format!("({})", parts.join("||"))),
            1 => inner.prop_map(|part| format!("!{part}")),
        ]
    })
}

fn request() -> impl Strategy<Value = Request> {
    (name(), path(), any::<bool>(), any::<bool>()).prop_map(|(name, path, dot, query)| {
        let (dot, query) = (if dot { "." } else { "" }, if query { "?q=1" } else { "" });
        get(&format!("{name}{dot}{path}{query}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_rule_comes_back_from_its_text(text in rule()) {
        let rule = Rule::parse(&text, Dialect::V3).unwrap();
        let shown = rule.to_string();
        let again = Rule::parse(&shown, Dialect::V3).unwrap();
        prop_assert_eq!(&again, &rule);
        prop_assert_eq!(again.to_string(), shown);
    }

    #[test]
    fn a_rule_of_v2_comes_back_in_v3(names in prop::collection::vec(name(), 1..3), path in path(), request in request()) {
        let hosts: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let text = format!("!(Host({0}) || HostRegexp(`{{x}}.com`, {0})) && PathPrefix(`{path}{{y:[ab]?}}`)", hosts.join(","));
        let rule = Rule::parse(&text, Dialect::V2).unwrap();
        let again = Rule::parse(&rule.to_string(), Dialect::V3).unwrap();
        prop_assert_eq!(&again, &rule);
        prop_assert_eq!(again.matches(&request), rule.matches(&request));
    }

    #[test]
    fn the_router_finds_what_trying_all_would_find(
        rules in prop::collection::vec((rule(), 0_i64..4), 0..40),
        requests in prop::collection::vec(request(), 8),
        odd in any::<bool>(),
    ) {
        let parsed: Vec<_> = rules.iter().map(|(text, priority)| (Rule::parse(text, Dialect::V3).unwrap(), *priority)).collect();
        let router = Router::new(parsed.iter().enumerate().map(|(at, (rule, priority))| (rule.clone(), *priority, at)));
        let accept = |at: &usize| !odd || at % 2 == 1;
        for request in requests {
            let matching = parsed.iter().enumerate().filter(|(at, (rule, _))| accept(at) && rule.matches(&request));
            let expected = matching.min_by_key(|(at, (_, priority))| (-priority, *at)).map(|(at, _)| at);
            prop_assert_eq!(router.find_where(&request, accept).copied(), expected);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~é\n]{0,60}|((Host|Path|Query)\\(|[`\"\\\\,()!&|{}:/a*])*") {
        for dialect in [Dialect::V2, Dialect::V3] {
            if let Err(error) = Rule::parse(&text, dialect) {
                prop_assert!(text.is_char_boundary(error.offset), "{error}");
            }
        }
        drop(domains(&text));
    }

    #[test]
    fn no_pattern_makes_the_translation_panic(pattern in "([-\\[\\]^\\\\(){}?*+|.&~:a-cQEdwsxpP0-9<>]|\\(\\?)*") {
        drop(Rule::parse(&format!("PathRegexp(`{pattern}`)"), Dialect::V3));
        drop(Rule::parse(&format!("HostRegexp(`{pattern}$`)"), Dialect::V3));
        drop(Rule::parse(&format!("Path(`/{pattern}`)"), Dialect::V2));
    }

    /// Whoever is filed by the literal ends of a pattern is found by it.
    #[test]
    fn a_pattern_that_is_filed_is_found(pattern in "\\^?([ab.]|\\\\\\.|[*+?|$]|\\(a|\\)|\\[\\^?\\]?[a.(|)]*\\]|/|\\^)*\\$?", hosts in prop::collection::vec("[ab.]{0,6}", 20)) {
        for kind in ["HostRegexp", "PathRegexp"] {
            let Ok(rule) = Rule::parse(&format!("{kind}(`{pattern}`)"), Dialect::V3) else { continue };
            // More than a few, so that they are filed by path as well.
            let router = Router::new((0..10).map(|at| (rule.clone(), 0, at)));
            for host in &hosts {
                let request = get(&format!("{host}/{host}"));
                prop_assert_eq!(router.find(&request).is_some(), rule.matches(&request), "{} {}", rule, host);
            }
        }
    }
}
