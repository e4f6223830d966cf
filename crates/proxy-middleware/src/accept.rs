//! What a client accepts (RFC 9110, section 12.5).

use coracle_proxy_http::{Fields, Known};
use coracle_proxy_table::Encoding;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Html,
    Json,
    Text,
}

/// Thousandths, from 0 (not wanted) to 1000.
type Quality = u16;

/// The format that a client likes best; text if it does not care.
pub(crate) fn format(accept: Option<&str>) -> Format {
    let (mut html, mut json, mut text) = (0, 0, 0);
    for (range, quality) in members(accept.unwrap_or("*/*")) {
        let range = range.to_ascii_lowercase();
        let liked = match range.as_str() {
            "text/html" | "application/xhtml+xml" => &mut html,
            "text/plain" | "text/*" | "*/*" => &mut text,
            _ if range == "application/json" || range == "application/*" || range.ends_with("+json") => &mut json,
            _ => continue,
        };
        *liked = quality.max(*liked);
    }
    match html.max(json).max(text) {
        0 => Format::Text,
        best if best == html => Format::Html,
        best if best == json => Format::Json,
        _ => Format::Text,
    }
}

/// Of `offered`, the encoding that a client likes best; of those it likes equally well, the first. None if it would rather have
/// the content as it is.
pub(crate) fn encoding(fields: &Fields, offered: &[Encoding]) -> Option<Encoding> {
    let mut named: [Option<Quality>; 3] = [None; 3];
    let (mut identity, mut others) = (0, 0);
    for line in fields.get_all_known(Known::AcceptEncoding) {
        for (coding, quality) in members(std::str::from_utf8(line).unwrap_or_default()) {
            match coding {
                "*" => others = quality,
                coding if coding.eq_ignore_ascii_case("identity") => identity = quality,
                coding => {
                    if let Some(encoding) = encoding_named(coding) {
                        named[encoding as usize] = Some(quality);
                    }
                }
            }
        }
    }
    let mut best: Option<(Encoding, Quality)> = None;
    for encoding in offered {
        let quality = named[*encoding as usize].unwrap_or(others);
        if quality > 0 && quality >= identity && best.is_none_or(|(_, best)| quality > best) {
            best = Some((*encoding, quality));
        }
    }
    best.map(|(encoding, _)| encoding)
}

/// The encoding's name in `Content-Encoding`.
pub(crate) fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Gzip => "gzip",
        Encoding::Br => "br",
        Encoding::Zstd => "zstd",
    }
}

fn encoding_named(name: &str) -> Option<Encoding> {
    let names = [("gzip", Encoding::Gzip), ("x-gzip", Encoding::Gzip), ("br", Encoding::Br), ("zstd", Encoding::Zstd)];
    names.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, encoding)| encoding)
}

/// The members of a list with their qualities, 1000 where none is said. A quality that is none makes a member unwanted.
fn members(list: &str) -> impl Iterator<Item = (&str, Quality)> {
    list.split(',').filter_map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((name, quality.map_or(1000, thousandths)))
    })
}

fn thousandths(text: &str) -> Quality {
    match text.trim().parse::<f32>() {
        Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1000.0).round() as Quality,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn browsers_get_html_programs_json_and_tools_text() {
        for (accept, wanted) in [
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Format::Html),
            (Some("application/json, text/plain, */*"), Format::Json),
            (Some("application/problem+json"), Format::Json),
            (Some("*/*"), Format::Text),
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("image/png"), Format::Text),
            (Some("text/html;q=0, application/json;q=0.1"), Format::Json),
            (Some("TEXT/HTML ; q=0.5, application/json;q=0.4"), Format::Html),
            (Some("text/html;q=nonsense"), Format::Text),
        ] {
            assert_eq!(format(accept), wanted, "{accept:?}");
        }
    }

    #[test]
    fn encodings_go_by_quality_and_then_by_our_order() {
        use Encoding::{Br, Gzip, Zstd};
        let all = [Zstd, Br, Gzip];
        for (accept, offered, wanted) in [
            ("gzip, deflate, br, zstd", &all[..], Some(Zstd)),
            ("gzip, deflate, br", &all, Some(Br)),
            ("gzip;q=1.0, br;q=0.8, *;q=0.1", &all, Some(Gzip)),
            ("x-gzip", &all, Some(Gzip)),
            ("GZIP", &all, Some(Gzip)),
            ("*", &all, Some(Zstd)),
            ("*, zstd;q=0", &all, Some(Br)),
            ("*;q=0", &all, None),
            ("deflate", &all, None),
            ("", &all, None),
            ("identity, gzip;q=0.5", &all, None),
            ("identity;q=0.5, gzip", &all, Some(Gzip)),
            ("br", &[Gzip], None),
            ("gzip;q=2", &all, None),
        ] {
            let mut fields = Fields::new();
            fields.append("Accept-Encoding", accept).unwrap();
            assert_eq!(encoding(&fields, offered), wanted, "{accept}");
        }
        assert_eq!(encoding(&Fields::new(), &all), None);
    }
}
