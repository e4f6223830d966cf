//! How long parts of an app live, as far as `depends_on` has a say in it: tasks run to their end, and what outlives releases
//! cannot wait for what comes with them.

use std::collections::BTreeMap;

use coracle_model::ProcessName;
use coracle_model::stack::Condition;

use super::{Made, Maker, Obstacle};

/// What somebody waits for to be completed runs to its end once per release.
pub(super) fn find_tasks(made: &mut BTreeMap<ProcessName, Made>) {
    let waited: Vec<ProcessName> = made
        .values()
        .flat_map(|made| &made.part.depends_on)
        .filter(|(_, how)| how.condition == Condition::Completed)
        .map(|(name, _)| name.clone())
        .collect();
    for name in waited {
        if let Some(made) = made.get_mut(&name) {
            made.part.task = true;
            // What runs to its end keeps nothing running; its volumes stay all the same.
            made.keeps = false;
        }
    }
}

/// The processes that a part waits for.
fn awaited(made: &BTreeMap<ProcessName, Made>, of: &Made) -> Vec<ProcessName> {
    of.part.depends_on.keys().filter(|on| made.get(*on).is_some_and(|on| !on.keeps)).cloned().collect()
}

impl Maker<'_> {
    /// What keeps data is there before every release and outlives it, so it cannot wait for a process of one. What keeps data
    /// only because it writes to a volume (a web server with its certificates) is a process, then, and its volume stays.
    pub(super) fn put_behind_processes(&mut self, made: &mut BTreeMap<ProcessName, Made>) {
        let gives_way = |made: &BTreeMap<ProcessName, Made>| {
            let found = made.iter().find(|(_, of)| of.keeps && of.for_volume && !awaited(made, of).is_empty());
            found.map(|(name, _)| name.clone())
        };
        while let Some(name) = gives_way(made) {
            if let Some(of) = made.get_mut(&name) {
                of.keeps = false;
            }
            let kept = format!("{name} keeps data, ");
            self.notes.retain(|note| !note.starts_with(&kept));
            self.notes.push(format!(
                "{name} comes with every release, since it waits for others that do; what it writes to volumes stays"
            ));
        }
        let names: Vec<(String, ProcessName)> = self.names.clone().into_iter().collect();
        for (service, name) in names {
            let Some(of) = made.get(&name).filter(|of| of.keeps) else { continue };
            for on in awaited(made, of) {
                let title = self.names.iter().find(|(_, name)| **name == on).map_or(on.to_string(), |(title, _)| title.clone());
                let message = format!(
                    "{service} keeps data and is there before any release is, so it cannot wait for {title}, which comes with each; \
                     leave that out, or say `x-coracle: {{stateful: false}}` of {service} or `true` of {title}"
                );
                let told = Obstacle { of_releases: true, ..self.told(&["services", &service, "depends_on", &title], message) };
                self.obstacles.push(told);
            }
        }
    }
}
