//! Previews that somebody works on, or waits to: whoever leaves last looks whether there is anything to leave behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::AppName;
use coracle_store::PreviewRecord;

/// How many work on each preview or wait for it, and when its branch came last, in microseconds as it is on record.
#[derive(Default, Clone)]
pub(crate) struct Expected(Arc<Mutex<HashMap<AppName, (usize, i64)>>>);

/// One that works on a preview or waits for it, until it leaves.
pub(crate) struct Coming {
    app: AppName,
    expected: Option<Expected>,
}

/// The last one has left.
pub(crate) struct Left {
    /// The preview.
    pub app: AppName,
    came: i64,
}

impl Expected {
    fn all(&self) -> MutexGuard<'_, HashMap<AppName, (usize, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit of the branch is to go into its preview.
    pub(crate) fn comes(&self, preview: &PreviewRecord) -> Coming {
        let came = preview.pushed_at.as_microsecond();
        let mut all = self.all();
        let (count, latest) = all.entry(preview.app.clone()).or_insert((0, came));
        (*count, *latest) = (*count + 1, came.max(*latest));
        Coming { app: preview.app.clone(), expected: Some(self.clone()) }
    }
}

impl Coming {
    /// Leaves; told if it was the last one.
    pub(crate) fn leaves(mut self) -> Option<Left> {
        self.leave()
    }

    fn leave(&mut self) -> Option<Left> {
        let expected = self.expected.take()?;
        let mut all = expected.all();
        let (count, came) = all.get_mut(&self.app)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        let came = *came;
        all.remove(&self.app);
        Some(Left { app: self.app.clone(), came })
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Left {
    /// Whether the branch has not come again since.
    pub(crate) fn is_latest(&self, now: &PreviewRecord) -> bool {
        now.pushed_at.as_microsecond() == self.came
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn whoever_leaves_last_is_told_whether_the_branch_has_come_again() {
        let at = |second: i64| PreviewRecord {
            app: "shop-fix".parse().unwrap(),
            parent: "shop".parse().unwrap(),
            branch: "fix".to_owned(),
            host: "shop-fix.localhost".parse().unwrap(),
            commit: None,
            ttl: 3600,
            created_at: Timestamp::UNIX_EPOCH,
            pushed_at: Timestamp::from_second(second).unwrap(),
            expires_at: Timestamp::UNIX_EPOCH,
        };
        let expected = Expected::default();
        let (first, second) = (expected.comes(&at(1)), expected.comes(&at(2)));
        // The newer one gives up while the older one is worked on.
        assert!(second.leaves().is_none());
        let left = first.leaves().unwrap();
        assert!(left.is_latest(&at(2)) && !left.is_latest(&at(3)));
        // One that broke off is no longer waited for.
        let (third, fourth) = (expected.comes(&at(3)), expected.comes(&at(3)));
        drop(third);
        assert!(fourth.leaves().unwrap().is_latest(&at(3)));
    }
}
