//! Finding the route among many.

use crate::request::Request;
use crate::{Facts, Rule};

/// Rules with what they lead to, indexed.
#[derive(Debug)]
pub struct Router<T> {
    entries: Vec<(Rule, T)>,
}

impl<T> Router<T> {
    /// Takes rules with their priorities. Of several that match, the one with the highest priority is found; of equals, the
    /// one given first.
    pub fn new(routes: impl IntoIterator<Item = (Rule, i64, T)>) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by_key(|(_, priority, _)| std::cmp::Reverse(*priority));
        Self { entries: routes.into_iter().map(|(rule, _, value)| (rule, value)).collect() }
    }

    /// The first that matches.
    pub fn find(&self, facts: &impl Facts) -> Option<&T> {
        self.find_where(facts, |_| true)
    }

    /// The first that matches and is accepted.
    pub fn find_where(&self, facts: &impl Facts, accept: impl Fn(&T) -> bool) -> Option<&T> {
        let request = Request::new(facts);
        self.entries.iter().find(|(rule, value)| rule.expression.is_match(&request) && accept(value)).map(|(_, value)| value)
    }
}
