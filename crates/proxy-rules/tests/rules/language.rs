//! What each matcher takes, dialect by dialect.

use coracle_proxy_rules::{Dialect, Rule, domains};

use crate::request::{Request, get};

fn v3(text: &str) -> Rule {
    Rule::parse(text, Dialect::V3).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn v2(text: &str) -> Rule {
    Rule::parse(text, Dialect::V2).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn check(rule: &Rule, yes: &[Request], no: &[Request]) {
    for request in yes {
        assert!(rule.matches(request), "{} should match {request:?}", rule.text());
    }
    for request in no {
        assert!(!rule.matches(request), "{} should not match {request:?}", rule.text());
    }
}

#[track_caller]
fn urls(rule: &Rule, yes: &[&str], no: &[&str]) {
    let requests = |urls: &[&str]| urls.iter().map(|url| get(url)).collect::<Vec<_>>();
    check(rule, &requests(yes), &requests(no));
}

#[test]
fn hosts_are_compared_without_case_port_and_final_dot() {
    for text in ["Host(`shop.example`)", "Host(`SHOP.Example`)", "host(\"shop.example.\")", "HOST(`shop.example`,)"] {
        urls(
            &v3(text),
            &["shop.example", "SHOP.EXAMPLE:8080/a", "shop.example./"],
            &["example", "www.shop.example", "shop.examples", ""],
        );
    }
    urls(&v3("Host(`2001:db8::7`)"), &["[2001:db8::7]", "[2001:DB8::7]:443/"], &["[2001:db8::8]"]);
    urls(&v3("Host(`[2001:db8::7]`)"), &["[2001:db8::7]"], &["[2001:db8::8]"]);
    urls(&v3("Host(`192.0.2.4`)"), &["192.0.2.4:80"], &["192.0.2.40"]);
}

#[test]
fn hosts_with_stars_take_names_below() {
    urls(
        &v3("Host(`*.shop.example`)"),
        &["a.shop.example", "A.shop.example."],
        &["shop.example", "a.b.shop.example", "ashop.example"],
    );
    urls(&v3("Host(`**.shop.example`)"), &["a.shop.example", "a.b.shop.example"], &["shop.example", "ashop.example"]);
    let both = v3("Host(`*.A.example`) || Host(`b.example`) || Host(`*.a.example`) || !Host(`*.c`)");
    assert_eq!(both.hosts(), ["b.example"]);
    assert_eq!(both.wildcards(), ["*.a.example"]);
    assert_eq!(v3("Host(`**.a.b`)").priority(), v3("Host(`*.a.b`)").priority() - 1);
}

#[test]
fn host_regexps_search_and_look_at_lower_case() {
    urls(&v3("HostRegexp(`^[a-z-]+\\.shop\\.example$`)"), &["a-b.shop.example:81", "A.SHOP.example"], &["a.b.shop.example"]);
    urls(&v3("HostRegexp(`shop`)"), &["my.shop.example", "workshop"], &["sho.p"]);
    urls(&v3("HostRegexp(`^SHOP$`)"), &[], &["SHOP", "shop"]);
    urls(&v3("HostRegexp(`(?i)^SHOP$`)"), &["shop"], &[]);
}

#[test]
fn paths_are_whole_or_beginnings() {
    urls(&v3("Path(`/api`)"), &["h/api", "h/api?x=/"], &["h/api/", "h/API", "h/apiary", "h/"]);
    urls(&v3("PathPrefix(`/api`)"), &["h/api", "h/api/", "h/apiary"], &["h/a/api", "h/"]);
    urls(&v3("PathRegexp(`\\.(jpeg|png)$`)"), &["h/a/b.png", "h/.jpeg"], &["h/b.png/", "h/b-png", "h/?b.png"]);
    urls(&v3("Path(`/`)"), &["h", "h/"], &["h/a"]);
}

#[test]
fn paths_are_seen_decoded_but_for_what_is_reserved() {
    urls(&v3("Path(`/a b`)"), &["h/a%20b"], &["h/a+b", "h/a%2520b"]);
    urls(&v3("Path(`/café`)"), &["h/caf%C3%A9", "h/caf%c3%a9"], &["h/cafe"]);
    urls(&v3("PathPrefix(`/private`)"), &["h/%70rivate/x"], &["h/%2570rivate"]);
    // A slash that is encoded is no slash, whatever the case of its digits.
    urls(&v3("Path(`/a/b`)"), &["h/a/b"], &["h/a%2Fb", "h/a%2fb"]);
    urls(&v3("Path(`/a%2Fb`)"), &["h/a%2Fb", "h/a%2fb"], &["h/a/b", "h/a%252Fb"]);
    urls(&v3("Path(`/100%25`)"), &["h/100%25"], &["h/100%", "h/100"]);
    urls(&v3("Path(`/%zz`)"), &["h/%zz"], &["h/%ZZ"]);
    urls(&v2("Path(`/{file}.txt`)"), &["h/a%20b.txt"], &["h/a/b.txt", "h/.txt"]);
}

#[test]
fn methods_are_written_in_any_case_and_sent_in_one() {
    check(&v3("Method(`get`)"), &[get("h")], &[get("h").method("get"), get("h").method("POST")]);
    check(&v2("Method(`PUT`, `PATCH`)"), &[get("h").method("PATCH")], &[get("h")]);
}

#[test]
fn headers_have_one_value_that_fits() {
    let chain = get("h").header("x-team", "red").header("X-Team", "blue");
    check(&v3("Header(`X-Team`, `blue`)"), std::slice::from_ref(&chain), &[get("h"), get("h").header("X-Team", "BLUE")]);
    check(
        &v3("HeaderRegexp(`X-TEAM`, `^(blue|green)$`)"),
        std::slice::from_ref(&chain),
        &[get("h").header("X-Team", "dark blue")],
    );
    check(&v2("Headers(`X-Team`, `red`, `X-Room`, `1`)"), &[chain.clone().header("X-Room", "1")], std::slice::from_ref(&chain));
    check(&v2("HeadersRegexp(`X-Team`, `e`, `X-Room`, `[0-9]`)"), &[chain.clone().header("X-Room", "7")], &[chain]);
}

#[test]
fn queries_are_decoded_before_they_are_compared() {
    urls(
        &v3("Query(`q`, `a b`)"),
        &["h?q=a+b", "h/?x&q=a%20b", "h?q=c&q=a+b", "h?%71=a+b"],
        &["h?q=a%2Bb", "h?Q=a+b", "h?q", "h"],
    );
    urls(&v3("Query(`mobile`)"), &["h?mobile", "h?mobile=&a=b"], &["h?mobile=1", "h?mobiles"]);
    urls(&v3("QueryRegexp(`v`, `^[0-9]+$`)"), &["h?v=12", "h?v=x&v=%31"], &["h?v=", "h?v=1a"]);
    urls(&v3("QueryRegexp(`v`)"), &["h?v"], &["h?v=1"]);
    // What is malformed is not there.
    urls(&v3("Query(`q`, `a`)"), &["h?%zz=1&q=a"], &["h?q=a%z", "h?q=a;b", "h?x;q=a"]);
}

#[test]
fn queries_of_v2_are_pairs_and_templates() {
    urls(&v2("Query(`a=b`, `c=d`)"), &["h?c=d&a=b"], &["h?a=b", "h?a=b&c=e"]);
    urls(&v2("Query(`a=b=c`)"), &["h?a=b=c", "h?a=b%3Dc"], &["h?a=b"]);
    urls(&v2("Query(`id={id:[0-9]+}`)"), &["h?id=12"], &["h?id=x12", "h?id="]);
    urls(&v2("Query(`id=`)"), &["h?id", "h?id=1"], &["h?x=1"]);
    urls(&v2("Query(`a`, `b.c`)"), &["h?a=b.c"], &["h?a=bxc"]);
    urls(&v2("Query(`a=1`)"), &["h?a=1&a=2"], &["h?a=2&a=1"]);
}

#[test]
fn client_addresses_and_networks() {
    check(&v3("ClientIP(`192.0.2.0/24`)"), &[get("h"), get("h").from("::ffff:192.0.2.9")], &[get("h").from("192.0.3.1")]);
    check(&v3("ClientIP(`::ffff:192.0.2.1`)"), &[get("h")], &[get("h").from("::1")]);
    check(&v3("ClientIP(`::ffff:192.0.2.0/120`)"), &[get("h")], &[get("h").from("::1")]);
    check(&v3("ClientIP(`2001:db8::5/32`)"), &[get("h").from("2001:db8:1::")], &[get("h"), get("h").from("2001:db9::")]);
    check(&v2("ClientIP(`10.0.0.1`, `192.0.2.1`)"), &[get("h")], &[get("h").from("10.0.0.2")]);
}

#[test]
fn templates_of_v2() {
    urls(
        &v2("HostRegexp(`{sub:[a-z]+}.shop.example`, `shop.{tld}`)"),
        &["a.shop.example", "A.SHOP.EXAMPLE", "shop.test"],
        &["1.shop.example", "shop.a.test", "xshop.test"],
    );
    // Outside of the braces everything is plain.
    urls(&v2("HostRegexp(`a.example`)"), &["a.example"], &["axexample"]);
    urls(&v2("Path(`/u/{id:[0-9]{2}}/x`)"), &["h/u/42/x"], &["h/u/4/x", "h/u/42/x/"]);
    urls(&v2("PathPrefix(`/u/{id}/`, `/v`)"), &["h/u/42/x", "h/very"], &["h/u//x", "h/u/42"]);
    urls(&v2("Path(`/{a:x|y}`)"), &["h/x", "h/y"], &["h/xy"]);
}

#[test]
fn operators_bind_as_usual() {
    let rule = v3("Path(`/a`) || Path(`/b`) && Host(`h`)");
    urls(&rule, &["x/a", "h/b"], &["x/b"]);
    urls(&v3("(Path(`/a`) || Path(`/b`)) && Host(`h`)"), &["h/a", "h/b"], &["x/a"]);
    urls(&v3("!Path(`/a`) && Host(`h`)"), &["h/b"], &["h/a", "x/b"]);
    urls(&v3("!(Path(`/a`) && !Host(`h`))"), &["h/a", "x/b"], &["x/a"]);
    urls(&v3("\n!!\tPath( `/a` )\n\n|| (((Path(\"/b\"))))"), &["h/a", "h/b"], &["h/c"]);
}

#[test]
fn texts_between_double_quotes_have_escapes() {
    urls(&v3(r#"Path("/\x61\u0062\143\"\\")"#), &["h/abc\"\\"], &[]);
    urls(&v3(r#"PathRegexp("^/\\d$")"#), &["h/7"], &["h/d"]);
    for wrong in [r#"Path("/\d")"#, r#"Path("/\x4")"#, r#"Path("/\400")"#, r#"Path("/\ud800")"#, "Path(\"/\n\")", r#"Path("/\"#] {
        assert!(Rule::parse(wrong, Dialect::V3).is_err(), "{wrong}");
    }
}

#[test]
fn regular_expressions_are_those_of_re2() {
    let cases = [
        (r"^/{a}{2}$", vec!["h/{a}}"], vec!["h/{a}", "h/{a}{2}"]),
        (r"^/{}{,2}$", vec!["h/{}{,2}"], vec![]),
        (r"^/\d\w\s$", vec!["h/1_%20"], vec!["h/%D9%A1_%20", "h/1%C3%A9%20"]),
        (r"^/[\d.]\D[\W]$", vec!["h/.x-"], vec!["h/x1-", "h/1xx"]),
        (r"^/[[a&&~~+--b]+$", vec!["h/[&,-~b"], vec!["h/c"]),
        (r"^/[]-_[:upper:]]+$", vec!["h/]^_AZ"], vec!["h/a"]),
        (r"^/[^\]]\]$", vec!["h/a]"], vec!["h/]]"]),
        (r"^/\Qa.b*\E+$", vec!["h/a.b**"], vec!["h/axb*"]),
        (r"^/\<\>\_\x41\x{42}\pL$", vec!["h/%3C%3E_ABé"], vec!["h/<>_AB1"]),
        // é is no word character there, so the word ends before it and another begins after it.
        (r"\bcafé\b", vec!["h/cafés"], vec!["h/café"]),
        (r"(?i)^/(?P<x>A)(?:b)$", vec!["h/aB"], vec![]),
    ];
    for (pattern, yes, no) in cases {
        urls(&v3(&format!("PathRegexp(`{pattern}`)")), &yes, &no);
    }
    for wrong in ["(", ")", "*a", "[a", r"\", r"\8", "(?x)a", "(?u)a", "[z-a]", "a{2000000}", "(?=a)"] {
        assert!(Rule::parse(&format!("PathRegexp(`{wrong}`)"), Dialect::V3).is_err(), "{wrong}");
    }
}

#[test]
fn hosts_are_those_under_no_not() {
    let rule =
        v3("Host(`A.example.`) && (Path(`/x`) || Host(`b`)) || !Host(`c`) && !(!Host(`d`) || Host(`e`)) || Host(`a.example`)");
    assert_eq!(rule.hosts(), ["a.example", "b", "d"]);
    assert_eq!(v2("Host(`a`,`B`) && !HostHeader(`c`)").hosts(), ["a", "b"]);
    assert_eq!(v3("HostRegexp(`a`)").hosts(), [""; 0]);
}

#[test]
fn demanded_hosts_are_those_without_which_nothing_matches() {
    for (rule, hosts) in [
        ("Host(`A.example`) && PathPrefix(`/host(`)", Some(vec!["a.example"])),
        (r#"Host("a.example") && !Method(`GET`)"#, Some(vec!["a.example"])),
        ("Host(`b`) || (Host(`a`) && Path(`/`))", Some(vec!["a", "b"])),
        ("Host(`*.a`) || Host(`**.b`)", Some(vec!["**.b", "*.a"])),
        ("PathPrefix(`/`) && (Host(`a`) || HostRegexp(`b`)) && Host(`c`)", Some(vec!["c"])),
        ("!(!Host(`a`) || Path(`/`))", Some(vec!["a"])),
        ("Host(`a`) || PathPrefix(`/`)", None),
        ("PathRegexp(`^/(host()|)|^/`)", None),
        ("Header(`X`, `Host(a)`)", None),
        ("HostRegexp(`^a$`)", None),
        ("!Host(`a`)", None),
        ("!(Host(`a`) && Host(`b`))", None),
    ] {
        let demanded = v3(rule).demanded_hosts();
        assert_eq!(demanded, hosts.map(|hosts| hosts.into_iter().map(str::to_owned).collect()), "{rule}");
    }
    assert_eq!(v2("Host(`B`, `a`)").demanded_hosts(), Some(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn domains_are_read_without_a_dialect() {
    assert_eq!(domains("Host(`A`,`b`) && HostRegexp(`c`) || !Host(`d`) || Host()").unwrap(), ["a", "b"]);
    assert!(domains("Fost(`a`)").is_err());
    assert!(domains("Host(`a`").is_err());
}

#[test]
fn v2_is_shown_in_v3_where_that_can_say_it() {
    let shown = [
        ("Host(`a`, `B`)", "Host(`a`) || Host(`b`)"),
        ("HostHeader(`a`) && Path(`/x`,`/y`)", "Host(`a`) && (Path(`/x`) || Path(`/y`))"),
        ("!Method(`get`,`put`)", "!(Method(`GET`) || Method(`PUT`))"),
        ("Headers(`A`,`1`,`B`,`2`,`a`,`3`)", "Header(`B`, `2`) && Header(`a`, `3`)"),
        ("Path(`/{a}/b.c`)", "PathRegexp(`^/(?:[^/]+)/b\\.c$`)"),
        ("ClientIP(`10.1.2.3/8`)", "ClientIP(`10.0.0.0/8`)"),
        ("  Query(`a=b`) ", "Query(`a=b`)"),
        ("Host(`a b`)", "Host(`a b`)"),
        ("Host(`*.a`)", "Host(`*.a`)"),
    ];
    for (text, v3) in shown {
        assert_eq!(v2(text).to_string(), v3);
    }
    assert_eq!(v2("Query(`a=b`)").in_v3(), None);
    assert_eq!(v2("Host(`*.a`)").in_v3(), None, "v2 knows no stars");
    assert_eq!(v3("path(\"/`\\n\")").to_string(), "Path(\"/`\\n\")");
    assert_eq!(v3("(Host(`a`)&&((Path(`/b`))))").to_string(), "Host(`a`) && Path(`/b`)");
}

#[test]
fn priority_is_the_length_in_characters() {
    assert_eq!(v3("Path(`/é`)").priority(), 10);
}
