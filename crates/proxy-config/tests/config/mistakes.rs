//! Mistakes as people see them.

use coracle_proxy_config::Place;

use crate::refused;

#[track_caller]
fn shows(text: &str, expected: &str) {
    let shown = refused(text).to_text("proxy.toml");
    assert!(shown.contains(expected.trim_matches('\n')), "{shown}\n--- should have ---\n{expected}");
}

#[test]
fn all_at_once_in_the_order_of_the_file() {
    let text = "workres = 2\n[routes.r]\nrule = \"Hots(`a`)\"\nservice = \"shp\"\nmiddlewares = [\"gzpi\"]\n[services.shop]\ntargets = 1\nballance = 1\n[middlewares.gzip.compress]\nencoding = 1\n";
    let mistakes = refused(text);
    let found: Vec<_> = mistakes
        .all
        .iter()
        .map(|mistake| (mistake.place.unwrap().line, mistake.key.as_str(), mistake.hint.as_deref().unwrap_or("")))
        .collect();
    let expected = [
        (1, "workres", "did you mean workers?"),
        (3, "routes.r.rule", ""),
        (4, "routes.r.service", "did you mean shop?"),
        (5, "routes.r.middlewares[0]", "did you mean gzip?"),
        (8, "services.shop.ballance", "did you mean balance?"),
        (10, "middlewares.gzip.compress.encoding", "did you mean encodings?"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn rules_are_pointed_into() {
    let text = "[routes.r]\nto = 1\nrule = 'Host(`é`) && Path(`x`)'\n";
    let place = refused(text).all[0].place;
    assert_eq!(place, Some(Place { line: 3, column: 14 }));
    shows(
        "[routes.r]\nto = 1\nrule = \"Path(`x`)\"",
        "\nproxy.toml:3:14: routes.r.rule: Path: \"x\" does not begin with a /\n 3 | rule = \"Path(`x`)\"\n   |              ^",
    );
    // With escapes there is no telling which byte is which.
    assert_eq!(refused("[routes.r]\nto = 1\nrule = \"Path(\\\"x\\\")\"").all[0].place, Some(Place { line: 3, column: 8 }));
}

#[test]
fn grammar_of_the_file() {
    shows("a = \n", "proxy.toml:1:5: ");
    shows("[sites.shop.example]\nto = 1", "proxy.toml:1:8: sites.shop: a name with dots needs quotes");
    shows("[sites.shop.example]\nto = 1", "put the whole name in quotes, as [sites.\"shop.example\"]");
    shows("[listen]\nhttp = {}", "listen.http: has no address");
    shows("[listen]", "names no listener");
    shows("[listen]\nhttp = []", "listen.http: names no address");
    shows("listen = 80", "expected a table, found an integer");
    shows("[sites.a]\nto = 1\ntls = false", "\n   = write \"off\"");
    shows("[listen]\nhttp = { address = \":1\", proxy_protocol = true }", "anybody could claim to be any client");
    shows("[listen]\na = \":1\"\nb = \":1\"", "[::]:1 is listed twice");
    shows("[services.\"a b\"]\ntargets = 1", "printable ASCII");
    shows("[services.s]\ntargets = \"db:5\"", "\"db\" is no IP address");
    shows("[sites.a]\nto = 1\n[routes.a]\nrule = \"Path(`/`)\"\nto = 1", "a route or service has this name already");
    shows("[middlewares.a.compres]", "did you mean compress?");
    shows("[middlewares.a.rate-limit]\nperiod = 5", "expected a length of time as");
    shows(
        "[middlewares.a.rate-limit]\naverage = \"x\"",
        "middlewares.a.rate-limit: invalid type: string \"x\", expected a whole number",
    );
    shows("[middlewares.a.rate-limit]\naverage = -1", "expected a whole number, 0 or more");
    shows("[middlewares.a.strip-prefix]\nprefixes = true", "expected a list, as [\"a\", \"b\"]");
    shows("[middlewares.a.headers]\nframe_deny = 1", "expected true or false");
    shows("[middlewares.a.rate-limit.source_criterion]\nip_stratgy = 1", "did you mean ip_strategy?");
}

#[test]
fn hashes_of_passwords_are_not_shown() {
    for text in [
        "[sites.a]\nto = 1\nbasic_auht = [\"ann:$2y$05$secret\"]",
        "[sites.a]\nto = 1\nbasic_auth = { ann = \"$apr1$secret\" }",
        "[middlewares.a.basic-auth]\nusers = { ann = \"{SHA}secret\" }",
        "[middlewares.a.basic-auth]\nuser = [\"ann:$2b$secret\"]",
        "[middlewares.a.basic-auth]\nusers = [\"ann:$2a$secret\", 5]",
    ] {
        let mistakes = refused(text);
        assert!(!format!("{mistakes} {mistakes:?}").contains("secret"), "{mistakes}");
    }
}

#[test]
fn too_many_are_counted() {
    let text: String = (0..100).map(|n| format!("unknown{n} = 1\n")).collect();
    let mistakes = refused(&text);
    assert_eq!(mistakes.all.len(), 31);
    assert!(mistakes.to_string().ends_with("70 more mistakes are not shown"));
}

#[test]
fn long_lines_are_cut() {
    let text = format!("workers = [{}\"x\"]", "1, ".repeat(1000));
    let shown = refused(&text).to_string();
    assert!(shown.lines().all(|line| line.chars().count() < 140), "{shown}");
}
