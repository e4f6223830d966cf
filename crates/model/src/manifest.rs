//! `coracle.toml`: strict reading, with the place of every mistake.
//!
//! A key that is unknown, or known to the design but not honoured by this version, is an error and never dropped; keys that
//! begin with `x-` are the author's own. All mistakes are told at once, as far as the text can be read at all.

mod beside_compose;
mod layer;
mod middlewares;
mod previews;
mod services;
mod tables;
mod template;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;

use coracle_toml_reading::{Mistake, Values, cut};

pub use beside_compose::{ComposeChoice, Overlay};
pub use coracle_toml_reading::Mistakes as ManifestErrors;
pub use template::{TemplateFacts, template};

use crate::names::AppName;
use crate::spec::AppSpec;
use layer::Layer;

/// What other crates read their own sections of the same file with, so that a mistake in them looks the same.
pub mod reading {
    pub use super::tables::{environment, word};
    pub use super::values::{Keys, command, entries};
}

/// What the file is called.
pub const FILE: &str = "coracle.toml";
/// Bytes of the largest manifest that is read.
pub const LARGEST: usize = 1 << 20;

/// A manifest as it stands in the file, checked. The default is that of an app without one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manifest {
    base: Layer,
    environments: BTreeMap<String, Layer>,
}

impl Manifest {
    /// Reads the text of a `coracle.toml`.
    pub fn parse(text: &str) -> Result<Self, ManifestErrors> {
        if text.len() > LARGEST {
            let message = format!("the manifest is larger than {} KiB", LARGEST / 1024);
            return Err(placeless("", message, None));
        }
        let document = coracle_toml_reading::parse(FILE, text)?;
        let mut values = Values::new(FILE, text);
        let (base, environments) = tables::document(&mut values, &document);
        values.mistakes.finish()?;
        Ok(Self { base, environments })
    }

    /// The app as it runs in an environment (`None`: without any overlay). `fallback_name` is used where the manifest
    /// names no app: the folder's name.
    ///
    /// In the environment `staging` the app `shop` is called `shop-staging`, unless the overlay names it, and is reached at
    /// the overlay's hosts or else at the default one for its name: the hosts of the manifest itself are not handed down.
    pub fn resolve(&self, fallback_name: Option<AppName>, environment: Option<&str>) -> Result<AppSpec, ManifestErrors> {
        let base_name = self.base.app.clone().or(fallback_name);
        let Some(environment) = environment else {
            let app = base_name.ok_or_else(nameless)?;
            return Ok(self.base.clone().into_spec(app));
        };
        let Some(overlay) = self.environments.get(environment) else { return Err(self.unknown_environment(environment)) };
        let app = match &overlay.app {
            Some(app) => app.clone(),
            None => environment_name(&base_name.ok_or_else(nameless)?, environment)?,
        };
        Ok(self.base.under(overlay).into_spec(app))
    }

    /// The name of the app, if the manifest says one.
    pub fn app(&self) -> Option<&AppName> {
        self.base.app.as_ref()
    }

    /// The names of its environments.
    pub fn environments(&self) -> Vec<&str> {
        self.environments.keys().map(String::as_str).collect()
    }

    /// The environment in which the app is called so, if the manifest itself calls it otherwise and just one does.
    pub fn environment_called(&self, app: &AppName) -> Option<&str> {
        let base = self.base.app.as_ref().filter(|base| *base != app)?;
        let mut called = self.environments.iter().filter(|(name, overlay)| match &overlay.app {
            Some(own) => own == app,
            None => environment_name(base, name).is_ok_and(|own| own == *app),
        });
        let (name, _) = called.next()?;
        called.next().is_none().then_some(name)
    }

    fn unknown_environment(&self, wanted: &str) -> ManifestErrors {
        let hint = if self.environments.is_empty() {
            "there are none; write [environments.NAME] to have one".to_owned()
        } else {
            format!("known: {}", self.environments().join(", "))
        };
        let message = format!("there is no environment {:?}", cut(wanted));
        placeless("environments", message, Some(hint))
    }
}

fn environment_name(base: &AppName, environment: &str) -> Result<AppName, ManifestErrors> {
    format!("{base}-{environment}").parse().map_err(|error: crate::names::NameError| {
        let hint = format!("write `app = \"…\"` under [environments.{environment}]");
        placeless(&format!("environments.{environment}"), error.to_string(), Some(hint))
    })
}

fn nameless() -> ManifestErrors {
    let hint = "write `app = \"…\"` in its first line, or give the name with --app".to_owned();
    placeless("app", "the app has no name".to_owned(), Some(hint))
}

/// A mistake that is not at any line of the file.
fn placeless(key: &str, message: String, hint: Option<String>) -> ManifestErrors {
    ManifestErrors { file: FILE, all: vec![Mistake::placeless(key, message, hint)] }
}
