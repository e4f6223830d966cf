//! `[services.NAME]`: what keeps data for the app, and lives across its releases.

use std::collections::BTreeMap;

use coracle_toml_reading::{Entry, Values, entries as any_entries};
use toml::de::DeTable;

use super::tables::{environment, memory, volumes, word};
use super::values::{Keys, command, cpus, entries};
use crate::command::CommandLine;
use crate::container::{ContainerSettings, HealthCheck, HealthTest};
use crate::names::{EnvName, ProcessName};
use crate::quantity::{ByteSize, Cpus};
use crate::spec::{Limits, ProcessSpec, VolumeMount};
use crate::stack::{Exposure, ProcessSource, PullPolicy};

const SERVICE: Keys = Keys {
    known: &["image", "command", "volume", "volumes", "env", "secrets", "health", "memory", "cpus", "pids"],
    planned: &["backup"],
};

/// `[services.NAME]`
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ServiceLayer {
    image: Option<String>,
    command: Option<CommandLine>,
    volumes: Option<Vec<VolumeMount>>,
    env: BTreeMap<EnvName, String>,
    secrets: Option<Vec<EnvName>>,
    health: Option<Vec<String>>,
    memory: Option<ByteSize>,
    cpus: Option<Cpus>,
    pids: Option<u32>,
}

/// Reads the table of all services. `is_whole` says that each must name its image; an environment's may leave it to the
/// manifest's own.
pub(super) fn read(
    values: &mut Values<'_>,
    path: &str,
    table: &DeTable<'_>,
    is_whole: bool,
) -> BTreeMap<ProcessName, ServiceLayer> {
    let mut services = BTreeMap::new();
    for entry in any_entries(path, table) {
        let name: ProcessName = match entry.key.parse() {
            Ok(name) => name,
            Err(error) => {
                let error: crate::names::NameError = error;
                values.mistakes.add(entry.key_span, &entry.path, error.to_string(), None);
                continue;
            }
        };
        let Some(table) = values.table(&entry) else { continue };
        let service = service(values, &entry, &name, table);
        if is_whole && service.image.is_none() {
            values.wrong_key(&entry, "names no image", Some("write image = \"postgres:16\", say"));
        }
        services.insert(name, service);
    }
    services
}

fn service(values: &mut Values<'_>, section: &Entry<'_, '_>, name: &ProcessName, table: &DeTable<'_>) -> ServiceLayer {
    let mut service = ServiceLayer::default();
    for entry in entries(values, &section.path, table, &SERVICE) {
        match entry.key {
            "image" => service.image = word(values, &entry),
            "command" => service.command = command(values, &entry),
            "volume" => service.volumes = volume(values, &entry, name).map(|volume| vec![volume]),
            "volumes" => service.volumes = volumes(values, &entry),
            "env" => {
                if let Some(table) = values.table(&entry) {
                    service.env = environment(values, &entry.path, table);
                }
            }
            "secrets" => service.secrets = values.list(&entry),
            "health" => service.health = health(values, &entry),
            "memory" => service.memory = memory(values, &entry),
            "cpus" => service.cpus = cpus(values, &entry),
            "pids" => service.pids = values.integer(&entry, 1..=4_194_304),
            _ => unreachable!("every known key is handled"),
        }
    }
    service
}

/// `name:/path`, or the path alone: then the volume is called as the service is.
fn volume(values: &mut Values<'_>, entry: &Entry<'_, '_>, name: &ProcessName) -> Option<VolumeMount> {
    let text = values.text(entry)?;
    let full = if text.starts_with('/') { format!("{name}:{text}") } else { text.to_owned() };
    match full.parse() {
        Ok(volume) => Some(volume),
        Err(error) => {
            let error: String = error;
            values.wrong(entry, error, Some("write it as \"data:/path\""));
            None
        }
    }
}

/// A command that ends with code 0 when the service is well.
fn health(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Vec<String>> {
    let (assigned, argv) = command(values, entry)?.expand(&|_| None);
    if !assigned.is_empty() {
        values.wrong(entry, "cannot set variables", Some("the service's own are there; set others in its `env`"));
        return None;
    }
    Some(argv)
}

impl ServiceLayer {
    /// This service with what an environment says of it on top.
    pub(super) fn lay(&mut self, upper: &Self) {
        let Self { image, command, volumes, env, secrets, health, memory, cpus, pids } = upper.clone();
        self.image = image.or(self.image.take());
        self.command = command.or(self.command.take());
        self.volumes = volumes.or(self.volumes.take());
        self.secrets = secrets.or(self.secrets.take());
        self.health = health.or(self.health.take());
        self.memory = memory.or(self.memory);
        self.cpus = cpus.or(self.cpus);
        self.pids = pids.or(self.pids);
        self.env.extend(env);
    }

    /// The names of configuration that must be set for it.
    pub(super) fn secrets(&self) -> &[EnvName] {
        self.secrets.as_deref().unwrap_or_default()
    }

    /// The service, with every default filled in.
    pub(super) fn into_spec(self) -> ProcessSpec {
        let health = self.health.map(|argv| HealthCheck {
            test: HealthTest::Exec(argv),
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
            start_interval: None,
        });
        let env = self.env.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
        let config = self.secrets.unwrap_or_default();
        ProcessSpec {
            command: self.command,
            limits: Limits {
                memory: self.memory,
                cpus: self.cpus,
                pids: self.pids.unwrap_or(Limits::default().pids),
                ..Limits::default()
            },
            volumes: self.volumes.unwrap_or_default(),
            source: self.image.map(|reference| ProcessSource::Image { reference, pull: PullPolicy::Missing }),
            container: Box::new(ContainerSettings { env, config, health, ..ContainerSettings::default() }),
            exposure: Exposure::Hidden,
            ..ProcessSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use insta::assert_snapshot;

    use crate::manifest::Manifest;
    use crate::manifest::tests::mistakes;
    use crate::spec::AppSpec;

    #[test]
    fn services_keep_data_and_see_the_configuration_they_name() {
        let text = "secrets = [\"KEY\"]\n[services.db]\nimage = \"postgres:16\"\nvolume = \"/var/lib/postgresql/data\"\n\
            secrets = [\"POSTGRES_PASSWORD\"]\nhealth = \"pg_isready -q\"\nenv = { TZ = \"UTC\" }\nmemory = \"512M\"\n\
            [environments.staging.services.db]\nimage = \"postgres:17\"\n";
        let manifest = Manifest::parse(text).unwrap();
        let app = |environment| manifest.resolve(Some("shop".parse().unwrap()), environment).unwrap();
        let spec = app(None);
        let db = &spec.services[&"db".parse().unwrap()];
        assert_eq!((db.volumes[0].name.as_str(), db.volumes[0].path.as_str()), ("db", "/var/lib/postgresql/data"));
        assert_eq!(db.container.config, ["POSTGRES_PASSWORD".parse().unwrap()]);
        assert_eq!(spec.secrets, ["KEY".parse().unwrap(), "POSTGRES_PASSWORD".parse().unwrap()]);
        let image =
            |spec: &AppSpec| serde_json::to_value(&spec.services[&"db".parse().unwrap()].source).unwrap()["reference"].clone();
        assert_eq!((image(&spec), image(&app(Some("staging")))), ("postgres:16".into(), "postgres:17".into()));
        assert!(!spec.is_stack(), "the app itself is still built as a whole");
        assert_snapshot!(mistakes("[services.web]\nvolume = \"x\"\n[processes.web]\n"), @r#"
        coracle.toml:1:2: services: web is the name of a process and of a service
         1 | [services.web]
           |  ^^^^^^^^
        coracle.toml:1:11: services.web: names no image
         1 | [services.web]
           |           ^^^
           = write image = "postgres:16", say
        coracle.toml:2:10: services.web.volume: volume "x" must be written name:/path
         2 | volume = "x"
           |          ^^^
           = write it as "data:/path"
        "#);
    }
}
