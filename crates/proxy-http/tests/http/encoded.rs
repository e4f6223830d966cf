//! Percent-encoded characters in paths.

use coracle_proxy_http::EncodedCharacters;

#[test]
fn nul_is_refused_and_the_others_when_wished() {
    let ordinary = EncodedCharacters::default();
    for path in ["/", "/a%2fb", "/a%5C", "/%3b", "/%25", "/%3F", "/%23", "/%", "/%0", "/%zz", "/%20%41"] {
        assert!(ordinary.allow(path), "{path}");
    }
    assert!(!ordinary.allow("/a%00b") && !ordinary.allow("/%20%00"));
    let strict = EncodedCharacters::strict();
    for path in ["/a%2fb", "/a%2Fb", "/a%5C", "/a%5c", "/%00", "/%3b", "/%3B", "/%25", "/%3F", "/%3f", "/%23"] {
        assert!(!strict.allow(path), "{path}");
    }
    assert!(strict.allow("/a/b;c%20%41"));
    assert!(EncodedCharacters { slash: true, ..strict }.allow("/a%2fb"));
}
