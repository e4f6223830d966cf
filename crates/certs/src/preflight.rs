//! What is looked at before an order is placed: whether a public authority would certify the name at all, whether it leads here, whether
//! its zone allows the authority. Each refusal says what to change.

mod caa;
mod dns;
mod probe;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use rustls::crypto::CryptoProvider;

use crate::{ChallengeKind, PreflightOptions, challenges::Challenges, names};
use dns::Dns;

/// Looks before an order is placed.
pub(crate) struct Preflight {
    options: PreflightOptions,
    dns: Dns,
    challenges: Arc<Challenges>,
    provider: Arc<CryptoProvider>,
}

/// Who is to be allowed by CAA records.
pub(crate) struct Issuer<'a> {
    /// What it calls itself there.
    pub(crate) identities: &'a [String],
    /// The account's URL (RFC 8657, section 3).
    pub(crate) account: &'a str,
}

impl Preflight {
    pub(crate) fn new(
        options: PreflightOptions,
        challenges: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let dns = Dns::new(&options)?;
        Ok(Self { options, dns, challenges, provider })
    }

    /// Whether the name leads here. Returns the challenges that can be met, in the order they were asked for. Costs the authority nothing.
    pub(crate) async fn reach(&self, name: &str, kinds: &[ChallengeKind]) -> Result<Vec<ChallengeKind>, String> {
        if self.options.public_names
            && let Some(reason) = names::not_public(name)
        {
            return Err(reason);
        }
        if !self.options.dns {
            return Ok(kinds.to_vec());
        }
        let addresses = self.dns.addresses(name).await?;
        if addresses.is_empty() {
            let own = self.own_addresses();
            return Err(format!("{name} has no address in DNS; add an A or AAAA record that points to this server ({own})"));
        }
        if !self.options.reachable {
            return Ok(kinds.to_vec());
        }
        let mut reasons = Vec::new();
        for kind in kinds {
            match self.all_answer(name, &addresses, *kind).await {
                // The others have not been tried; the first is enough.
                Ok(()) => return Ok(vec![*kind]),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(self.advice(name, &reasons))
    }

    /// Whether the zone's CAA records (RFC 8659) allow the authority, and which of the challenges (RFC 8657).
    pub(crate) async fn allowed(
        &self,
        name: &str,
        kinds: Vec<ChallengeKind>,
        issuer: &Issuer<'_>,
    ) -> Result<Vec<ChallengeKind>, String> {
        let said = if issuer.identities.is_empty() { &self.options.caa_identities } else { issuer.identities };
        if !self.options.caa || said.is_empty() {
            return Ok(kinds);
        }
        let Some((owner, records)) = self.dns.caa(name).await? else { return Ok(kinds) };
        caa::judge(&owner, &records, said, issuer.account, kinds)
    }

    /// Each address has to be ours, as nobody knows which one the authority takes. One exception: an IPv6 address that cannot be reached
    /// while an IPv4 address is ours may be this server's own lack of IPv6, and authorities fall back to IPv4.
    async fn all_answer(&self, name: &str, addresses: &[IpAddr], kind: ChallengeKind) -> Result<(), String> {
        let mut answered = 0;
        let mut excused = None;
        for address in addresses {
            match self.answers(name, *address, kind).await {
                Ok(()) => answered += 1,
                Err(probe::Miss::Unreachable(reason)) if address.is_ipv6() => excused = Some(reason),
                Err(miss) => return Err(miss.to_string()),
            }
        }
        if answered > 0 { Ok(()) } else { Err(excused.unwrap_or_default()) }
    }

    async fn answers(&self, name: &str, address: IpAddr, kind: ChallengeKind) -> Result<(), probe::Miss> {
        let timeout = self.options.timeout;
        match kind {
            ChallengeKind::Http01 => {
                let to = SocketAddr::new(address, self.options.http_port);
                probe::http(name, to, &self.challenges, timeout).await
            }
            ChallengeKind::TlsAlpn01 => {
                let to = SocketAddr::new(address, self.options.tls_port);
                probe::tls(name, to, &self.challenges, &self.provider, timeout).await
            }
        }
    }

    fn advice(&self, name: &str, reasons: &[String]) -> String {
        format!(
            "{name} does not lead here: {}. This server answers on {}. Point the name's A and AAAA records to it, and let port {} through; \
             if it only cannot reach itself under its public address, switch this check off",
            reasons.join("; "),
            self.own_addresses(),
            self.options.http_port,
        )
    }

    /// This server's addresses as far as it knows them, for people.
    fn own_addresses(&self) -> String {
        let known = match self.options.own_addresses.is_empty() {
            false => self.options.own_addresses.clone(),
            true => routed_addresses(),
        };
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        if known.is_empty() { "an address that it does not know itself".to_owned() } else { known.join(", ") }
    }
}

/// The addresses that packets to the internet would come from. Nothing is sent: connecting a datagram socket only picks a route. The
/// destinations are for documentation (RFC 5737, RFC 3849).
fn routed_addresses() -> Vec<IpAddr> {
    let route = |from: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let v4 = route(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = route(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    v4.into_iter().chain(v6).collect()
}
