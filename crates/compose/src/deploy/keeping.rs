//! Which services keep data. The first of these that says something decides:
//!
//! 1. `x-coracle: {stateful: true}` or `false`.
//! 2. The image, or what its Dockerfile begins from, is a known database or message store: it keeps data, with or without a
//!    volume of its own in the file.
//! 3. It is built from the tree: it is a process, since it changes with every release. If it writes to a volume, two
//!    releases of it do not run at once (they recreate instead of blue-green), and the volume stays.
//! 4. It is a ready image that writes to a named volume, or to a directory beside the compose file that is not part of the
//!    tree: it keeps data, unless it waits for a process (`depends_on`): what comes before every release cannot.
//!
//! Read-only mounts never count, nor do files of the tree: those are the release's.

use coracle_model::{ProcessSource, ProcessSpec};
use serde_json::Value;

use super::Maker;
use crate::service::Service;

/// Images by the last piece of their names, without tag.
const DATABASES: [&str; 42] = [
    "postgres",
    "postgresql",
    "postgis",
    "pgvector",
    "timescaledb",
    "timescaledb-ha",
    "mysql",
    "mysql-server",
    "mariadb",
    "percona",
    "mongo",
    "mongodb",
    "mongodb-community-server",
    "redis",
    "redis-stack",
    "redis-stack-server",
    "valkey",
    "keydb",
    "dragonfly",
    "couchdb",
    "couchbase",
    "cassandra",
    "scylla",
    "neo4j",
    "influxdb",
    "clickhouse",
    "clickhouse-server",
    "elasticsearch",
    "opensearch",
    "meilisearch",
    "typesense",
    "rabbitmq",
    "nats",
    "kafka",
    "zookeeper",
    "etcd",
    "minio",
    "cockroach",
    "arangodb",
    "rethinkdb",
    "mssql-server",
    "surrealdb",
];

/// The weakest of the reasons.
const VOLUME: &str = "it writes to a volume";

impl Maker<'_> {
    /// Whether a service keeps data, and whether that is for its volume alone.
    pub(super) fn keeps_data(&mut self, name: &str, service: &Service, part: &ProcessSpec) -> (bool, bool) {
        let word = Self::word_of(service, "stateful");
        let (keeps, why) = match (word, &part.source) {
            (Some(Value::Bool(word)), _) => (word, "its x-coracle block says so"),
            (Some(_), _) => {
                self.wrong(&["services", name, "x-coracle", "stateful"], "must be true or false");
                return (false, false);
            }
            (None, Some(ProcessSource::Image { reference, .. })) if is_database(reference) => {
                (true, "its image is that of a database")
            }
            (None, Some(ProcessSource::Build(build))) => match self.base_of(build) {
                Some(base) if is_database(&base) => (true, "it is built upon a database"),
                _ => return (false, false),
            },
            _ => (part.keeps_data(), VOLUME),
        };
        if keeps {
            self.notes.push(format!("{name} keeps data, since {why}: it stays across releases"));
            if part.replicas > 1 {
                self.wrong(&["services", name, "deploy", "replicas"], "what keeps data cannot run twice");
            }
        }
        (keeps, why == VOLUME)
    }
}

fn is_database(reference: &str) -> bool {
    let name = reference.split('@').next().unwrap_or(reference);
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    DATABASES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_known_by_the_name_of_their_image() {
        for reference in [
            "postgres",
            "postgres:16-alpine",
            "docker.io/library/mysql:8",
            "host:5000/x/mariadb@sha256:00",
            "bitnami/postgresql",
            "redis:7",
        ] {
            assert!(is_database(reference), "{reference}");
        }
        for reference in ["nginx", "postgres-exporter:1", "prodrigestivill/postgres-backup-local"] {
            assert!(!is_database(reference), "{reference}");
        }
    }
}
