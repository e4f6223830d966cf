//! The forges there are.

use std::fmt;
use std::str::FromStr;

use coracle_model::text::one_line;
use http::HeaderMap;

/// A kind of forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forge {
    /// github.com and GitHub Enterprise Server.
    GitHub,
    /// gitlab.com and GitLab of one's own.
    GitLab,
    /// Forgejo (codeberg.org) and Gitea, which speak the same.
    Forgejo,
    /// bitbucket.org.
    Bitbucket,
}

/// It is no forge that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no forge that is known: use github, gitlab, forgejo, gitea or bitbucket")]
pub struct ForgeError(String);

impl Forge {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::GitHub, Self::GitLab, Self::Forgejo, Self::Bitbucket];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Forgejo => "forgejo",
            Self::Bitbucket => "bitbucket",
        }
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub",
            Self::GitLab => "GitLab",
            Self::Forgejo => "Forgejo or Gitea",
            Self::Bitbucket => "Bitbucket",
        }
    }

    /// The forge that a host name tells, where it tells one.
    pub fn of_host(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let known = |name: &str, public: &str| host == public || host.split('.').next() == Some(name);
        if known("github", "github.com") {
            Some(Self::GitHub)
        } else if known("gitlab", "gitlab.com") {
            Some(Self::GitLab)
        } else if known("forgejo", "codeberg.org") || known("gitea", "gitea.com") {
            Some(Self::Forgejo)
        } else {
            (host == "bitbucket.org").then_some(Self::Bitbucket)
        }
    }

    /// The forge that a request says it comes from. Forgejo and Gitea say GitHub's headers as well, so they are looked for first.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let said = |names: &[&str]| names.iter().any(|name| headers.contains_key(*name));
        if said(&["x-forgejo-event", "x-gitea-event"]) {
            Some(Self::Forgejo)
        } else if said(&["x-gitlab-event"]) {
            Some(Self::GitLab)
        } else if said(&["x-github-event"]) {
            Some(Self::GitHub)
        } else {
            said(&["x-event-key"]).then_some(Self::Bitbucket)
        }
    }

    /// The user whose password a token is, for git over HTTPS.
    pub fn token_user(self) -> &'static str {
        match self {
            Self::GitHub => "x-access-token",
            Self::GitLab => "oauth2",
            Self::Forgejo => "coracle",
            Self::Bitbucket => "x-token-auth",
        }
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Forge {
    type Err = ForgeError;

    fn from_str(text: &str) -> Result<Self, ForgeError> {
        match text {
            "gitea" => Ok(Self::Forgejo),
            _ => Self::ALL.into_iter().find(|forge| forge.as_str() == text).ok_or_else(|| ForgeError(shown(text))),
        }
    }
}

/// Somebody else's word, short and without what a terminal would act on.
pub(crate) fn shown(text: &str) -> String {
    one_line(text, 80)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_tell_their_forge_where_they_can() {
        for (host, forge) in [
            ("github.com", Some(Forge::GitHub)),
            ("GitLab.example.com", Some(Forge::GitLab)),
            ("codeberg.org", Some(Forge::Forgejo)),
            ("gitea.lan", Some(Forge::Forgejo)),
            ("bitbucket.org", Some(Forge::Bitbucket)),
            ("git.example.com", None),
            ("notgithub.com", None),
        ] {
            assert_eq!(Forge::of_host(host), forge, "{host}");
        }
        assert_eq!("gitea".parse::<Forge>().unwrap(), Forge::Forgejo);
        assert!("x\u{1b}[2J".parse::<Forge>().unwrap_err().to_string().contains('\u{fffd}'));
    }

    #[test]
    fn forgejo_is_not_taken_for_the_github_it_also_says_it_is() {
        let mut headers = HeaderMap::new();
        headers.insert("x-github-event", "push".parse().unwrap());
        assert_eq!(Forge::of_headers(&headers), Some(Forge::GitHub));
        headers.insert("x-gitea-event", "push".parse().unwrap());
        assert_eq!(Forge::of_headers(&headers), Some(Forge::Forgejo));
        assert_eq!(Forge::of_headers(&HeaderMap::new()), None);
    }
}
