//! Somebody else's words, on their way to people.

/// Words from outside as one line of at most `longest` characters, the `…` at the end of what is cut included.
///
/// White space of any kind becomes plain spaces; what a terminal would act on, or what turns the direction of writing, becomes U+FFFD.
pub fn one_line(text: &str, longest: usize) -> String {
    let mut letters = text.chars().map(|letter| match letter {
        space if space.is_whitespace() => ' ',
        letter if is_harmless(letter) => letter,
        _ => char::REPLACEMENT_CHARACTER,
    });
    let mut line: String = letters.by_ref().take(longest).collect();
    if letters.next().is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// Whether a letter is neither a control character nor one of those that turn the direction of writing (Unicode's UAX #9, section 2)
/// or end a line (U+2028, U+2029).
pub fn is_harmless(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether an address, with or without its scheme, port and path, leads whoever follows it to their own machine: `localhost` and
/// what is below it (RFC 6761 section 6.3), and loopback addresses.
pub fn leads_home(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None if place.matches(':').count() > 1 => place,
        None => place.split(':').next().unwrap_or_default(),
    };
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_outside_are_one_harmless_line() {
        assert_eq!(one_line("two\r\n\tlines\x1b[2J \u{202e}back\u{7}", 80), "two   lines\u{fffd}[2J \u{fffd}back\u{fffd}");
        assert_eq!((one_line("äöüß", 4), one_line("äöüß!", 4)), ("äöüß".to_owned(), "äöü…".to_owned()));
    }

    #[test]
    fn addresses_that_lead_home_are_known_in_every_form() {
        for address in [
            "localhost",
            "LOCALHOST.:7766",
            "http://shop.localhost:8080/",
            "127.0.0.1",
            "ssh://git@127.9.9.9:22/x",
            "::1",
            "https://[::1]:443/",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(leads_home(address), "{address}");
        }
        for address in
            ["shop.example.com", "https://127.0.0.1.example.com/localhost", "10.0.0.1:80", "2001:db8::1", "notlocalhost", ""]
        {
            assert!(!leads_home(address), "{address}");
        }
    }
}
