//! `coracle people key` and `coracle people token`: what people prove themselves by.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use coracle_api::{Client, Credential, CredentialKind, NewKey, TokenRequest};
use coracle_model::{CredentialId, PersonName};
use serde_json::json;

use super::super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// Bytes of a file with keys.
const LONGEST: u64 = 256 * 1024;

/// Add or remove SSH public keys
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle people key add ana ~/ana.pub
  curl -s https://github.com/ana.keys | coracle people key add ana
  coracle people key remove ana c7")]
pub(super) struct KeyArguments {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Add the SSH public keys of a file, one per line
    Add {
        /// Whose
        name: PersonName,
        /// The file; - is standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Remove a key; what goes on by it ends
    Remove {
        /// Whose
        name: PersonName,
        /// Its number, as in c7, or its fingerprint
        key: String,
    },
}

/// Create or revoke tokens
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle people token create ana --label ci
  coracle people token revoke ana c8")]
pub(super) struct TokenArguments {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Make a token; it is shown once and kept by nobody but you
    ///
    /// It goes into CORACLE_TOKEN, or is git's password.
    Create {
        /// Whose
        name: PersonName,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true)]
        label: String,
    },
    /// Revoke a token; what goes on by it ends
    Revoke {
        /// Whose
        name: PersonName,
        /// Its number, as in c8
        token: String,
    },
}

/// Does what is asked about keys.
pub(super) async fn keys(arguments: KeyArguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    match arguments.verb {
        KeyVerb::Add { name, file } => {
            let mut added = Vec::new();
            for key in read_keys(&file)? {
                let credential = client.add_key(&name, &NewKey { key }).await?;
                let Credential { id, label, fingerprint, .. } = &credential;
                let fingerprint = fingerprint.as_deref().unwrap_or_default();
                context.output.tell(format!("{id} {fingerprint} {label}").trim_end());
                added.push(credential);
            }
            context.output.document(&added);
            Ok(DONE)
        }
        KeyVerb::Remove { name, key } => revoke(&client, &name, &key, CredentialKind::Key, context).await,
    }
}

/// Does what is asked about tokens.
pub(super) async fn tokens(arguments: TokenArguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    match arguments.verb {
        TokenVerb::Create { name, label } => {
            let made = client.create_token(&name, &TokenRequest { label }).await?;
            context.output.document(&made);
            // The token alone on standard output: for `> file` and `| pass insert`.
            context.output.line(made.token.expose());
            context.output.remark(format!("{} of {name}; it is not shown again", made.credential.id));
            Ok(DONE)
        }
        TokenVerb::Revoke { name, token } => revoke(&client, &name, &token, CredentialKind::Token, context).await,
    }
}

async fn revoke(
    client: &Client,
    name: &PersonName,
    which: &str,
    kind: CredentialKind,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let all = client.person(name).await?.credentials;
    let number = which.strip_prefix('c').unwrap_or(which).parse().ok().map(CredentialId);
    let is_it = |it: &&Credential| it.kind == kind && (Some(it.id) == number || it.fingerprint.as_deref() == Some(which));
    let found = all.iter().find(is_it).map(|it| it.id).ok_or_else(|| {
        let kind = kind.as_str();
        let own: Vec<String> = all.iter().filter(|it| it.kind.as_str() == kind).map(|it| it.id.to_string()).collect();
        let own = if own.is_empty() { "none".to_owned() } else { own.join(", ") };
        Failure::failed(format!("{name} has no {kind} {which:?}")).hint(format!("there is: {own}; `coracle people` lists all"))
    })?;
    client.revoke(name, found).await?;
    context.output.document(&json!({ "revoked": found }));
    context.output.tell(format!("{} {found} of {name} opens nothing any more", kind.as_str()));
    Ok(DONE)
}

/// The lines of a file that hold keys.
pub(super) fn read_keys(path: &Path) -> Result<Vec<String>, Failure> {
    let place = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |error: io::Error| Failure::failed(format!("cannot read {place}: {error}"));
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin().lock().take(LONGEST).read_to_string(&mut text),
        false => std::fs::File::open(path).map_err(failed)?.take(LONGEST).read_to_string(&mut text),
    };
    read.map_err(failed)?;
    // A private key must not go anywhere, not even to be refused there.
    if text.contains("PRIVATE KEY") {
        return Err(Failure::usage(format!("{place} holds a private key, which must not leave its machine"))
            .hint("hand in the file beside it that ends with .pub"));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    match keys.is_empty() {
        true => {
            Err(Failure::usage(format!("{place} holds no key"))
                .hint("an SSH public key is one line: `cat ~/.ssh/id_ed25519.pub`"))
        }
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, Failure> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_keys(file.path())
    }

    #[test]
    fn each_line_is_a_key_and_a_private_one_stays_here() {
        assert_eq!(read("# mine\nssh-ed25519 A a\r\n\n ssh-ed25519 B b\n").unwrap(), ["ssh-ed25519 A a", "ssh-ed25519 B b"]);
        assert_eq!(read("\n").unwrap_err().exit_code(), 2);
        let private = read("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n").unwrap_err();
        assert!(private.told().contains("private") && !private.told().contains("hunter2"));
        assert_eq!(read_keys(Path::new("/nowhere/x")).unwrap_err().exit_code(), 1);
    }
}
