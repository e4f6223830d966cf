//! What a visitor asks to have run, read by ourselves: there is no shell behind this door. Git asks for `git-receive-pack 'PATH'` or
//! `git-upload-pack 'PATH'`, always quoted (git's `sq_quote`), and a path that is an app's name needs no other quoting. Whatever
//! is written in any other way is not what git writes.

use coracle_git_door::Service;
use coracle_model::AppName;

/// Bytes of a command that are looked at.
const LONGEST: usize = 256;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// A fetch or a push of one app.
    Git { service: Service, app: AppName },
    /// The API, for Coracle's own client.
    Api,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("this door serves git and Coracle's own client: there is no shell here, and no other command")]
    NotServed,
    #[error("this is not the name of a repository; it is the app's, as in shop.git")]
    NotARepository,
}

impl Request {
    /// Reads the command of an `exec` request (RFC 4254 section 6.5). `api` is what Coracle's client asks for, to the letter.
    pub(crate) fn parse(command: &[u8], api: &str) -> Result<Self, RequestError> {
        if command == api.as_bytes() {
            return Ok(Self::Api);
        }
        let text = std::str::from_utf8(command).ok().filter(|text| text.len() <= LONGEST).ok_or(RequestError::NotServed)?;
        let (word, path) = match text.strip_prefix("git ") {
            // As git was called before it had one program for everything, and as some call it again.
            Some(rest) => rest.split_once(' ').map(|(word, path)| (format!("git-{word}"), path)),
            None => text.split_once(' ').map(|(word, path)| (word.to_owned(), path)),
        }
        .ok_or(RequestError::NotServed)?;
        let service = Service::named(&word).ok_or(RequestError::NotServed)?;
        let path = path.strip_prefix('\'').and_then(|path| path.strip_suffix('\'')).ok_or(RequestError::NotARepository)?;
        let name = path.strip_prefix('/').unwrap_or(path);
        let name = name.strip_suffix('/').unwrap_or(name);
        let name = name.strip_suffix(".git").unwrap_or(name);
        let app = name.parse().map_err(|_| RequestError::NotARepository)?;
        Ok(Self::Git { service, app })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(command: &[u8]) -> Result<Request, RequestError> {
        Request::parse(command, "coracle dial")
    }

    #[test]
    fn the_api_is_asked_for_to_the_letter() {
        assert_eq!(parse(b"coracle dial"), Ok(Request::Api));
        for other in
            ["coracle dial ", " coracle dial", "coracle  dial", "coracle dial --state /x", "coracle", "dial", "coracle dial;id"]
        {
            assert_eq!(parse(other.as_bytes()), Err(RequestError::NotServed), "{other:?}");
        }
    }

    #[test]
    fn what_git_writes_is_understood() {
        for (command, service) in [
            ("git-receive-pack 'shop.git'", Service::ReceivePack),
            ("git-upload-pack '/shop.git'", Service::UploadPack),
            ("git-upload-pack '/shop'", Service::UploadPack),
            ("git-upload-pack 'shop.git/'", Service::UploadPack),
            ("git receive-pack '/shop.git'", Service::ReceivePack),
        ] {
            assert_eq!(parse(command.as_bytes()), Ok(Request::Git { service, app: "shop".parse().unwrap() }), "{command}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for command in [
            "",
            "id",
            "sh",
            "git",
            "git ",
            "git-receive-pack",
            "git-upload-archive 'shop.git'",
            "git-shell -c x",
            "scp -t /",
            "git config 'shop'",
            "/usr/bin/git-receive-pack 'shop.git'",
            "GIT-RECEIVE-PACK 'shop.git'",
            " git-receive-pack 'shop.git'",
            "git-receive-pack; id 'shop.git'",
            "git-receive-pack\n'shop.git'",
            "git-receive-pack\t'shop.git'",
            "env git-receive-pack 'shop.git'",
        ] {
            assert_eq!(parse(command.as_bytes()), Err(RequestError::NotServed), "{command:?}");
        }
        for path in [
            "shop.git",
            "\"shop.git\"",
            "'shop.git",
            "shop.git'",
            "'shop.git' ",
            "'shop.git' x",
            "'shop.git' 'x'",
            "  'shop.git'",
            "--strict 'shop.git'",
            "'--help'",
            "'-x'",
            "'../shop.git'",
            "'/../shop.git'",
            "'//shop.git'",
            "'/git/shop.git'",
            "'~/shop.git'",
            "'shop.git;id'",
            "'$(id).git'",
            "'`id`'",
            "'shop'\\''.git'",
            "'shop.git\0'",
            "'shop\n.git'",
            "'SHOP'",
            "''",
            "'/'",
            "'.git'",
            "'shop.git.git.git'",
            "'shop%2e'",
            "'sh\u{f6}p'",
            "'*'",
            "'shop|id'",
            "'a b'",
        ] {
            let command = format!("git-receive-pack {path}");
            assert_eq!(parse(command.as_bytes()), Err(RequestError::NotARepository), "{command:?}");
        }
        assert_eq!(parse(b"git-receive-pack '\xff'"), Err(RequestError::NotServed));
        let long = format!("git-receive-pack '{}'", "a".repeat(300));
        assert_eq!(parse(long.as_bytes()), Err(RequestError::NotServed));
    }
}
