//! What a container is and runs as: `root`, `latest`, `health`, `ignore`.

use coracle_model::EngineKind;
use coracle_model::plan::Recipe;
use coracle_model::policy::Rule;

use super::image_name;
use crate::dockerfile::Base;
use crate::observation::{Observation, plain};
use crate::subject::Looked;

/// Programs that go on as another user.
const STEP_DOWN: [&str; 6] = ["gosu", "su-exec", "setpriv", "runuser", "s6-setuidgid", "chpst"];

/// The image of the app's own runs as root.
pub(super) fn root(looked: &Looked<'_>) -> Vec<Observation> {
    let part = looked.part;
    let is_of_others = part.name.is_some() && matches!(part.recipe, Recipe::Image { .. });
    if part.engine != EngineKind::Docker || part.keeps_data || is_of_others {
        return Vec::new();
    }
    let mend = match part.recipe {
        Recipe::Dockerfile { .. } => "end the Dockerfile with a user of its own: `RUN useradd --system app` and `USER app`",
        _ => "build an image from it that has a `USER`",
    };
    if let Some(user) = &part.user {
        let sentence = looked.of_part("runs as root, since it is told to");
        return if is_root(user) {
            vec![Observation::new(Rule::Root, sentence, "take `user` out, or name another")]
        } else {
            Vec::new()
        };
    }
    let place = looked.dockerfile.as_ref().map(|(file, target)| {
        let (user, _) = file.effective(*target, "USER");
        user.map_or_else(|| file.stages[*target].line, |user| user.line)
    });
    let seen = match (&part.facts, &looked.dockerfile) {
        (Some(facts), _) => is_root(&facts.user).then(|| "its image runs as root".to_owned()),
        // Before it is built nobody knows what its base image says, but nearly all say nothing.
        (None, Some((file, target))) => match file.effective(*target, "USER") {
            (Some(user), _) => is_root(&user.text).then(|| "its Dockerfile says USER root".to_owned()),
            (None, Base::Image(base)) if image_name::is_rootless(base) => None,
            (None, base) => {
                let of_base = if matches!(base, Base::Image(_)) { ", unless its base image says otherwise" } else { "" };
                Some(format!("its Dockerfile says no USER, so it runs as root{of_base}"))
            }
        },
        (None, None) => None,
    };
    let Some(sentence) = seen.filter(|_| !steps_down(looked)) else { return Vec::new() };
    let seen = Observation::new(Rule::Root, looked.of_part(&sentence), mend);
    vec![match place {
        Some(line) => seen.at(looked.dockerfile_path(), line),
        None => seen,
    }]
}

/// `root`, `0`, `0:0`, or nobody at all.
fn is_root(user: &str) -> bool {
    let name = user.trim().trim_matches(['"', '\'']).split(':').next().unwrap_or_default();
    matches!(name, "" | "root" | "0")
}

/// Whether what is started first goes on as somebody else.
fn steps_down(looked: &Looked<'_>) -> bool {
    let mut words: Vec<String> = Vec::new();
    if let Some(facts) = &looked.part.facts {
        words.extend(facts.entrypoint.iter().chain(&facts.command).cloned());
    } else if let Some((file, target)) = &looked.dockerfile {
        for keyword in ["ENTRYPOINT", "CMD"] {
            words.extend(file.effective(*target, keyword).0.map(|it| it.argv()).unwrap_or_default());
        }
    }
    words.extend(looked.part.programs.iter().flat_map(|program| program.argv.iter().cloned()));
    let steps = |text: &str| {
        let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | '"' | '\'' | '(' | ')' | '/'));
        words.any(|word| STEP_DOWN.contains(&word))
    };
    let script = |word: &String| {
        let names = [word.trim_start_matches("./"), word.rsplit('/').next().unwrap_or(word)];
        let is_script = |name: &&str| name.ends_with(".sh") || name.contains("entrypoint");
        names.into_iter().filter(is_script).find_map(|name| looked.read(name)).is_some_and(|text| steps(&text))
    };
    words.iter().any(|word| steps(word) || script(word))
}

/// Images that move.
pub(super) fn latest(looked: &Looked<'_>) -> Vec<Observation> {
    let mend = "name a version, as in python:3.12-slim, or pin the digest: name@sha256:…";
    if let Recipe::Image { reference, .. } = &looked.part.recipe {
        let Some(how) = image_name::moves(reference) else { return Vec::new() };
        let sentence = looked.of_part(&format!("the image {} {how}", plain(reference)));
        return vec![Observation::new(Rule::Latest, sentence, mend)];
    }
    let Some((file, target)) = &looked.dockerfile else { return Vec::new() };
    let Recipe::Dockerfile { extras, .. } = &looked.part.recipe else { return Vec::new() };
    let (path, mut seen) = (looked.dockerfile_path(), Vec::new());
    // Names that the build is given are no images.
    let is_given = |name: &str| extras.contexts.contains_key(name);
    for at in file.used(*target) {
        let stage = &file.stages[at];
        if let Base::Image(image) = file.base(at)
            && let Some(how) = image_name::moves(image).filter(|_| !is_given(image))
        {
            let sentence = format!("the base image {} {how}", plain(&stage.base));
            seen.push(Observation::new(Rule::Latest, sentence, mend).at(&path, stage.line));
        }
        for copy in &stage.instructions {
            if let Some(Base::Image(image)) = file.copied_from(at, copy)
                && let Some(how) = image_name::moves(image).filter(|_| !is_given(image))
            {
                let sentence = format!("the image {}, which is copied from, {how}", plain(image));
                seen.push(Observation::new(Rule::Latest, sentence, mend).at(&path, copy.line));
            }
        }
    }
    seen
}

/// Nothing says whether what serves is well.
pub(super) fn health(looked: &Looked<'_>) -> Vec<Observation> {
    let part = looked.part;
    let is_of_others = part.name.is_some() && matches!(part.recipe, Recipe::Image { .. });
    // Files that Coracle or nginx serve are there if the server is.
    if !part.serves || part.is_checked || part.keeps_data || is_of_others || matches!(part.recipe, Recipe::Static { .. }) {
        return Vec::new();
    }
    let says_none = match (&part.facts, &looked.dockerfile, part.engine) {
        (Some(facts), ..) => !facts.has_healthcheck,
        (None, _, EngineKind::Process) => true,
        (None, Some((file, target)), _) => file
            .effective(*target, "HEALTHCHECK")
            .0
            .is_none_or(|check| check.words().next().is_some_and(|word| word.eq_ignore_ascii_case("NONE"))),
        (None, None, EngineKind::Docker) => false,
    };
    if !says_none {
        return Vec::new();
    }
    let where_from = match (part.engine, &part.facts) {
        (EngineKind::Docker, Some(_)) => "neither its image nor coracle.toml says how to find out whether it is well",
        // A base image may, which is not known before it is built.
        (EngineKind::Docker, None) => {
            "neither its Dockerfile nor coracle.toml says how to find out whether it is well, unless its base image does"
        }
        (EngineKind::Process, _) => "coracle.toml does not say how to find out whether it is well",
    };
    let mend = match part.name {
        None => "write `health = \"/PATH\"` below [http] in coracle.toml: a path that answers 2xx or 3xx when the app is ready",
        Some(_) => "give it a `healthcheck` in the compose file",
    };
    vec![Observation::new(Rule::Health, looked.of_part(where_from), mend)]
}

/// A Dockerfile copies everything, and nothing is left out.
pub(super) fn ignore(looked: &Looked<'_>) -> Vec<Observation> {
    let Recipe::Dockerfile { path, .. } = &looked.part.recipe else { return Vec::new() };
    let Some((file, target)) = &looked.dockerfile else { return Vec::new() };
    let own = format!("{path}.dockerignore");
    let there = |folder: &std::path::Path, name: &str| folder.join(name).is_file();
    let is_sent_by_rules = there(looked.subject.root, ".coracleignore");
    if is_sent_by_rules || there(looked.folder, ".dockerignore") || there(looked.folder, &own) {
        return Vec::new();
    }
    let copies = file.used(*target).into_iter().flat_map(|at| file.stages[at].instructions.iter()).find(|it| {
        matches!(it.keyword.as_str(), "COPY" | "ADD")
            && it.flag("from").is_none()
            && it.sources().iter().any(|source| is_everything(source))
    });
    let Some(copy) = copies else { return Vec::new() };
    let name = looked.path(".dockerignore");
    let mend = format!("write a {name} with what the image does not need: .git, .env, tests, caches");
    let sentence = looked.of_part("it copies everything into the image, and no .dockerignore leaves anything out");
    vec![Observation::new(Rule::Ignore, sentence, mend).at(looked.dockerfile_path(), copy.line)]
}

/// Whether a source of `COPY` is the whole folder.
pub(super) fn is_everything(source: &str) -> bool {
    matches!(source.trim_start_matches("./").trim_matches('/'), "" | "." | "*" | "**")
}
