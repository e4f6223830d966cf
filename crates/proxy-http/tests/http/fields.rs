//! Fields as a list.

use coracle_proxy_http::{BadField, Fields, Known};

fn lines(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
}

fn some() -> Fields {
    let mut fields = Fields::new();
    for (name, value) in [("Accept", "a"), ("X-One", "1"), ("accept", "b"), ("Cookie", "secret"), ("x-one", "2")] {
        fields.append(name, value).unwrap();
    }
    fields
}

#[test]
fn names_are_found_in_any_case() {
    let fields = some();
    assert_eq!(fields.get("ACCEPT"), Some(b"a".as_slice()));
    assert_eq!(fields.get_str("X-ONE"), Some("1"));
    assert_eq!(fields.get_all("x-One").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(fields.get_all_known(Known::Accept).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!((fields.count("accept"), fields.count("x-two"), fields.len()), (2, 0, 5));
    assert!(fields.contains("x-one") && !fields.contains("x-on") && fields.contains_known(Known::Cookie));
    assert_eq!(fields.get(""), None);
}

#[test]
fn fields_are_replaced_in_place_and_removed_everywhere() {
    let mut fields = some();
    fields.set("ACCEPT", " c ").unwrap();
    fields.set("X-New", "").unwrap();
    fields.set_known(Known::Cookie, "d").unwrap();
    assert_eq!(lines(&fields), ["ACCEPT: c", "X-One: 1", "cookie: d", "x-one: 2", "X-New: "]);
    assert!(fields.remove("X-ONE") && !fields.remove("x-one"));
    assert!(fields.remove_known(Known::Accept) && !fields.remove_known(Known::Accept));
    fields.retain(|name, _| name != "cookie");
    assert_eq!(lines(&fields), ["X-New: "]);
    fields.retain_known(|known, _, value| known != Known::Other || !value.is_empty());
    assert!(fields.is_empty());
}

#[test]
fn no_field_can_be_smuggled_into_another() {
    let mut fields = some();
    let before = fields.clone();
    for value in ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "\x7f"] {
        assert_eq!(fields.append("X", value), Err(BadField::Value));
        assert_eq!(fields.set("Accept", value), Err(BadField::Value));
        assert_eq!(fields.set_known(Known::Accept, value), Err(BadField::Value));
    }
    for name in ["", "a b", "a:", "a\r\n", "é", "a\0"] {
        assert_eq!(fields.append(name, "v"), Err(BadField::Name));
        assert_eq!(fields.set(name, "v"), Err(BadField::Name));
    }
    assert_eq!(fields.append(&"a".repeat(70_000), "v"), Err(BadField::Size));
    assert_eq!(fields.set_known(Known::Other, "v"), Err(BadField::Name));
    assert_eq!(fields, before);
}

#[test]
fn secrets_are_not_in_the_debug_form() {
    let text = format!("{:?}", some());
    assert!(text.contains("X-One") && text.contains("Cookie") && !text.contains("secret"), "{text}");
}
