//! A stack from a compose file. What a service is comes from the loader's own mapping for deployments; what differs while
//! developing stands here: every service is a part like any other, ports are published as written, paths are those of this
//! machine, and `develop.watch` says what happens when files change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use coracle_build::DockerIgnore;
use coracle_compose::deploy::{self, Deployable, Obstacle, Surroundings};
use coracle_compose::service::{Port, Service, Watch};
use coracle_compose::{Loaded, Project};
use coracle_model::container::{BindSource, FileContent, PublishedPort, RestartPolicy, Transport};
use coracle_model::stack::{ContextSource, PartBuild};
use coracle_model::{AppName, Exposure, PrivateText, ProcessName, ProcessSource, ProcessSpec};

use crate::ports;
use crate::source_tree::rules_text;
use crate::stack::{Action, FolderBuild, NamedSource, Part, Rule, Source, Stack};

/// The mapping looks at everything beneath one folder. While developing, that is the whole machine.
const ROOT: &str = "/";

/// A stack, and what cannot be honoured in it.
#[derive(Debug, Clone)]
pub struct Translated {
    /// The stack.
    pub stack: Stack,
    /// Keys that are valid and cannot be honoured, with their places.
    pub obstacles: Vec<String>,
    /// Mistakes, with their places: with these the stack cannot run.
    pub mistakes: Vec<String>,
}

/// Makes a stack of a project.
pub fn translate(loaded: &Loaded) -> Translated {
    let project = &loaded.project;
    let surroundings = Surroundings { app: app_name(&project.name), tree: Path::new(ROOT), closed: None, hosts: None };
    let Deployable { mut spec, obstacles, mistakes, .. } = deploy::app_spec(loaded, surroundings);
    // Here is one copy of everything, so that what only stands against releases beside each other stands against nothing.
    let said = |obstacles: Vec<Obstacle>| {
        obstacles.into_iter().filter(|obstacle| !obstacle.of_releases).map(|obstacle| placed(obstacle, project)).collect()
    };
    let mut translated = Translated {
        obstacles: said(obstacles),
        mistakes: said(mistakes),
        stack: Stack { parts: BTreeMap::new(), tree: None, files: files(project), spec: spec.clone() },
    };
    // What keeps data is started and stopped like everything else here: its volumes stay.
    spec.processes.append(&mut spec.services);
    spec.secrets.clear();
    let mut chosen = fixed_ports(project);
    for (title, service) in &project.services {
        let Some(name) = name_of(title, project, &spec.processes) else { continue };
        let Some(part) = spec.processes.get_mut(&name) else { continue };
        let mut writer = Writer { title, project, mistakes: &mut translated.mistakes, chosen: &mut chosen };
        writer.adapt(service, part);
        let made = Part {
            title: title.clone(),
            source: source(part.source.take()),
            rules: writer.rules(service),
            shown: service.attach != Some(false),
        };
        translated.stack.parts.insert(name, made);
    }
    translated.stack.spec = spec;
    translated
}

/// The files whose change changes the stack.
fn files(project: &Project) -> Vec<PathBuf> {
    let read = project.files().iter().map(PathBuf::from).filter(|file| file.is_absolute());
    read.chain([project.directory.join(".env")]).collect()
}

/// A project's name as an app's: labels have letters, digits and hyphens alone.
fn app_name(project: &str) -> AppName {
    let mut text: String = project.to_ascii_lowercase().replace(['_', '.'], "-");
    if !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        text.insert_str(0, "p-");
    }
    text.truncate(40);
    text.trim_end_matches('-').parse().or_else(|_| "dev".parse()).unwrap_or_else(|_| unreachable!("dev is a name"))
}

/// The ports of the machine that services ask for by number, which a range does not take from them.
fn fixed_ports(project: &Project) -> BTreeSet<(String, u16)> {
    let ports = project.services.values().flat_map(|service| &service.ports);
    ports.filter_map(|port| Some((port.protocol.clone(), port.published.as_deref()?.parse().ok()?))).collect()
}

/// The name that the mapping has given to a service: its own, else one under which it is still reached by its own.
fn name_of(title: &str, project: &Project, parts: &BTreeMap<ProcessName, ProcessSpec>) -> Option<ProcessName> {
    if let Some(name) = title.parse::<ProcessName>().ok().filter(|name| parts.contains_key(name)) {
        return Some(name);
    }
    let is_it = |(name, part): &(&ProcessName, &ProcessSpec)| {
        !project.services.contains_key(name.as_str()) && part.container.aliases.iter().any(|alias| alias == title)
    };
    parts.iter().find(is_it).map(|(name, _)| name.clone())
}

/// An obstacle with its file as a person would name it here.
fn placed(mut obstacle: Obstacle, project: &Project) -> String {
    if let Some(position) = &mut obstacle.position {
        let file = Path::new(ROOT).join(&position.file);
        position.file = file.strip_prefix(&project.directory).unwrap_or(&file).display().to_string();
    }
    obstacle.to_string()
}

fn on_machine(path: &str) -> PathBuf {
    let path = Path::new(ROOT).join(path);
    path.components().filter(|piece| !matches!(piece, std::path::Component::CurDir)).collect()
}

fn source(source: Option<ProcessSource>) -> Source {
    match source {
        Some(ProcessSource::Image { reference, pull }) => Source::Image { reference, pull },
        Some(ProcessSource::Build(build)) => {
            let PartBuild { context, dockerfile, target, args, mut extras } = *build;
            let contexts = std::mem::take(&mut extras.contexts).into_iter().map(|(name, context)| {
                let context = match context {
                    ContextSource::Folder(path) => NamedSource::Folder(on_machine(&path)),
                    ContextSource::Image(reference) => NamedSource::Image(reference),
                    ContextSource::Process(name) => NamedSource::Part(name),
                };
                (name, context)
            });
            let contexts = contexts.collect();
            let dockerfile = dockerfile.unwrap_or_else(|| "Dockerfile".to_owned());
            Source::Folder(Box::new(FolderBuild { context: on_machine(&context), dockerfile, target, args, extras, contexts }))
        }
        // The mapping has noted a mistake.
        None => Source::Tree,
    }
}

/// Writes one service.
struct Writer<'a> {
    title: &'a str,
    project: &'a Project,
    mistakes: &'a mut Vec<String>,
    /// Ports of the machine that some service has, by protocol.
    chosen: &'a mut BTreeSet<(String, u16)>,
}

impl Writer<'_> {
    fn wrong(&mut self, path: &[&str], message: impl Into<String>) {
        let path: Vec<&str> = ["services", self.title].into_iter().chain(path.iter().copied()).collect();
        let position = self.project.position(&path);
        let mut place = position.map(|position| format!("{position}: ")).unwrap_or_default();
        if let Some(inside) = place.strip_prefix(&format!("{}/", self.project.directory.display())) {
            place = inside.to_owned();
        }
        self.mistakes.push(format!("{place}{}: {}", path.join("."), message.into()));
    }

    fn adapt(&mut self, service: &Service, part: &mut ProcessSpec) {
        (part.exposure, part.task) = (Exposure::Hidden, false);
        let container = &mut part.container;
        // Compose starts nothing again that does not ask for it; whoever develops wants to see that it ended.
        let asks = service.restart.is_some() || service.deploy.as_ref().is_some_and(|deploy| deploy.restart_policy.is_some());
        if !asks {
            container.restart = RestartPolicy::Never;
        }
        for bind in &mut container.binds {
            let (path, made) = match &bind.source {
                BindSource::Tree(path) => (on_machine(path), false),
                BindSource::Kept(path) => (on_machine(path), true),
                BindSource::Host(path) => (PathBuf::from(path), false),
            };
            if made && let Err(error) = std::fs::create_dir_all(&path) {
                self.wrong(&["volumes"], format!("{} cannot be made: {error}", path.display()));
            }
            bind.source = BindSource::Host(path.display().to_string());
        }
        for file in &mut container.files {
            let FileContent::Config(name) = &file.content else { continue };
            match self.project.environment.get(name.as_str()) {
                Some(value) => file.content = FileContent::Inline(PrivateText::new(value.as_str())),
                None => self.wrong(&[], format!("{} comes from the variable {name}, which is not set", file.path)),
            }
        }
        part.container.ports = service.ports.iter().enumerate().filter_map(|(at, port)| self.published(at, port)).collect();
    }

    /// A port as it is published: on the loopback address unless the file names another one.
    fn published(&mut self, at: usize, port: &Port) -> Option<PublishedPort> {
        let protocol = match port.protocol.as_str() {
            "" | "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "sctp" => Transport::Sctp,
            // The mapping has noted a mistake.
            _ => return None,
        };
        let address = port.host_ip.as_deref().and_then(|ip| ip.trim_matches(['[', ']']).parse().ok());
        let on = |host| PublishedPort { target: port.target, protocol, host, address };
        let Some(published) = port.published.as_deref().filter(|text| !text.is_empty()) else { return Some(on(None)) };
        let (first, last) = published.split_once('-').unwrap_or((published, published));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            self.wrong(&["ports", &at.to_string()], format!("{published:?} is no port of this machine"));
            return None;
        };
        if first == last {
            return Some(on(Some(first)));
        }
        let is_left = |host: &u16| !self.chosen.contains(&(port.protocol.clone(), *host));
        // If none of a range is free, the first is told to be taken.
        let free =
            (first..=last).filter(is_left).map(|host| on(Some(host))).find(ports::is_free).unwrap_or_else(|| on(Some(first)));
        self.chosen.extend(free.host.map(|host| (port.protocol.clone(), host)));
        Some(free)
    }

    fn rules(&mut self, service: &Service) -> Vec<Rule> {
        let entries = service.develop.iter().flat_map(|develop| &develop.watch).enumerate();
        entries.filter_map(|(at, watch)| self.rule(service, at, watch)).collect()
    }

    fn rule(&mut self, service: &Service, at: usize, watch: &Watch) -> Option<Rule> {
        let at = at.to_string();
        let path = ["develop", "watch", at.as_str()];
        let action = match watch.action.as_str() {
            "rebuild" => Action::Rebuild,
            "restart" => Action::Restart,
            "sync" => Action::Sync,
            "sync+restart" => Action::SyncRestart,
            "sync+exec" => Action::SyncExec(self.program(&path, watch)?),
            other => {
                self.wrong(&path, format!("the action {other:?} is not known: rebuild, restart, sync, sync+restart, sync+exec"));
                return None;
            }
        };
        if matches!(action, Action::Rebuild) && service.build.is_none() {
            self.wrong(&path, "there is nothing to rebuild: the service has no `build`");
            return None;
        }
        let target = watch.target.clone().filter(|target| target.starts_with('/'));
        if !matches!(action, Action::Rebuild | Action::Restart) && target.is_none() {
            self.wrong(&path, "`target` must be an absolute path inside the container");
            return None;
        }
        let folder = self.project.directory.join(&watch.path);
        let folder: PathBuf = folder.components().collect();
        if !folder.exists() {
            self.wrong(&path, format!("there is no {} to watch", folder.display()));
            return None;
        }
        let mut rule = Rule::new(folder, action);
        (rule.target, rule.initial) = (target, watch.initial_sync);
        let rule = rule.ignoring(&watch.ignore).and_then(|rule| rule.including(&watch.include));
        match rule {
            Ok(rule) => Some(self.as_built(service, rule)),
            Err(error) => {
                self.wrong(&path, error.to_string());
                None
            }
        }
    }

    /// What the build of a service does not see needs no second look here either.
    fn as_built(&mut self, service: &Service, rule: Rule) -> Rule {
        let Some(build) = &service.build else { return rule };
        let context = self.project.directory.join(build.context.as_deref().unwrap_or("."));
        let Ok(context) = context.canonicalize() else { return rule };
        let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
        match DockerIgnore::for_dockerfile(&context, dockerfile) {
            Ok(ignore) => {
                let files = [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()];
                let text = files.iter().find_map(|file| rules_text(&context.join(file)));
                rule.without(context, ignore, text.unwrap_or_default())
            }
            Err(error) => {
                self.wrong(&["build"], error.to_string());
                rule
            }
        }
    }

    fn program(&mut self, path: &[&str], watch: &Watch) -> Option<Vec<String>> {
        let hook = watch.exec.as_ref();
        let plain = hook.filter(|hook| {
            !hook.command.is_empty()
                && hook.user.is_none()
                && !hook.privileged
                && hook.working_dir.is_none()
                && hook.environment.is_empty()
        });
        if plain.is_none() {
            self.wrong(
                path,
                "`sync+exec` needs `exec` with a `command`; user, privileged, working_dir and environment are not honoured",
            );
        }
        plain.map(|hook| hook.command.clone())
    }
}
