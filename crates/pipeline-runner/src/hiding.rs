//! Leaving the values of secrets out of output.

use coracle_model::{EnvName, Secret};

/// Shorter secrets are not looked for: they would be found everywhere.
const SHORTEST_SECRET: usize = 6;

/// Leaves values out of lines: those of secrets, and the lines of those that have several, as a program prints them.
#[derive(Debug, Clone, Default)]
pub struct Hiding(Vec<Secret>);

impl Hiding {
    /// Hides these, from 6 characters on.
    pub fn new(secrets: &[(EnvName, Secret)]) -> Self {
        let mut hiding = Self::default();
        hiding.add(secrets);
        hiding
    }

    /// Hides these as well.
    pub fn add(&mut self, secrets: &[(EnvName, Secret)]) {
        let values = secrets.iter().map(|(_, value)| value.expose());
        let pieces = values.flat_map(|value| std::iter::once(value).chain(value.lines()));
        let hidden = &mut self.0;
        hidden.extend(pieces.map(str::trim).filter(|piece| piece.len() >= SHORTEST_SECRET).map(Secret::new));
        // The longest first, since one may be the beginning of another.
        hidden.sort_by_key(|secret| (std::cmp::Reverse(secret.expose().len()), secret.expose().to_owned()));
        hidden.dedup_by_key(|secret| secret.expose().to_owned());
    }

    /// The line without them.
    pub fn clean(&self, mut text: String) -> String {
        for secret in self.0.iter().map(Secret::expose) {
            if text.contains(secret) {
                text = text.replace(secret, "***");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_are_hidden_by_lines_and_the_longest_first() {
        let secret = |name: &str, value: &str| (name.parse().unwrap(), Secret::new(value));
        let secrets = [
            secret("A", "abcdef"),
            secret("B", "abcdef123"),
            secret("KEY", "begin key\n  c2VjcmV0\nend\n"),
            secret("PIN", "1234"),
        ];
        let mut hiding = Hiding::new(&secrets[1..]);
        hiding.add(&secrets[..1]);
        let hidden: Vec<&str> = hiding.0.iter().map(Secret::expose).collect();
        assert_eq!(hidden, ["begin key\n  c2VjcmV0\nend", "abcdef123", "begin key", "c2VjcmV0", "abcdef"]);
        assert_eq!(hiding.clean("1234 abcdef123 abcdefg  c2VjcmV0.".to_owned()), "1234 *** ***g  ***.");
    }
}
