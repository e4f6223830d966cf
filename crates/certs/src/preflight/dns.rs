//! DNS as an authority would see it: no hosts file, no search list, nothing remembered.

use std::net::IpAddr;

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType, rdata::CAA},
};

use crate::PreflightOptions;

/// Looks names up.
pub(crate) struct Dns {
    resolver: TokioResolver,
    timeout: std::time::Duration,
}

impl Dns {
    /// Asks the configured name servers, or the system's.
    pub(crate) fn new(options: &PreflightOptions) -> Result<Self, String> {
        let broken = |error: NetError| format!("the system's name servers cannot be found out: {error}");
        let mut builder = match options.name_servers.is_empty() {
            true => TokioResolver::builder_tokio().map_err(broken)?,
            false => {
                let servers = options.name_servers.iter().map(|server| {
                    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                    connections.iter_mut().for_each(|connection| connection.port = server.port());
                    NameServerConfig::new(server.ip(), true, connections)
                });
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let resolver: &mut ResolverOpts = builder.options_mut();
        resolver.cache_size = 0;
        resolver.use_hosts_file = ResolveHosts::Never;
        resolver.timeout = options.timeout / 4;
        resolver.attempts = 2;
        let resolver = builder.build().map_err(broken)?;
        Ok(Self { resolver, timeout: options.timeout })
    }

    /// Its addresses, aliases followed; empty if it has none.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let fqdn = fqdn(name)?;
        let (v4, v6) = tokio::join!(self.records(&fqdn, RecordType::A), self.records(&fqdn, RecordType::AAAA));
        let address = |data: RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        Ok(v4?.into_iter().chain(v6?).filter_map(address).collect())
    }

    /// The CAA records that count for a name, and whose they are: its own, or those of its closest parent that has any (RFC 8659, section
    /// 3). Nothing if there are none on the way up.
    pub(crate) async fn caa(&self, name: &str) -> Result<Option<(String, Vec<CAA>)>, String> {
        let mut at = Some(name);
        while let Some(owner) = at {
            let records = self.records(&fqdn(owner)?, RecordType::CAA).await?;
            let records: Vec<CAA> = records
                .into_iter()
                .filter_map(|data| match data {
                    RData::CAA(record) => Some(record),
                    _ => None,
                })
                .collect();
            if !records.is_empty() {
                return Ok(Some((owner.to_owned(), records)));
            }
            at = crate::names::parent(owner);
        }
        Ok(None)
    }

    /// Records of one type; none if there are none, or no such name.
    async fn records(&self, name: &Name, kind: RecordType) -> Result<Vec<RData>, String> {
        let failed = |reason: String| {
            format!("{kind} records of {} cannot be looked up: {reason}; see to the zone's name servers", trim(name))
        };
        match tokio::time::timeout(self.timeout, self.resolver.lookup(name.clone(), kind)).await {
            Ok(Ok(lookup)) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
            Ok(Err(error)) if error.is_no_records_found() || error.is_nx_domain() => Ok(Vec::new()),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", self.timeout.as_secs()))),
        }
    }
}

fn fqdn(name: &str) -> Result<Name, String> {
    let mut fqdn = Name::from_ascii(name).map_err(|_| format!("{name} is not a host name"))?;
    fqdn.set_fqdn(true);
    Ok(fqdn)
}

fn trim(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}
