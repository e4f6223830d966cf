//! Django's own server, and its `DEBUG`.

use coracle_model::plan::Recipe;
use coracle_model::policy::Rule;

use super::flask;
use crate::observation::Observation;
use crate::subject::Looked;

/// Django's commands that serve for whoever develops.
const SERVING: [&str; 3] = ["runserver", "runserver_plus", "testserver"];

/// Such a command, if that is what the words say.
pub(super) fn verb<'a>(rest: &[&'a str]) -> Option<&'a str> {
    let verb = rest.iter().copied().find(|word| !word.starts_with('-'))?;
    SERVING.contains(&verb).then_some(verb)
}

/// The settings say `DEBUG = True`, whatever the environment says.
pub(super) fn debug(looked: &Looked<'_>) -> Option<Observation> {
    if matches!(looked.part.recipe, Recipe::Image { .. } | Recipe::Static { .. } | Recipe::Node(_)) {
        return None;
    }
    let module = settings_module(looked)?;
    let path = format!("{}.py", module.replace('.', "/"));
    let path = [path.clone(), format!("src/{path}")].into_iter().find(|path| looked.source.is_file(path))?;
    let text = looked.read(&path)?;
    let mut found = None;
    for (number, line) in flask::code(&text) {
        let is_indented = line.starts_with([' ', '\t']);
        let statement = line.split('#').next().unwrap_or(line).trim();
        let assigned = statement.split_once('=').filter(|(name, _)| name.split(':').next().unwrap_or(name).trim() == "DEBUG");
        match assigned {
            Some((_, value)) if !value.starts_with('=') => {
                found = (!is_indented && value.trim() == "True").then_some(number);
                // What depends on something is not known here.
                if is_indented {
                    return None;
                }
            }
            // Local settings that are read last may say otherwise.
            _ if statement.starts_with("from ") && statement.ends_with("import *") => found = None,
            _ => {}
        }
    }
    let line = u32::try_from(found? + 1).ok()?;
    let sentence = looked.of_part("Django's DEBUG is True: errors show settings and source to everybody");
    let mend = "read it from the environment: DEBUG = os.environ.get(\"DEBUG\") == \"1\"";
    Some(Observation::new(Rule::DevelopmentServer, sentence, mend).at(looked.path(&path), line))
}

/// The settings that are in force: those of the environment, else those that the programs of the project name.
fn settings_module(looked: &Looked<'_>) -> Option<String> {
    const NAME: &str = "DJANGO_SETTINGS_MODULE";
    let manage = looked.read("manage.py").or_else(|| looked.read("src/manage.py"))?;
    let of_config = looked.subject.config.iter().find(|(name, ..)| name.as_str() == NAME).map(|(_, value, _)| value.expose());
    let of_image = || {
        let facts = looked.part.facts.as_ref()?;
        facts.env.iter().find(|(name, _)| name == NAME).map(|(_, value)| value.as_str())
    };
    let given = of_config.or_else(|| looked.part.env.get(NAME).map(String::as_str)).or_else(of_image);
    let module = match given {
        Some(module) => module.to_owned(),
        None => {
            let (_, rest) = manage.split_once(NAME)?;
            rest.split(['"', '\'']).find(|text| text.contains('.') && !text.contains([' ', '(', ')'])).map(str::to_owned)?
        }
    };
    let is_module = module.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    is_module.then_some(module)
}
