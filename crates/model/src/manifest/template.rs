//! The manifest that `coracle init` writes.

use crate::names::AppName;

/// What is known about a tree when its first manifest is written.
#[derive(Debug, Clone, Default)]
pub struct TemplateFacts {
    /// Why it will be built the way it will: `found Dockerfile`.
    pub reason: Option<String>,
    /// The health path to suggest.
    pub health: Option<String>,
    /// The release command found, if any. It stays a comment, since the Procfile already says it.
    pub release_command: Option<String>,
}

/// A short commented manifest to begin with. It parses.
pub fn template(app: &AppName, facts: &TemplateFacts) -> String {
    let reason = match &facts.reason {
        Some(reason) => format!("# How it is built: {}.\n", one_line(reason)),
        None => String::new(),
    };
    let health = match &facts.health {
        Some(path) => format!("health = {}", quoted(path)),
        None => "# health = \"/health\"          # a path that answers 2xx when the app is ready".to_owned(),
    };
    let release = quoted(facts.release_command.as_deref().unwrap_or("python manage.py migrate"));
    format!(
        r#"# The manifest of Coracle. Every line but the first may go: the defaults are meant to be right.
app = "{app}"

{reason}# [build]
# memory = "1G"                # what a build may use; default: half of the machine

[http]
# hosts = ["{app}.example.com"]  # default: {app}.localhost
{health}

[deploy]
# release_command = {release}
drain = "30s"                  # how long requests on the old release may take to end
keep = 10                      # releases that `coracle rollback` can go back to

# [pipeline.steps.test]        # what must succeed before a release goes live
# run = "python -m pytest -q"

# [processes.web]
# replicas = 2
# memory = "256M"

[env]                          # plain values; `coracle config set` overrides them
# LOG_LEVEL = "info"

# secrets = ["SECRET_KEY"] belongs above the first table: names that must be set before a deploy
"#
    )
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::String(one_line(text)).to_string()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
