//! Ports that Docker publishes, had by the proxy while Docker still has them.
//!
//! Docker leads a published port into a container by a rule of its own in the table `nat` (chain `DOCKER`), and for this
//! machine's own connections by a program that listens (`docker-proxy`). A rule before Docker's decides first: it leads new
//! connections to another port of the machine, where the proxy listens, from one packet to the next and without anybody having
//! to let go of anything. The kernel asks the rules for the first packet of a connection only, so connections that are open
//! stay where they are, when the rule comes and when it goes.
//!
//! For IPv4 alone: over IPv6 nothing changes until the container stops.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use coracle_engine::EngineError;
use coracle_model::AppName;
use tokio::process::Command;

/// How long one change of a rule may take; the program itself waits for others who change rules.
const LIMIT: Duration = Duration::from_secs(20);

/// The chains that connections from elsewhere and from this machine begin in.
const CHAINS: [&str; 2] = ["PREROUTING", "OUTPUT"];

/// Connections to a port of the machine that are led to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redirect {
    /// For whom; a part of the comment by which the rule is known.
    pub(super) app: AppName,
    /// The address that clients connect to; `None`: every one of the machine's.
    pub(super) address: Option<IpAddr>,
    /// The port that clients connect to.
    pub(super) from: u16,
    /// Where the proxy listens.
    pub(super) to: u16,
}

impl Redirect {
    /// From here on new connections go to the proxy. Nothing changes if they do already.
    pub(super) async fn install(&self) -> Result<(), EngineError> {
        for chain in CHAINS {
            if !self.is_there(chain).await? {
                self.iptables(&["--insert", chain, "1"]).await?;
            }
        }
        Ok(())
    }

    /// From here on new connections go where they went before. Nothing changes if they do already.
    pub(super) async fn remove(&self) -> Result<(), EngineError> {
        for chain in CHAINS {
            while self.is_there(chain).await? {
                self.iptables(&["--delete", chain]).await?;
            }
        }
        Ok(())
    }

    async fn is_there(&self, chain: &str) -> Result<bool, EngineError> {
        let output = run(&self.arguments(&["--check", chain])).await?;
        Ok(output.status.success())
    }

    async fn iptables(&self, words: &[&str]) -> Result<(), EngineError> {
        let output = run(&self.arguments(words)).await?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }

    fn arguments(&self, words: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> = ["--wait", "10", "--table", "nat"].map(str::to_owned).into();
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        if let Some(address) = self.address {
            arguments.extend(["--destination".to_owned(), address.to_string()]);
        }
        let (from, to) = (self.from.to_string(), self.to.to_string());
        let comment = format!("coracle: port {from} of {}", self.app);
        let rule = [
            "--protocol",
            "tcp",
            "--dport",
            &from,
            "--match",
            "addrtype",
            "--dst-type",
            "LOCAL",
            "--match",
            "comment",
            "--comment",
            &comment,
            "--jump",
            "REDIRECT",
            "--to-ports",
            &to,
        ];
        arguments.extend(rule.map(str::to_owned));
        arguments
    }
}

/// Whether this process may change the rules, and the program that does it is there.
pub(super) async fn is_possible() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let list = ["--wait", "10", "--table", "nat", "--list-rules", "OUTPUT"].map(str::to_owned);
    matches!(run(&list).await, Ok(output) if output.status.success())
}

async fn run(arguments: &[String]) -> Result<std::process::Output, EngineError> {
    let mut command = Command::new("iptables");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("it did not end within {LIMIT:?}"))),
    }
}

fn failed(cause: String) -> EngineError {
    EngineError::Failed { action: "lead a port to the proxy with iptables".to_owned(), cause }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rule_is_the_same_words_whatever_is_done_with_it() {
        let redirect = Redirect { app: "shop".parse().unwrap(), address: None, from: 8080, to: 40123 };
        let (check, insert) = (redirect.arguments(&["--check", "OUTPUT"]), redirect.arguments(&["--insert", "OUTPUT", "1"]));
        assert_eq!(check[6..], insert[7..]);
        assert!(insert.ends_with(&["REDIRECT".to_owned(), "--to-ports".to_owned(), "40123".to_owned()]));
        let local = Redirect { address: "127.0.0.1".parse().ok(), ..redirect };
        assert!(
            local.arguments(&["--check", "OUTPUT"]).join(" ").contains("--destination 127.0.0.1 --protocol tcp --dport 8080")
        );
    }
}
