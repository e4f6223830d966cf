//! A release that waits for a person: what the app demands, and what was decided.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::PersonName;
use crate::quantity::Span;

/// That somebody has to allow a release before anything of it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// How long it waits for that.
    pub timeout: Span,
    /// Whether it has to be somebody else than who brought it.
    pub by_another: bool,
}

impl ApprovalRule {
    /// What holds if both do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { timeout: self.timeout.min(other.timeout), by_another: self.by_another || other.by_another }
    }
}

impl Default for ApprovalRule {
    fn default() -> Self {
        Self { timeout: Span::seconds(24 * 3600), by_another: false }
    }
}

/// Who brought a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bringer {
    /// The administrator of this server.
    Administrator,
    /// A person who is on record here.
    Person(PersonName),
    /// Whoever pushed to the repository at a forge: nobody whom this server knows.
    Forge,
}

impl std::fmt::Display for Bringer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Administrator => f.write_str("the administrator"),
            Self::Person(name) => name.fmt(f),
            Self::Forge => f.write_str("a push to the repository at the forge"),
        }
    }
}

/// A deployment's wait for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What is demanded.
    pub rule: ApprovalRule,
    /// Who brought the release.
    pub brought_by: Bringer,
    /// Since when it waits.
    pub asked_at: Timestamp,
    /// Until when it waits.
    pub until: Timestamp,
    /// What was decided; `None` as long as nobody has.
    pub decision: Option<Decision>,
}

impl Approval {
    /// Whether somebody may allow the release, as far as that depends on who brought it; `None`: the administrator.
    pub fn may_be_given_by(&self, person: Option<&PersonName>) -> bool {
        !self.rule.by_another
            || match &self.brought_by {
                Bringer::Administrator => person.is_some(),
                Bringer::Person(name) => person != Some(name),
                // It may be any person who pushed there.
                Bringer::Forge => person.is_none(),
            }
    }
}

/// What a person decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the release may go live.
    pub approved: bool,
    /// Who said so; `None`: the administrator.
    pub by: Option<PersonName>,
    /// When.
    pub at: Timestamp,
    /// Why, in that person's words.
    pub reason: Option<String>,
}

impl Decision {
    /// Who decided, as people are told.
    pub fn who(&self) -> String {
        self.by.as_ref().map_or_else(|| "the administrator".to_owned(), ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_two_rules_the_stricter_of_each_holds() {
        let lax = ApprovalRule::default();
        let strict = ApprovalRule { timeout: Span::seconds(60), by_another: true };
        assert_eq!(lax.and(strict), strict);
        assert_eq!(strict.and(lax), strict);
    }

    #[test]
    fn nobody_allows_his_own_where_another_is_wanted() {
        let person = |name: &str| Bringer::Person(name.parse().unwrap());
        let approval = |by_another, brought_by| Approval {
            rule: ApprovalRule { by_another, ..ApprovalRule::default() },
            brought_by,
            asked_at: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            decision: None,
        };
        let ana = "ana".parse().unwrap();
        assert!(approval(false, person("ana")).may_be_given_by(Some(&ana)));
        assert!(!approval(true, person("ana")).may_be_given_by(Some(&ana)));
        assert!(approval(true, person("bob")).may_be_given_by(Some(&ana)));
        assert!(approval(true, person("ana")).may_be_given_by(None));
        assert!(!approval(true, Bringer::Administrator).may_be_given_by(None));
        assert!(approval(true, Bringer::Administrator).may_be_given_by(Some(&ana)));
        assert!(!approval(true, Bringer::Forge).may_be_given_by(Some(&ana)));
        assert!(approval(true, Bringer::Forge).may_be_given_by(None));
    }
}
