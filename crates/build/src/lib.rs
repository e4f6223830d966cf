//! What to build and how: looks at a tree and says which recipe fits, reads Procfiles and ignore files, and packs trees
//! into archives and out of them again.
//!
//! Runs nothing, talks to no engine and no network: engines carry out what is decided here.

pub mod archive;
pub mod context;
pub mod detect;
pub mod dockerfile;
pub mod ignore;
mod lacking;
pub mod parcel;
pub mod procfile;
pub mod static_site;
mod tree;
mod workspace;

pub use archive::{
    PackError, PackFacts, UnpackError, UnpackFacts, UnpackLimits, compose_ignore, pack, prune, source_ignore, unpack, unpack_tar,
};
pub use context::{fingerprint_context, tar_context};
pub use detect::source::Source;
pub use detect::{PlanError, plan, plan_without};
pub use ignore::{DockerIgnore, IgnoreError, LARGEST_IGNORE_FILE};
pub use lacking::{Lacking, lacking};
pub use parcel::{ParcelError, ParcelFacts, ParcelLimits};
pub use procfile::{Procfile, ProcfileError};
pub use workspace::{copy_for_all, copy_for_all_until};
