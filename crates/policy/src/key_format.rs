//! Keys that can be told by their looks: formats that their issuers document.

/// A format.
struct Format {
    /// Whose it is.
    name: &'static str,
    begins: &'static str,
    /// What may follow.
    takes: fn(u8) -> bool,
    /// How much of it, at least.
    least: usize,
    /// And at most.
    most: usize,
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn wide(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn dotted(byte: u8) -> bool {
    wide(byte) || byte == b'.'
}

const fn format(name: &'static str, begins: &'static str, takes: fn(u8) -> bool, least: usize, most: usize) -> Format {
    Format { name, begins, takes, least, most }
}

const MANY: usize = 512;

const FORMATS: &[Format] = &[
    format("an AWS access key", "AKIA", upper, 16, 16),
    format("a temporary AWS access key", "ASIA", upper, 16, 16),
    format("a GitHub token", "ghp_", alphanumeric, 36, 255),
    format("a GitHub token", "gho_", alphanumeric, 36, 255),
    format("a GitHub token", "ghs_", alphanumeric, 36, 255),
    format("a GitHub token", "ghu_", alphanumeric, 36, 255),
    format("a GitHub token", "github_pat_", wide, 50, 255),
    format("a GitLab token", "glpat-", wide, 20, 255),
    format("a Stripe key", "sk_live_", alphanumeric, 20, 255),
    format("a Stripe key", "rk_live_", alphanumeric, 20, 255),
    format("a Slack token", "xoxb-", wide, 20, 255),
    format("a Slack token", "xoxp-", wide, 20, 255),
    format("a Slack token", "xoxa-", wide, 20, 255),
    format("a Slack token", "xoxs-", wide, 20, 255),
    format("a Google API key", "AIza", wide, 35, 35),
    format("an npm token", "npm_", alphanumeric, 36, 36),
    format("a PyPI token", "pypi-AgE", wide, 50, MANY),
    format("a SendGrid key", "SG.", dotted, 60, 70),
    format("an Anthropic key", "sk-ant-", wide, 40, MANY),
    format("an OpenAI key", "sk-proj-", wide, 40, MANY),
];

/// Whose key a text has in it, if it has one that can be told.
pub(crate) fn known_key(text: &str) -> Option<&'static str> {
    if has_private_key(text) {
        return Some("a private key");
    }
    FORMATS.iter().find(|format| format.is_in(text)).map(|format| format.name)
}

impl Format {
    fn is_in(&self, text: &str) -> bool {
        text.match_indices(self.begins).any(|(at, _)| {
            let before = text[..at].bytes().next_back();
            let rest = &text.as_bytes()[at + self.begins.len()..];
            let length = rest.iter().take(self.most + 1).take_while(|byte| (self.takes)(**byte)).count();
            let ends = rest.get(length).is_none_or(|byte| !alphanumeric(*byte));
            // What is made up for documentation repeats itself or says so.
            let key = &rest[..length];
            let distinct = key.iter().collect::<std::collections::BTreeSet<_>>().len();
            before.is_none_or(|byte| !alphanumeric(byte) && byte != b'_')
                && (self.least..=self.most).contains(&length)
                && ends
                && distinct >= 8
                && !key.windows(7).any(|part| part.eq_ignore_ascii_case(b"example"))
        })
    }
}

/// Whether a private key that needs no password stands in the text (RFC 7468, RFC 1421, OpenSSH's PROTOCOL.key).
pub(crate) fn has_private_key(text: &str) -> bool {
    text.match_indices("-----BEGIN ").any(|(at, begin)| {
        let rest = &text[at + begin.len()..];
        let Some((kind, body)) = rest.split_once("-----") else { return false };
        let is_private = kind == "PRIVATE KEY" || kind.ends_with(" PRIVATE KEY") && kind != "ENCRYPTED PRIVATE KEY";
        // `\n` may be written out, in JSON and in variables.
        let body: String = body.chars().take(400).collect::<String>().replace("\\n", "\n");
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let has_data = body.split_whitespace().take(3).any(|line| line.len() >= 32 && line.bytes().all(is_base64));
        is_private && has_data && !body.contains("ENCRYPTED")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_by_their_looks_and_documentation_is_not_one() {
        let key = |begins: &str, length: usize| {
            let letters = "Q7bR2xKd9LmW4tZp8VnC3yHs6JgFa5Ee1Uu0Ii".chars().cycle();
            format!("{begins}{}", letters.take(length).collect::<String>())
        };
        for text in [
            format!("AWS_KEY={}", key("AKIA", 16).to_uppercase()),
            key("ghp_", 36),
            format!("x '{}' y", key("sk_live_", 24)),
            key("xoxb-", 50),
            format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n", "MIIEpAIBAAKCAQEA".repeat(4)),
            format!("\"-----BEGIN PRIVATE KEY-----\\n{}\\n\"", "MIIEpAIBAAKCAQEA".repeat(4)),
        ] {
            assert!(known_key(&text).is_some(), "{text}");
        }
        for text in [
            "AKIAIOSFODNN7EXAMPLE",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "sk_live_",
            "MASKAKIAQ7BR2XKD9LMW4TZPMORE",
            "grep -q '-----BEGIN PRIVATE KEY-----' key.pem",
            "-----BEGIN PUBLIC KEY-----\nMIIEpAIBAAKCAQEAMIIEpAIBAAKCAQEAMIIEpAIBAAKCAQEA",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIEpAIBAAKCAQEAMIIEpAIBAAKCAQEAMIIEpAIBAAKCAQEA",
            "",
        ] {
            assert_eq!(known_key(text), None, "{text}");
        }
    }
}
