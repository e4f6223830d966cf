//! What a Django project says of itself.

use coracle_model::EnvName;
use coracle_model::plan::CollectStatic;

use crate::detect::{PlanError, Tree};

/// How the static files are gathered: if the settings name a place for them, and the app that gathers them.
pub(super) fn collect_static(tree: &Tree<'_>) -> Result<Option<CollectStatic>, PlanError> {
    let Some(manage) = tree.source.read("manage.py")? else { return Ok(None) };
    let mut settings = Vec::new();
    for path in settings_files(tree, &manage) {
        settings.extend(tree.source.read(&path)?);
    }
    let lines = || settings.iter().flat_map(|text| text.lines());
    let has_root =
        lines().any(|line| assigned(line, "STATIC_ROOT").is_some_and(|value| !matches!(value, "None" | "''" | "\"\"")));
    if !has_root || !settings.iter().any(|text| text.contains("staticfiles")) {
        return Ok(None);
    }
    let mut placeholders: Vec<EnvName> = lines().filter_map(|line| assigned(line, "SECRET_KEY")).flat_map(names_in).collect();
    placeholders.sort();
    placeholders.dedup();
    Ok(Some(CollectStatic { placeholders }))
}

/// The files of the settings that `manage.py` names: `shop.settings` is a module, or a package of several.
fn settings_files(tree: &Tree<'_>, manage: &str) -> Vec<String> {
    let named = manage.lines().filter(|line| line.contains("DJANGO_SETTINGS_MODULE"));
    let Some(module) = named.flat_map(|line| line.split(['"', '\''])).find(|text| is_module(text)) else { return Vec::new() };
    let path = module.replace('.', "/");
    let folder = match tree.source.is_folder(&path) {
        true => Some(path.as_str()),
        false => path.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| folder.ends_with("settings")),
    };
    let mut files = vec![format!("{path}.py")];
    let beside = folder.into_iter().flat_map(|folder| tree.source.files_in(folder));
    files.extend(beside.filter(|file| file.ends_with(".py")));
    files.dedup();
    files
}

fn is_module(text: &str) -> bool {
    text != "DJANGO_SETTINGS_MODULE"
        && text.contains("settings")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
        && !text.split('.').any(str::is_empty)
}

/// What a line at the top level assigns to a name, without a comment.
fn assigned<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    let value = match rest.trim_start().strip_prefix(':') {
        Some(annotated) => annotated.split_once('=')?.1,
        None => rest.trim_start().strip_prefix('=').filter(|value| !value.starts_with('='))?,
    };
    Some(value.split(" #").next().unwrap_or(value).trim())
}

/// The names of variables in quotes: of `env("DJANGO_SECRET_KEY")`, that one.
fn names_in(value: &str) -> Vec<EnvName> {
    let is_name = |text: &&str| text.len() > 2 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    value.split(['"', '\'']).skip(1).step_by(2).filter(is_name).filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_out_of_what_is_assigned() {
        let names = |line: &str| {
            let value = assigned(line, "SECRET_KEY").unwrap_or_default();
            names_in(value).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("SECRET_KEY = os.environ[\"SECRET_KEY\"]"), ["SECRET_KEY"]);
        assert_eq!(names("SECRET_KEY: str = env('DJANGO_SECRET_KEY', 'unsafe-X')  # \"NOT_THIS\""), ["DJANGO_SECRET_KEY"]);
        for line in [
            "SECRET_KEY = 'django-insecure-abc'",
            "SECRET_KEYS = env('A_B_C')",
            "  SECRET_KEY = env('A_B_C')",
            "SECRET_KEY == 'A_B_C'",
        ] {
            assert_eq!(names(line), [""; 0], "{line}");
        }
    }
}
