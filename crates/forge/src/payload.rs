//! The payloads, as far as anything of them is wanted; serde passes over everything else. Depth is bounded by serde_json (128),
//! size by whoever reads the body.

pub(crate) mod bitbucket;
pub(crate) mod github;
pub(crate) mod gitlab;
