//! Images that people put beside their tests, and what has to be known to use them: how they start without a password, when
//! they are ready, and where the step finds them.

use std::collections::BTreeMap;

use coracle_model::EnvName;

use crate::step::Service;

/// What is known of an image.
struct Known {
    /// The last part of its name.
    names: &'static [&'static str],
    /// Set unless the file sets one of them.
    env: &'static [(&'static str, &'static str)],
    /// Asked by TCP: while it prepares its data, PostgreSQL's image answers on its socket file alone, and restarts then.
    health: &'static [&'static str],
    /// The variable and the address in it, with `{}` for the host.
    told: (&'static str, &'static str),
}

const KNOWN: &[Known] = &[
    Known {
        names: &["postgres", "postgis", "pgvector", "timescaledb"],
        env: &[("POSTGRES_HOST_AUTH_METHOD", "trust")],
        health: &["pg_isready", "-q", "-h", "127.0.0.1"],
        told: ("DATABASE_URL", "postgres://postgres@{}:5432/postgres"),
    },
    Known { names: &["redis"], env: &[], health: &["redis-cli", "ping"], told: ("REDIS_URL", "redis://{}:6379/0") },
    Known { names: &["valkey"], env: &[], health: &["valkey-cli", "ping"], told: ("REDIS_URL", "redis://{}:6379/0") },
    Known {
        names: &["mysql"],
        env: &[("MYSQL_ALLOW_EMPTY_PASSWORD", "yes"), ("MYSQL_DATABASE", "test")],
        health: &["mysqladmin", "ping", "--silent", "-h", "127.0.0.1"],
        told: ("DATABASE_URL", "mysql://root@{}:3306/test"),
    },
    Known {
        names: &["mariadb"],
        env: &[("MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "yes"), ("MARIADB_DATABASE", "test")],
        health: &["healthcheck.sh", "--connect", "--innodb_initialized"],
        told: ("DATABASE_URL", "mysql://root@{}:3306/test"),
    },
];

/// The last part of an image's name, without tag and digest: `postgres` of `registry:5000/library/postgres:15`.
pub(crate) fn short_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last)
}

/// Fills in what the file leaves open about a well-known image. One whose variables the file sets is the file's own affair:
/// then nobody knows its user and its password here.
pub(crate) fn complete(service: &mut Service) {
    let name = short_name(&service.image).to_owned();
    let Some(known) = KNOWN.iter().find(|known| known.names.contains(&name.as_str())) else { return };
    let pair = |(name, value): &(&str, &str)| Some((name.parse::<EnvName>().ok()?, (*value).to_owned()));
    if service.env.is_empty() {
        service.env = known.env.iter().filter_map(pair).collect();
        let (variable, address) = known.told;
        let address = address.replace("{}", &service.name);
        service.told = pair(&(variable, &address)).into_iter().collect::<BTreeMap<_, _>>();
    }
    if service.health.is_none() {
        service.health = Some(known.health.iter().map(|word| (*word).to_owned()).collect());
    }
}
