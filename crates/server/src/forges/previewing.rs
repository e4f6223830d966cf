//! Branches beside the one that is deployed: where `[previews]` of the live release names them, they are fetched into a preview of
//! their own, which goes with them.

use coracle_api::ChangeOptions;
use coracle_forge::Branch;
use coracle_model::AppName;
use coracle_store::{ForgeRecord, StoreError};

use super::deploying::{End, follow};
use super::reporting::Reporting;
use super::{BRANCHES, Change, Connected, Forges, Heard, Kind, Lane, LaneId};
use crate::deployments::{Files, Work};
use crate::previews::{Admitted, Came};

impl Forges {
    /// A branch beside the one that is deployed has moved.
    pub(super) async fn moved_beside(&self, record: &ForgeRecord, branch: &Branch) -> Result<Heard, StoreError> {
        let (app, deployed) = (&record.app, &record.branch);
        if !self.inner.means.previews.are_wanted(app, branch.as_str()).await? {
            return Ok(Heard::Nothing(format!("{branch} is not deployed: {deployed} is")));
        }
        Ok(match self.put_beside(app, branch, Change::Moved) {
            true => Heard::Beside(format!("{branch} is fetched into its preview: coracle previews -a {app}")),
            false => Heard::Nothing(format!("{branch} gets no preview now: {BRANCHES} others wait for theirs")),
        })
    }

    /// A branch beside the one that is deployed is gone.
    pub(super) async fn gone_beside(&self, record: &ForgeRecord, branch: &Branch) -> Result<Heard, StoreError> {
        let app = &record.app;
        let has_preview = self.inner.means.store.preview_of(app, branch.as_str()).await?.is_some();
        let id = LaneId::of(app, Kind::Beside);
        let is_on_its_way = || self.lanes().0.get(&id).is_some_and(|lane| lane.waits().beside.contains_key(branch));
        if !has_preview && !is_on_its_way() {
            return Ok(Heard::Nothing(format!("{branch} is not deployed: nothing goes with it")));
        }
        Ok(match self.put_beside(app, branch, Change::Gone) {
            true => Heard::Beside(format!("{branch} goes, and its preview with it")),
            false => Heard::Nothing(format!("the preview of {branch} stays until its time is over: {BRANCHES} branches wait")),
        })
    }

    /// What has become of a branch last is what counts.
    fn put_beside(&self, app: &AppName, branch: &Branch, change: Change) -> bool {
        self.put(LaneId::of(app, Kind::Beside), |waiting| {
            let has_room = waiting.beside.len() < BRANCHES || waiting.beside.contains_key(branch);
            if has_room {
                waiting.beside.insert(branch.clone(), change);
            }
            has_room
        })
    }

    /// Fetches a branch, and has it deployed into its preview, while the lane goes on.
    pub(super) async fn preview(&self, app: &AppName, branch: &Branch, lane: &Lane) {
        let means = &self.inner.means;
        let record = match means.store.forge(app).await {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(error) => return tracing::error!(%app, %error, "the connection with a repository cannot be read"),
        };
        if record.branch == branch.as_str() {
            // It has become the one that is deployed.
            return;
        }
        let fetched = self.fetch(&record, branch, lane).await;
        if !self.is_connected(&Connected::of(&record, branch)).await {
            return;
        }
        let failed = |word: String| End::failure(format!("{branch}: {word}"), "it gets no preview");
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(word) => return self.conclude(app, None, failed(word), None).await,
        };
        let commit = fetched.tip.commit.clone();
        let preview = match means.previews.branch_came(app, branch.as_str(), commit.as_str()).await {
            Ok(Came::Preview(preview)) => preview,
            Ok(Came::Without(why)) => return self.conclude(app, Some(commit), failed(why), None).await,
            Ok(Came::NoPreviews) => return,
            Err(problem) => return self.conclude(app, Some(commit), failed(problem.detail), None).await,
        };
        let forges = self.clone();
        let (record, files) = (record.clone(), Files::Fetched(fetched));
        means.tasks.spawn(async move { forges.deploy_preview(&record, preview, files, &commit).await });
    }

    async fn deploy_preview(&self, record: &ForgeRecord, preview: Admitted, files: Files, commit: &coracle_git_door::ObjectId) {
        let (into, short) = (preview.record.app.clone(), commit.as_str()[..12].to_owned());
        let reporting = Reporting::begin(self, record, &into, commit, false);
        let options = ChangeOptions { detach: true, wait: true };
        let journal = self.inner.means.deployments.begin(into.clone(), Work::Preview(Box::new(preview), files), options);
        let end = follow(&journal, None, &short).await;
        let end = End { word: format!("{into}: {}", end.word), told: format!("{into}: {}", end.told), ..end };
        self.conclude(&record.app, Some(commit.clone()), end, Some(reporting)).await;
    }

    /// Ends the preview of a branch.
    pub(super) async fn end_preview(&self, app: &AppName, branch: &Branch) {
        if let Err(problem) = self.inner.means.previews.branch_gone(app, branch.as_str()).await {
            tracing::warn!(%app, %branch, detail = problem.detail, "a preview outlives its branch until its time is over");
        }
        if let Err(error) = self.inner.means.door.forget_fetched(app, Some(branch.as_str())).await {
            tracing::warn!(%app, %branch, %error, "what was fetched of a branch that is gone stays");
        }
    }
}
