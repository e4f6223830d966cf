//! The logs of an app: those of all its instances, as one stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_engine::{Engine, EngineError, LogLine, LogQuery};
use coracle_model::{AppName, InstanceId, ProcessName};
use coracle_store::StoreError;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::core::Core;
use crate::error::OrchestratorError;

/// While following, how often to look for instances that have appeared.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Lines = BoxStream<'static, (InstanceId, LogLine)>;

impl Core {
    /// What is there, in the order of time; then, if asked to follow, what comes.
    pub(crate) async fn logs(
        self: Arc<Self>,
        app: &AppName,
        process: Option<ProcessName>,
        query: LogQuery,
    ) -> Result<Lines, OrchestratorError> {
        let made_at = self.store.app(app).await?.created_at;
        let begun = jiff::Timestamp::now();
        let past = LogQuery { follow: false, ..query.clone() };
        let mut lines = Vec::new();
        for (engine, id) in self.instances_with_logs(app, process.as_ref()).await {
            lines.extend(stream(&engine, &id, &past).await?.collect::<Vec<_>>().await);
        }
        lines.sort_by_key(|(_, line)| line.at);
        let surplus = query.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        lines.drain(..surplus);
        if !query.follow {
            return Ok(futures::stream::iter(lines).boxed());
        }
        let last = lines.last().map_or(begun, |(_, line)| line.at);
        let shown: HashSet<(InstanceId, String)> =
            lines.iter().filter(|(_, line)| line.at == last).map(|(id, line)| (id.clone(), line.text.clone())).collect();
        let fresh = move |(id, line): &(InstanceId, LogLine)| line.at > last || !shown.contains(&(id.clone(), line.text.clone()));
        let follower = Follower {
            core: self,
            app: app.clone(),
            made_at,
            process,
            since: last,
            told: HashMap::new(),
            open: HashSet::new(),
            streams: SelectAll::new(),
            next_look: Instant::now(),
        };
        let coming = follower.into_stream().filter(move |line| std::future::ready(fresh(line)));
        Ok(futures::stream::iter(lines).chain(coming).boxed())
    }

    async fn instances_with_logs(&self, app: &AppName, process: Option<&ProcessName>) -> Vec<(Engine, InstanceId)> {
        let (instances, _) = self.all_instances().await;
        let of_app = |id: &InstanceId| id.app == *app && process.is_none_or(|process| id.process == *process);
        instances
            .into_iter()
            .filter(|(_, instance)| of_app(&instance.id))
            .filter_map(|(kind, instance)| Some((self.engines.get(&kind)?.clone(), instance.id)))
            .collect()
    }
}

/// The lines of one instance. One that goes away meanwhile has no more lines, which is no error.
async fn stream(engine: &Engine, id: &InstanceId, query: &LogQuery) -> Result<Lines, OrchestratorError> {
    match engine.runtime.logs(id, query).await {
        Ok(lines) => {
            let id = id.clone();
            Ok(lines.filter_map(move |line| std::future::ready(line.ok().map(|line| (id.clone(), line)))).boxed())
        }
        Err(EngineError::NoSuchInstance(_)) => Ok(futures::stream::empty().boxed()),
        Err(error) => Err(error.into()),
    }
}

/// Follows every instance of an app, also those that appear later.
struct Follower {
    core: Arc<Core>,
    app: AppName,
    /// When the app was made: another one may have its name later.
    made_at: jiff::Timestamp,
    process: Option<ProcessName>,
    since: jiff::Timestamp,
    /// Up to when each instance has been told. One that has ended is still there for a while, and its stream is opened
    /// again, since it may be started anew: that must not tell everything again.
    told: HashMap<InstanceId, jiff::Timestamp>,
    open: HashSet<InstanceId>,
    streams: SelectAll<BoxStream<'static, Followed>>,
    next_look: Instant,
}

enum Followed {
    Line(InstanceId, LogLine),
    Ended(InstanceId),
}

impl Follower {
    fn into_stream(self) -> impl futures::Stream<Item = (InstanceId, LogLine)> {
        futures::stream::unfold(self, |mut follower| async move {
            let line = follower.next_line().await?;
            Some((line, follower))
        })
    }

    /// The next line; `None` when the app is gone.
    async fn next_line(&mut self) -> Option<(InstanceId, LogLine)> {
        loop {
            if self.next_look <= Instant::now() {
                match self.core.store.app(&self.app).await {
                    Ok(record) if record.created_at != self.made_at => return None,
                    Err(StoreError::NoSuchApp(_)) => return None,
                    // What cannot be read just now may be there all the same.
                    Ok(_) | Err(_) => {}
                }
                self.open_new().await;
                self.next_look = Instant::now() + LOOK_EVERY;
            }
            let next = if self.streams.is_empty() { std::future::pending().boxed() } else { self.streams.next().boxed() };
            tokio::select! {
                followed = next => match followed {
                    Some(Followed::Line(id, line)) => {
                        self.told.insert(id.clone(), line.at);
                        return Some((id, line));
                    }
                    Some(Followed::Ended(id)) => drop(self.open.remove(&id)),
                    None => {}
                },
                () = tokio::time::sleep_until(self.next_look) => {}
            }
        }
    }

    async fn open_new(&mut self) {
        let instances = self.core.instances_with_logs(&self.app, self.process.as_ref()).await;
        self.told.retain(|told, _| instances.iter().any(|(_, id)| id == told));
        for (engine, id) in instances {
            if self.open.contains(&id) {
                continue;
            }
            // Times are told in microseconds, and all that an ended stream had for its last one has been told.
            let after = |at: &jiff::Timestamp| at.checked_add(jiff::SignedDuration::from_micros(1)).unwrap_or(*at);
            let since = self.told.get(&id).map_or(self.since, after);
            let query = LogQuery { tail: None, since: Some(since), follow: true };
            if let Ok(lines) = stream(&engine, &id, &query).await {
                self.open.insert(id.clone());
                let end = futures::stream::once(std::future::ready(Followed::Ended(id)));
                self.streams.push(lines.map(|(id, line)| Followed::Line(id, line)).chain(end).boxed());
            }
        }
    }
}
