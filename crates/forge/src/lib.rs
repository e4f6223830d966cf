//! Forges, where repositories are hosted: which one a webhook comes from, whether it is really from there, what it tells, and
//! what is reported back.
//!
//! It knows no deployments, opens no repository and keeps nothing. A payload is read after its signature has been verified, and
//! what it holds is still somebody else's words: names are checked, everything that is not needed is passed over.

mod api;
mod branch;
mod commit;
mod delivery;
mod event;
mod forge;
mod payload;
mod report;
mod signature;
mod url;

pub use api::{Api, ApiError, ApiUrl, ApiUrlError};
pub use branch::{Branch, BranchError};
pub use commit::{Commit, CommitError};
pub use delivery::delivery_id;
pub use event::{Event, PayloadError, PullRequestAction, read};
pub use forge::{Forge, ForgeError};
pub use report::{Report, State, Target, reports};
pub use signature::{Unverified, Verification, new_secret};
pub use url::{RepositoryUrl, Scheme, UrlError};
