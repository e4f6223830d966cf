//! Rules that are refused: where, and with what advice.

use coracle_proxy_rules::{Dialect, Rule};

#[track_caller]
fn refused(text: &str, dialect: Dialect, offset: usize, says: &str) {
    let error = Rule::parse(text, dialect).expect_err(text);
    assert!(error.message.contains(says), "{text}: {error}");
    assert_eq!(error.offset, offset, "{text}: {error}");
    assert!(error.to_string().contains(&format!("byte {offset}")), "{error}");
}

#[test]
fn grammar() {
    let cases = [
        ("", 0, "empty"),
        ("  ", 2, "empty"),
        ("Host", 4, "expected `(`"),
        ("Host(", 5, "expected `)`"),
        ("Host(a)", 5, "between backticks or double quotes"),
        ("Host('a')", 5, "between backticks or double quotes"),
        ("Host(`a", 5, "no closing backtick"),
        ("Host(\"a", 5, "no closing double quote"),
        ("Host(`a` `b`)", 9, "expected `,` or `)`"),
        ("Host(`a`))", 9, "closes nothing"),
        ("(Host(`a`)", 10, "for the `(` at byte 0"),
        ("Host(`a`) Path(`/`)", 10, "expected `&&`, `||` or the end"),
        ("Host(`a`) & Path(`/`)", 10, "one `&`"),
        ("Host(`a`) | Path(`/`)", 10, "one `|`"),
        ("Host(`a`) &&", 12, "found the end"),
        ("|| Host(`a`)", 0, "expected a matcher"),
        ("Host(`a`) && é", 13, "found 'é'"),
        ("!", 1, "found the end"),
        ("()", 1, "expected a matcher"),
        ("Host(,)", 5, "between backticks"),
    ];
    for (text, offset, says) in cases {
        refused(text, Dialect::V3, offset, says);
        refused(text, Dialect::V2, offset, says);
    }
}

#[test]
fn names() {
    refused("Hots(`a`)", Dialect::V3, 0, "did you mean Host?");
    refused("Path(`/`) && PathPrefx(`/a`)", Dialect::V3, 13, "did you mean PathPrefix?");
    refused("Headers(`a`, `b`)", Dialect::V3, 0, "one of v2); did you mean Header?");
    refused("HeaderRegexp(`a`, `b`)", Dialect::V2, 0, "one of v3); did you mean HeadersRegexp?");
    refused("HostSNI(`a`)", Dialect::V3, 0, "for TCP routes");
    refused("HostSNIRegexp(`a`)", Dialect::V2, 0, "for TCP routes");
    refused("Bananas(`a`)", Dialect::V3, 0, "there are Host, HostRegexp");
    refused("PathRegexp(`/`)", Dialect::V2, 0, "one of v3)");
}

#[test]
fn arguments() {
    refused("Host()", Dialect::V3, 5, "expected 1 text between quotes, found 0");
    refused("Host(`a`, `b`)", Dialect::V3, 13, "found 2");
    refused("Header(`a`)", Dialect::V3, 10, "expected 2 texts");
    refused("Query(`a`,`b`,`c`)", Dialect::V3, 17, "expected 1 to 2 texts");
    refused("Header(`a`, ``)", Dialect::V3, 12, "empty");
    refused("Host(``)", Dialect::V2, 5, "empty");
    refused("Path(`/a`, ``)", Dialect::V2, 11, "empty");
    refused("Path(`a`)", Dialect::V3, 5, "begin with a /");
    refused("PathPrefix(`/a`, `b`)", Dialect::V2, 17, "begin with a /");
    refused("Host(`/`)", Dialect::V3, 5, "no host name");
    refused("Host(`*`)", Dialect::V3, 5, "a rule without Host is for all hosts");
    refused("Host(`a.*.b`)", Dialect::V3, 5, "no host name");
    refused("Host(`ä.example`)", Dialect::V3, 5, "xn--");
    refused("HostRegexp(`ä`)", Dialect::V2, 11, "xn--");
    refused("ClientIP(`10.0.0.0/33`)", Dialect::V3, 9, "no IP address or network");
    refused("ClientIP(`10.0.0.1`, `x`)", Dialect::V2, 21, "no IP address or network");
    refused("HostRegexp(`(a`)", Dialect::V3, 11, "unclosed group");
    refused("HeaderRegexp(`a`, `[`)", Dialect::V3, 18, "a [ has no ]");
    refused("Headers(`a`, `b`, `c`)", Dialect::V2, 18, "has no value");
    refused("Query(`a`)", Dialect::V2, 6, "key=value");
    refused("Query(`a={b`)", Dialect::V2, 6, "do not pair up");
    refused("HostRegexp(`a}`)", Dialect::V2, 11, "do not pair up");
    refused("Path(`/{:x}`)", Dialect::V2, 5, "should be {name}");
    refused("Path(`/{x:}`)", Dialect::V2, 5, "should be {name}");
    refused("Path(`/{a:(}{b:)}`)", Dialect::V2, 5, "unclosed group");
}

#[test]
fn bounds() {
    let deep = |levels: usize| format!("{}Path(`/`){}", "(".repeat(levels), ")".repeat(levels));
    assert!(Rule::parse(&deep(63), Dialect::V3).is_ok());
    refused(&deep(64), Dialect::V3, 64, "within each other");
    refused(&deep(100_000), Dialect::V3, 64, "within each other");
    refused(&"!".repeat(100_000), Dialect::V3, 64, "within each other");
    refused(&"a".repeat(300_000), Dialect::V3, 256 * 1024, "longer than");
    refused(r"PathRegexp(`(?:(?:\pL{100}){100}){100}`)", Dialect::V3, 11, "more than 1048576 bytes");
    refused(&format!("PathRegexp(`{}a{}`)", "(".repeat(500), ")".repeat(500)), Dialect::V3, 11, "nest");
    let wide = vec!["Host(`a`)"; 20_000].join(" || ");
    assert!(Rule::parse(&wide, Dialect::V3).is_ok());
}
