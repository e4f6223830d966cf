//! Connecting an app with a repository: what is asked for is looked at, what is missing is made, and all of it is written down.
//!
//! Whoever owns an app says where it is fetched from, and so where this server goes. The administrator may name any place. Whoever
//! has a role alone names places of the world outside: neither this machine nor its neighbours, and nothing without TLS or a host key,
//! so that a name that leads elsewhere tomorrow leads to somebody who cannot prove to be meant.

use std::net::IpAddr;
use std::time::Duration;

use coracle_api::{ForgeConnected, ForgeConnection, ForgeEvent, ForgeRequest, Problem, ProblemKind};
use coracle_forge::{ApiUrl, Branch, Forge, RepositoryUrl, Scheme, new_secret};
use coracle_git_door::host_keys;
use coracle_model::{AppName, Secret};
use coracle_ssh_door::{DeployKey, PublicKey};
use coracle_store::{ForgeKey, ForgeRecord};
use jiff::Timestamp;

use super::Forges;
use crate::access::Caller;
use crate::problems;

/// Bytes of a token.
const LONGEST_TOKEN: usize = 4096;

/// How long it may take to find out where a name leads.
const RESOLVING: Duration = Duration::from_secs(10);

/// What every webhook's path begins with.
pub(crate) const HOOKS: &str = "/hooks/";

fn invalid(detail: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Invalid, detail.to_string())
}

/// A request that was looked at.
struct Wanted {
    url: RepositoryUrl,
    forge: Forge,
    branch: Option<Branch>,
    api: ApiUrl,
    token: Option<Secret>,
}

impl Wanted {
    fn read(request: &ForgeRequest, caller: &Caller) -> Result<Self, Problem> {
        let url: RepositoryUrl = request.url.parse().map_err(invalid)?;
        let unknown = || {
            invalid(format!("what kind of forge {} is, its name does not tell", url.host()))
                .hint("say it with --kind github, gitlab, forgejo, gitea or bitbucket")
        };
        let said = request.kind.as_ref().map(|kind| kind.parse::<Forge>().map_err(invalid)).transpose()?;
        let forge = said.or_else(|| Forge::of_host(url.host())).ok_or_else(unknown)?;
        let api = match &request.api {
            Some(api) => {
                caller.administers("naming the address of a forge's API")?;
                api.parse::<ApiUrl>().map_err(invalid)?
            }
            None => ApiUrl::of(forge, &url),
        };
        if url.scheme() == Scheme::Http || !api.is_private() {
            caller.administers("fetching or reporting without TLS")?;
            if !request.plain_http {
                let detail = "without TLS, everybody on the way reads the token and writes what is deployed";
                return Err(invalid(detail).hint("use https:// or git@HOST:PATH; where that cannot be, say --plain-http"));
            }
        }
        let branch = request.branch.as_ref().map(|branch| branch.parse().map_err(invalid)).transpose()?;
        let token = request.token.as_deref().map(str::trim).map(checked_token).transpose()?;
        Ok(Self { url, forge, branch, api, token })
    }
}

fn checked_token(token: &str) -> Result<Secret, Problem> {
    let plain = |byte: u8| byte.is_ascii_graphic();
    match (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(plain) {
        true => Ok(Secret::new(token)),
        false => Err(invalid("a token is one plain word").hint("pipe it in: --token - < FILE")),
    }
}

/// Whether an address is one of the world outside: neither this machine's, nor its network's, nor kept for something else
/// (RFC 6890).
fn is_outside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let kept = a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b & 0xfe) == 18);
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast() || v4.is_documentation() || kept)
        }
        IpAddr::V6(v6) => {
            // Global unicast alone, without what stands for addresses of the other kind (6to4, Teredo) or for examples.
            let [first, second, ..] = v6.segments();
            (0x2000..0x4000).contains(&first) && first != 0x2002 && !(first == 0x2001 && matches!(second, 0 | 0x0db8))
        }
    }
}

async fn refuse_inside(host: &str, port: u16) -> Result<(), Problem> {
    let unknown = |cause: &str| invalid(format!("where {host} is cannot be found out: {cause}"));
    let looked = tokio::time::timeout(RESOLVING, tokio::net::lookup_host((host, port))).await;
    let addresses = looked.map_err(|_| unknown("nobody answers"))?.map_err(|error| unknown(&error.to_string()))?;
    let addresses: Vec<_> = addresses.collect();
    if addresses.is_empty() || !addresses.iter().all(|address| is_outside(address.ip())) {
        let detail = format!("only the administrator has this server fetch from its own machine or network, where {host} is");
        return Err(Problem::new(ProblemKind::Forbidden, detail).hint("have the administrator connect it"));
    }
    Ok(())
}

impl Forges {
    /// Connects an app, which is made if it is not there, in place of what it was connected with.
    pub(crate) async fn connect(
        &self,
        caller: &Caller,
        app: &AppName,
        request: &ForgeRequest,
    ) -> Result<ForgeConnected, Problem> {
        let wanted = Wanted::read(request, caller)?;
        let store = &self.inner.means.store;
        if !caller.is_administrator() {
            refuse_inside(wanted.url.host(), wanted.url.port()).await?;
            if let Some((host, port)) = wanted.api.place() {
                refuse_inside(&host, port).await?;
            }
        }
        if let Some(preview) = store.preview(app).await.map_err(|error| problems::store(&error))? {
            let detail = format!("{app} is a preview of {}, which is deployed by its branch alone", preview.parent);
            return Err(Problem::new(ProblemKind::Conflict, detail).hint("connect the app that it is a preview of"));
        }
        let before = store.forge(app).await.map_err(|error| problems::store(&error))?;
        // What belongs to another repository is nothing to this one.
        let before = before.filter(|before| before.url == wanted.url.to_string() && before.forge == wanted.forge.as_str());
        let (record, secret) = made(app, wanted, before, request.new_secret).await?;
        store.ensure_app(app).await.map_err(|error| problems::store(&error))?;
        store.connect_forge(&record).await.map_err(|error| problems::store(&error))?;
        // What another repository, or another branch, was deployed from is not needed any more.
        if let Err(error) = self.inner.means.door.forget_fetched(app, None).await {
            tracing::warn!(%app, %error, "what was fetched before stays");
        }
        // The branch is the app itself by now. Whether its preview has gone yet is nothing that the new connection hangs on.
        if let Err(problem) = self.inner.means.previews.branch_gone(app, &record.branch).await {
            tracing::warn!(%app, branch = record.branch, detail = problem.detail, "the branch keeps its preview for a while");
        }
        tracing::info!(%app, url = record.url, branch = record.branch, "connected with a repository");
        Ok(ForgeConnected { connection: self.described(record), secret })
    }

    /// A connection as people see it.
    pub(crate) fn described(&self, record: ForgeRecord) -> ForgeConnection {
        let hook_path = format!("{HOOKS}{}", record.hook);
        let fingerprint = |line: &str| PublicKey::parse(line.split_once(' ')?.1).ok().map(|key| key.fingerprint);
        let last = record.last.map(|last| ForgeEvent { at: last.at, commit: last.commit, word: last.word, failed: last.failed });
        ForgeConnection {
            app: record.app,
            kind: record.forge,
            url: record.url,
            branch: record.branch,
            api: record.api,
            hook_url: self.public_url().map(|url| format!("{url}{hook_path}")),
            hook_path,
            deploy_key: record.key.map(|key| key.public),
            host_keys: record.known_hosts.iter().flat_map(|lines| lines.lines()).filter_map(fingerprint).collect(),
            has_token: record.token.is_some(),
            created_at: record.created_at,
            last,
        }
    }

    /// The connection of an app.
    pub(crate) async fn connection(&self, app: &AppName) -> Result<ForgeRecord, Problem> {
        let found = self.inner.means.store.forge(app).await.map_err(|error| problems::store(&error))?;
        let missing = || Problem::new(ProblemKind::NotFound, format!("{app} is not connected with a repository"));
        found.ok_or_else(|| missing().hint(format!("connect it: coracle forge connect URL -a {app}")))
    }
}

/// What is written down, and the secret if it is a new one.
async fn made(
    app: &AppName,
    wanted: Wanted,
    before: Option<ForgeRecord>,
    new_secret_wanted: bool,
) -> Result<(ForgeRecord, Option<Secret>), Problem> {
    let internal = |cause: String| Problem::new(ProblemKind::Internal, cause);
    let Wanted { url, forge, branch, api, token } = wanted;
    let (key, known_hosts) = match url.scheme() {
        Scheme::Ssh => {
            let lines = host_keys(url.host(), url.port()).await.map_err(|error| problems::door(&error))?;
            let key = match before.as_ref().and_then(|before| before.key.clone()) {
                Some(key) => key,
                None => {
                    let DeployKey { private, public } =
                        DeployKey::generate(&format!("coracle-{app}")).map_err(|error| internal(error.to_string()))?;
                    ForgeKey { private, public }
                }
            };
            (Some(key), Some(format!("{}\n", lines.join("\n"))))
        }
        Scheme::Https | Scheme::Http => (None, None),
    };
    let kept = before.as_ref().filter(|_| !new_secret_wanted).map(|before| before.secret.clone());
    let fresh = if kept.is_none() { Some(new_secret().ok_or_else(|| internal("no randomness".to_owned()))?) } else { None };
    let secret = kept.or_else(|| fresh.clone()).unwrap_or_else(|| unreachable!("one of the two is there"));
    let usual = || before.as_ref().map_or_else(|| "main".to_owned(), |before| before.branch.clone());
    let hook = match &before {
        Some(before) => before.hook.clone(),
        None => new_hook(app).ok_or_else(|| internal("no randomness".to_owned()))?,
    };
    let record = ForgeRecord {
        app: app.clone(),
        hook,
        forge: forge.as_str().to_owned(),
        url: url.to_string(),
        branch: branch.map_or_else(usual, |branch| branch.to_string()),
        api: api.to_string(),
        secret,
        token: token.or_else(|| before.as_ref().and_then(|before| before.token.clone())),
        key,
        known_hosts,
        created_at: before.as_ref().map_or_else(Timestamp::now, |before| before.created_at),
        wanted: None,
        last: None,
    };
    Ok((record, fresh))
}

/// What a webhook's path ends with. The signature is what proves a webhook; this is not guessed, so that strangers neither have
/// bodies read nor learn which apps there are. It names the app for whoever finds it among a repository's settings.
fn new_hook(app: &AppName) -> Option<String> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).ok()?;
    Some(format!("{app}-{}", random.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_world_outside_is_outside() {
        for outside in ["140.82.121.4", "2a00:1450:4001::1", "9.9.9.9"] {
            assert!(is_outside(outside.parse().unwrap()), "{outside}");
        }
        for inside in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "ff02::1",
            "2001:db8::1",
            "2001:0:1::",
        ] {
            assert!(!is_outside(inside.parse().unwrap()), "{inside}");
        }
    }

    fn request(url: &str) -> ForgeRequest {
        ForgeRequest {
            url: url.to_owned(),
            kind: None,
            branch: None,
            token: None,
            api: None,
            plain_http: false,
            new_secret: false,
        }
    }

    #[test]
    fn what_is_asked_for_is_looked_at() {
        let read = |request: &ForgeRequest| Wanted::read(request, &Caller::Administrator).map(|wanted| wanted.forge);
        assert_eq!(read(&request("git@github.com:a/b.git")).ok(), Some(Forge::GitHub));
        assert!(read(&request("https://git.example.com/a/b")).unwrap_err().hint.unwrap().contains("--kind"));
        let plain = request("http://gitea.lan/a/b");
        assert!(read(&plain).unwrap_err().hint.unwrap().contains("--plain-http"));
        assert_eq!(read(&ForgeRequest { plain_http: true, ..plain }).ok(), Some(Forge::Forgejo));
        for (token, good) in [("ghp_x", true), ("", false), ("a b", false), ("a\nb", false), ("\u{1b}", false)] {
            assert_eq!(checked_token(token).is_ok(), good, "{token:?}");
        }
        let bad = ForgeRequest { branch: Some("--upload-pack=x".to_owned()), ..request("git@github.com:a/b.git") };
        assert!(read(&bad).is_err());
    }
}
