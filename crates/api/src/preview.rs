//! Branches of an app: the one that is deployed, and previews of others.

use coracle_model::AppName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The previews of an app, by branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewList {
    /// They.
    pub previews: Vec<Preview>,
}

/// A branch that has an app of its own for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Preview {
    /// The branch, as whoever pushed it called it.
    #[schema(example = "feature/x")]
    pub branch: String,
    /// The app that it is.
    #[schema(value_type = String, example = "shop-feature-x")]
    pub app: AppName,
    /// The app that it is a preview of.
    #[schema(value_type = String, example = "shop")]
    pub parent: AppName,
    /// Where it is reached.
    pub urls: Vec<String>,
    /// The commit that is live; none before the first deployment has succeeded.
    pub commit: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last pushed to.
    #[schema(value_type = String, format = DateTime)]
    pub pushed_at: Timestamp,
    /// When it ends if nobody pushes.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// Which preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PreviewBranch {
    /// Its branch.
    pub branch: String,
}

/// The branch of an app that is deployed when it is pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployBranch {
    /// Its name; `None`: nothing has been pushed, and the first of `main` and `master` that is will be it.
    #[schema(example = "main")]
    pub branch: Option<String>,
}

/// Another branch to deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchChange {
    /// Its name.
    pub branch: String,
}

/// What becomes of a branch that was pushed and is not the deployed one, if nothing is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum BranchAnswer {
    /// It is kept, as branches of apps without previews are.
    Kept,
    /// It is kept and gets no preview.
    WithoutPreview {
        /// Why: a sentence's end.
        why: String,
    },
    /// It goes, and no preview with it.
    Gone,
    /// It goes, and its preview is gone or on its way.
    PreviewGone {
        /// The app that it was.
        #[schema(value_type = String)]
        app: AppName,
    },
}
