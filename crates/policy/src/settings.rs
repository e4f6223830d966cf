//! How much each rule weighs: by default, by the app's word, by the server's.

use std::collections::BTreeMap;

use coracle_model::Finding;
use coracle_model::policy::{Level, Rule};

use crate::observation::Observation;
use crate::rules::explain;

/// What an app says of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// What a release that breaks it leads to.
    pub level: Level,
    /// Why.
    pub reason: Option<String>,
}

/// The `[policy]` section of `coracle.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub(crate) rules: BTreeMap<Rule, Setting>,
}

/// What a server says of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSetting {
    /// What holds for apps that say nothing, and the least for those that do.
    pub level: Level,
    /// Whether apps may say less.
    pub may_loosen: bool,
    /// Why.
    pub reason: Option<String>,
}

/// What the administrator of a server says of rules, for all of its apps. The default says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerPolicy {
    pub(crate) rules: BTreeMap<Rule, ServerSetting>,
}

impl Policy {
    /// What the app says of a rule, if it says anything.
    pub fn setting(&self, rule: Rule) -> Option<&Setting> {
        self.rules.get(&rule)
    }

    /// What observations lead to, those that lead to nothing included, in the order of the rules.
    pub fn judge(&self, server: &ServerPolicy, observations: Vec<Observation>) -> Vec<Finding> {
        let mut findings: Vec<Finding> = observations.into_iter().map(|seen| self.finding(server, seen)).collect();
        findings.sort_by_key(|finding| Rule::ALL.iter().position(|rule| *rule == finding.rule));
        findings
    }

    fn finding(&self, server: &ServerPolicy, seen: Observation) -> Finding {
        let Observation { rule, what, place, mend, surely } = seen;
        let (own, above) = (self.setting(rule), server.rules.get(&rule));
        let by_default = if surely { Level::Block } else { Level::Warn };
        let said = own.map(|own| own.level);
        let level = match above {
            None => said.unwrap_or(by_default),
            Some(above) if above.may_loosen => said.unwrap_or(above.level),
            Some(above) => said.unwrap_or(above.level).max(above.level),
        };
        let is_servers = above.is_some_and(|above| level == above.level && said != Some(level));
        let is_bound = above.is_some_and(|above| !above.may_loosen && above.level == level && level > Level::Off);
        let reason =
            if is_servers { above.and_then(|above| above.reason.clone()) } else { own.and_then(|own| own.reason.clone()) };
        let silence = match is_bound {
            true => format!("only the administrator of this server can: its policy says {rule} = \"{level}\""),
            false => format!("[policy] {rule} = {{ level = \"off\", reason = \"…\" }} in coracle.toml"),
        };
        Finding { rule, level, what, place, why: explain(rule).why.to_owned(), mend, silence, reason }
    }
}
