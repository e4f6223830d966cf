//! Sets of addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::wrong;

/// Addresses and networks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Networks(Vec<IpNet>);

impl Networks {
    /// From `10.0.0.1`, `10.0.0.0/8`, `2001:db8::/32`. Bits behind a prefix do not count.
    pub(crate) fn compile(setting: &str, texts: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            let text = text.trim();
            let network = match text.parse::<IpAddr>() {
                Ok(ip) => Ok(IpNet::from(ip)),
                Err(_) => text.parse::<IpNet>(),
            };
            network.map_err(|_| wrong(setting, format_args!("{text:?} is neither an address nor a network")))
        };
        Ok(Self(texts.iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Whether it is one of them. IPv4 addresses in IPv6 clothes (`::ffff:10.0.0.1`) count as what they are.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}
