//! The reference page against the server and its help: what one has and the other has not is a mistake in one of them.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::host::{Host, possible};

const PAGE: &str = include_str!("../../../../docs/reference/pyrunner.md");

/// Everything between backticks in the first cells of the page's tables.
fn first_cells() -> BTreeSet<String> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|line| line.split('|').nth(1)).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    cells.map(str::to_owned).collect()
}

fn named(values: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    values.into_iter().collect()
}

#[test]
fn the_page_has_every_setting() {
    let help = Command::new(env!("CARGO_BIN_EXE_pyrunner")).args(["serve", "--help"]).output().unwrap();
    // Long lines are broken, and a variable's value of the moment comes after its name.
    let help = String::from_utf8(help.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let variables = named(help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()).map(str::to_owned));
    let mut told = first_cells();
    told.retain(|name| name.starts_with("PYRUNNER_") || name == "PORT");
    assert_eq!(told, variables);
    for row in PAGE.lines().filter(|line| line.starts_with("| `PYRUNNER_")) {
        let option = row.split('`').nth(3).unwrap();
        assert!(help.contains(&format!("{option} ")), "{option} is no option");
        let after = help.split_once(&format!(" {option} ")).unwrap().1;
        let own = &after[..after.find(" --").unwrap_or(after.len())];
        if let Some((_, default)) = own.split_once("[default: ")
            && let Some((default, _)) = default.split_once(']')
            && !default.contains(' ')
        {
            assert!(row.contains(&format!("`{default}`")), "{option} has the default {default}: {row}");
        }
    }
}

#[test]
fn the_page_has_what_the_description_has() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let described = server.get("/openapi.json").json();
    let methods = |(path, methods): (&String, &Value)| -> Vec<String> {
        methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())).collect()
    };
    let paths = named(described["paths"].as_object().unwrap().iter().flat_map(methods));
    let mut told = first_cells();
    told.retain(|name| name.contains(" /"));
    assert_eq!(told, paths);
    let schemas = &described["components"]["schemas"];
    let told = first_cells();
    for name in ["ProgramBody", "ExecutionAnswer"] {
        for field in schemas[name]["properties"].as_object().unwrap().keys() {
            assert!(told.contains(field), "{name}.{field} is not told");
        }
    }
    for limit in schemas["LimitsBody"]["properties"].as_object().unwrap().keys() {
        assert!(PAGE.contains(&format!("| `{limit}` |")), "the limit {limit} is not told");
    }
    for schema in ["ProblemKind", "ReasonWord"] {
        let words = words_of(&schemas[schema]);
        assert!(words.len() > 5, "{schema}: {}", schemas[schema]);
        for word in words {
            assert!(PAGE.contains(&format!("`{word}`")), "{word} is not told");
        }
    }
}

/// The words of an enumeration, however it is described.
fn words_of(schema: &Value) -> Vec<String> {
    let alternatives = schema["oneOf"].as_array().into_iter().flatten().flat_map(words_of);
    let own = schema["enum"].as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned));
    own.chain(schema["const"].as_str().map(str::to_owned)).chain(alternatives).collect()
}
