//! How the API is reached through SSH: a command on the far side relays its input and output to the API, after a line that says
//! that it does.
//!
//! Login shells write things of their own on the way in, so what stands before that line means nothing.

/// What is asked of the far side. It goes to a login shell there, and is constant: nothing of an address is ever part of it.
pub const DIAL_COMMAND: &str = "coracle dial";

/// What the line begins with; the number is that of this way of speaking.
const MARK: &str = "coracle-dial 1 ";

/// The line, on a line of its own whatever was written before it.
pub fn greeting(version: &str) -> String {
    format!("\n{MARK}{version}\n")
}

/// The version of whoever greets with this line; `None` if it is no greeting.
pub(crate) fn greeted(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n']);
    let version = line.strip_prefix(MARK)?;
    let is_plain = (1..=64).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_greeting_is_known_and_what_a_shell_says_is_not() {
        let line = greeting("0.1.0");
        assert_eq!(greeted(line.trim_start().as_bytes()).unwrap(), "0.1.0");
        for other in ["", "Welcome to Debian", "coracle-dial", "coracle-dial 1 ", "coracle-dial 2 x", "coracle-dial 1 a\x1b[2J"] {
            assert_eq!(greeted(other.as_bytes()), None, "{other:?}");
        }
    }
}
