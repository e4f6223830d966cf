//! Whether the parts of a model fit together: names that are used are declared, settings do not exclude each other,
//! services do not wait for each other in a circle.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map as Object, Value};

use crate::error::{ErrorKind, Fault};
use crate::node::Node;
use crate::position::Mark;

/// A resolved model beside the tree that says where its values come from.
pub(crate) struct Model<'m> {
    pub(crate) tree: &'m Node,
    /// Services that no active profile has.
    pub(crate) disabled: &'m Object<String, Value>,
    pub(crate) value: &'m Value,
}

impl<'m> Model<'m> {
    fn services(&self) -> impl Iterator<Item = (&'m String, &'m Value)> {
        fields(&self.value["services"])
    }

    fn service(&self, name: &str) -> Option<&'m Value> {
        self.value["services"].get(name)
    }
}

/// One service, while it is being looked at.
struct Service<'m> {
    name: &'m str,
    value: &'m Value,
    model: &'m Model<'m>,
}

/// Finds the first contradiction.
pub(crate) fn check(model: &Model<'_>) -> Result<(), Fault> {
    let mut containers: HashMap<&str, &str> = HashMap::new();
    for (name, value) in model.services() {
        let service = Service { name, value, model };
        service.source()?;
        service.exclusions()?;
        service.references()?;
        service.health()?;
        service.limits()?;
        service.watch()?;
        service.mounts()?;
        if let Some(container) = value["container_name"].as_str()
            && let Some(other) = containers.insert(container, name)
        {
            let message = format!("container name \"{container}\" is already in use by service {other}");
            return Err(service.fault(ErrorKind::Conflict, message, &["container_name"]));
        }
    }
    cycles(model)
}

impl<'m> Service<'m> {
    fn fault(&self, kind: ErrorKind, message: impl Into<String>, path: &[&str]) -> Fault {
        let mut at = Mark::default();
        let mut node = self.model.tree.get("services").and_then(|services| services.get(self.name));
        for key in [None].into_iter().chain(path.iter().map(|key| Some(*key))) {
            if let Some(key) = key {
                node = node.and_then(|node| node.get(key));
            }
            match node {
                Some(node) if node.key_at.line != 0 => at = node.key_at,
                _ => {}
            }
        }
        let dotted = std::iter::once("services").chain([self.name]).chain(path.iter().copied()).collect::<Vec<_>>().join(".");
        Fault::new(kind, message).on_path(dotted).at(at)
    }

    fn refers(&self, key: &str, sort: &str, name: &str, declared: &'static str) -> Result<(), Fault> {
        if self.model.value[declared].get(name).is_some() {
            return Ok(());
        }
        let known = self.model.value[declared].as_object();
        let message = format!("service \"{}\" refers to undefined {sort} {name}", self.name);
        let fault = self.fault(ErrorKind::Reference, message, &[key, name]);
        let near = known.and_then(|known| crate::validation::nearest(name, known.keys().map(String::as_str)));
        Err(match near {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint(format!("declare it under `{declared}`")),
        })
    }

    fn source(&self) -> Result<(), Fault> {
        let build = &self.value["build"];
        if build.is_null() && self.value["image"].is_null() && self.value["provider"].is_null() {
            let message = format!("service \"{}\" has neither an image nor a build context specified", self.name);
            return Err(self.fault(ErrorKind::Value, message, &[]));
        }
        if build["dockerfile"].is_string() && build["dockerfile_inline"].is_string() {
            let message = format!("service \"{}\" declares mutually exclusive dockerfile and dockerfile_inline", self.name);
            return Err(self.fault(ErrorKind::Conflict, message, &["build", "dockerfile_inline"]));
        }
        for (context, target) in fields(&build["additional_contexts"]) {
            let Some(target) = target.as_str().and_then(|target| target.strip_prefix("service:")) else { continue };
            let wrong = match self.model.service(target) {
                None => "unknown",
                Some(service) if service["build"].is_null() => "non-buildable",
                Some(_) => continue,
            };
            let message =
                format!("service \"{}\" declares {wrong} service \"{target}\" as additional contexts {context}", self.name);
            return Err(self.fault(ErrorKind::Reference, message, &["build", "additional_contexts"]));
        }
        if let (Some(platform), Some(platforms)) = (self.value["platform"].as_str(), build["platforms"].as_array())
            && !platforms.iter().any(|listed| listed == platform)
        {
            let message = format!("build.platforms must include the service's platform \"{platform}\"");
            return Err(self.fault(ErrorKind::Conflict, message, &["build", "platforms"]));
        }
        Ok(())
    }

    fn exclusions(&self) -> Result<(), Fault> {
        if self.value["network_mode"].is_string() && fields(&self.value["networks"]).next().is_some() {
            let message = format!("service {} declares mutually exclusive `network_mode` and `networks`", self.name);
            return Err(self.fault(ErrorKind::Conflict, message, &["network_mode"]));
        }
        Ok(())
    }

    fn references(&self) -> Result<(), Fault> {
        for (network, _) in fields(&self.value["networks"]) {
            self.refers("networks", "network", network, "networks")?;
        }
        for (name, dependency) in fields(&self.value["depends_on"]) {
            let optional = dependency["required"] == false && self.model.disabled.contains_key(name);
            if self.model.service(name).is_none() && !optional {
                let message = format!("service \"{}\" depends on undefined service \"{name}\"", self.name);
                let fault = self.fault(ErrorKind::Reference, message, &["depends_on", name]);
                return Err(if self.model.disabled.contains_key(name) {
                    fault.hint("that service is in a profile that is not active")
                } else {
                    match crate::validation::nearest(name, self.model.services().map(|(name, _)| name.as_str())) {
                        Some(near) => fault.hint(format!("did you mean `{near}`?")),
                        None => fault,
                    }
                });
            }
        }
        for volume in items(&self.value["volumes"]) {
            if let ("volume", Some(source)) = (volume["type"].as_str().unwrap_or_default(), volume["source"].as_str()) {
                self.refers("volumes", "volume", source, "volumes")?;
            }
        }
        for (holder, key, sort, declared) in [
            (&self.value["build"], "secrets", "build secret", "secrets"),
            (self.value, "configs", "config", "configs"),
            (self.value, "secrets", "secret", "secrets"),
        ] {
            for mount in items(&holder[key]) {
                self.refers(key, sort, mount["source"].as_str().unwrap_or_default(), declared)?;
            }
        }
        for (model, _) in fields(&self.value["models"]) {
            self.refers("models", "model", model, "models")?;
        }
        Ok(())
    }

    fn health(&self) -> Result<(), Fault> {
        match self.value["healthcheck"]["test"].get(0).and_then(Value::as_str) {
            None | Some("CMD" | "CMD-SHELL" | "NONE") => Ok(()),
            Some(_) => {
                let message = "healthcheck.test must start either by \"CMD\", \"CMD-SHELL\" or \"NONE\"";
                Err(self.fault(ErrorKind::Value, message, &["healthcheck", "test"]))
            }
        }
    }

    /// Two ways to say the same thing must say the same thing.
    fn limits(&self) -> Result<(), Fault> {
        let deploy = &self.value["deploy"];
        let (limits, reservations) = (&deploy["resources"]["limits"], &deploy["resources"]["reservations"]);
        for (key, other, value, zero) in [
            ("cpus", "deploy.resources.limits.cpus", &limits["cpus"], limits.is_object()),
            ("mem_limit", "deploy.resources.limits.memory", &limits["memory"], limits.is_object()),
            ("mem_reservation", "deploy.resources.reservations.memory", &reservations["memory"], reservations.is_object()),
            ("pids_limit", "deploy.resources.limits.pids", &limits["pids"], limits.is_object()),
            ("scale", "deploy.replicas", &deploy["replicas"], false),
        ] {
            let own = &self.value[key];
            let contradicts = !own.is_null() && own != value && (!value.is_null() || zero);
            if contradicts {
                let message = format!("can't set distinct values on '{key}' and '{other}'");
                return Err(self.fault(ErrorKind::Conflict, message, &[key]));
            }
        }
        for (value, path) in [(&self.value["scale"], &["scale"][..]), (&deploy["replicas"], &["deploy", "replicas"][..])] {
            if value.as_i64().is_some_and(|count| count < 0) {
                return Err(self.fault(ErrorKind::Value, "must be greater than or equal to 0", path));
            }
            if value.as_i64().is_some_and(|count| count > 1) && self.value["container_name"].is_string() {
                let message = format!("can't set container_name and {} as container name must be unique", path.join("."));
                return Err(self.fault(ErrorKind::Conflict, message, &["container_name"]));
            }
        }
        Ok(())
    }

    fn watch(&self) -> Result<(), Fault> {
        for rule in items(&self.value["develop"]["watch"]) {
            let needs_target = !matches!(rule["action"].as_str(), Some("rebuild" | "restart"));
            if needs_target && rule["target"].is_null() {
                let message = "target is required for non-rebuild actions";
                return Err(self.fault(ErrorKind::Value, message, &["develop", "watch"]));
            }
        }
        Ok(())
    }

    /// No two things may be mounted at the same path.
    fn mounts(&self) -> Result<(), Fault> {
        let mut taken: HashMap<String, String> = HashMap::new();
        for (key, folder) in [("tmpfs", ""), ("volumes", ""), ("configs", "/"), ("secrets", "/run/secrets/")] {
            for (index, mount) in items(&self.value[key]).iter().enumerate() {
                let target = match (mount.as_str(), mount["target"].as_str()) {
                    (Some(text), _) => text.split(':').next().unwrap_or_default().to_owned(),
                    (None, Some(target)) => target.to_owned(),
                    (None, None) => format!("{folder}{}", mount["source"].as_str().unwrap_or_default()),
                };
                let place = format!("services.{}.{key}[{index}]", self.name);
                if let Some(other) = taken.insert(target.clone(), place) {
                    let message = format!("target {target} already mounted as {other}");
                    return Err(self.fault(ErrorKind::Conflict, message, &[key]));
                }
            }
        }
        Ok(())
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Refuses services that depend on themselves, over however many others.
fn cycles(model: &Model<'_>) -> Result<(), Fault> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for (start, _) in model.services() {
        if done.contains(start.as_str()) {
            continue;
        }
        // A walk with a stack of its own: a chain of 10,000 services must not take the thread's.
        let mut path: Vec<(&str, Vec<&str>)> = vec![(start, dependencies(model, start))];
        let mut on_path: BTreeSet<&str> = BTreeSet::from([start.as_str()]);
        while let Some((name, open)) = path.last_mut() {
            let Some(next) = open.pop() else {
                done.insert(name);
                on_path.remove(*name);
                path.pop();
                continue;
            };
            if on_path.contains(next) {
                let circle = path.iter().map(|(name, _)| *name).skip_while(|name| *name != next).chain([next]);
                let message = format!("dependency cycle detected: {}", circle.collect::<Vec<_>>().join(" -> "));
                let service = Service { name: next, value: &model.value["services"][next], model };
                return Err(service.fault(ErrorKind::Cycle, message, &["depends_on"]));
            }
            if !done.contains(next) {
                on_path.insert(next);
                path.push((next, dependencies(model, next)));
            }
        }
    }
    Ok(())
}

fn dependencies<'m>(model: &Model<'m>, name: &str) -> Vec<&'m str> {
    let value = &model.value["services"][name]["depends_on"];
    let known = fields(value).map(|(name, _)| name.as_str()).filter(|name| model.service(name).is_some());
    let mut names: Vec<&str> = known.collect();
    names.reverse();
    names
}
