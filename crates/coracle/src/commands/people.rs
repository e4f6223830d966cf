//! `coracle people`: who may use the server besides its administrator, by which keys and tokens, and in which apps.

mod credentials;

use clap::{Args, Subcommand};
use coracle_api::{Credential, NewPerson, Person, RoleChange, RoleIn};
use coracle_model::{AppName, PersonName, Role};
use serde_json::json;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style, moment};

/// Show who may use the server, or change it
///
/// A deployer pushes, deploys, watches, rolls back and restarts; an owner does everything that can be done with the app. What
/// goes on in somebody's name ends when the right to it is taken away. Only the administrator, who works on the server's machine
/// or with the server's own token, changes people.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  coracle people
  coracle people add ana --role deployer -a shop --key ana.pub
  coracle people role ana owner -a shop
  coracle people token create ana --label ci
  coracle people remove ana"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List everybody with roles, keys and tokens
    List,
    Add(Add),
    Role(Change),
    /// Remove somebody, with every role, key and token
    ///
    /// What goes on in that name ends: a deployment is called off, up to its switch.
    Remove {
        /// Who
        name: PersonName,
    },
    /// Add or remove SSH public keys
    Key(credentials::KeyArguments),
    /// Create or revoke tokens
    Token(credentials::TokenArguments),
}

/// Where a role holds.
#[derive(Debug, Args)]
struct Where {
    /// The role holds in every app that there is, instead of the one that -a names
    #[arg(long)]
    all_apps: bool,
}

impl Where {
    /// The app that was typed; the one of this directory is not meant by accident.
    fn app(&self, context: &Context) -> Result<Option<AppName>, Failure> {
        match (&context.global.app, self.all_apps) {
            (Some(app), false) => Ok(Some(app.clone())),
            (None, true) => Ok(None),
            (Some(_), true) => Err(Failure::usage("-a and --all-apps cannot both be meant")),
            (None, false) => Err(Failure::usage("in which app? A role holds somewhere").hint("add -a NAME, or --all-apps")),
        }
    }
}

/// Add somebody
///
/// A role that names an app with -a allows to make it by the first push.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle people add ana --role deployer -a shop --key ~/ana.pub
  ssh-add -L | head -1 | coracle people add ana --role owner --all-apps --key -
  coracle people add ben")]
struct Add {
    /// The name: lower-case letters, digits, hyphens, underscores and dots
    name: PersonName,
    /// What the person may do, deployer or owner [default: nothing yet]
    #[arg(long)]
    role: Option<Role>,
    #[command(flatten)]
    place: Where,
    /// A file with SSH public keys, one per line; - is standard input
    #[arg(long, value_name = "FILE")]
    key: Vec<std::path::PathBuf>,
}

/// Give somebody a role in an app in place of the one before, or take it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle people role ana owner -a shop
  coracle people role ana none -a shop")]
struct Change {
    /// Who
    name: PersonName,
    /// deployer, owner or none
    role: RoleOrNone,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Clone, Copy)]
struct RoleOrNone(Option<Role>);

impl std::str::FromStr for RoleOrNone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            other => other.parse().map(|role| Self(Some(role))).map_err(|_| format!("{other:?}: use deployer, owner or none")),
        }
    }
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await,
        Verb::Add(arguments) => add(arguments, context).await,
        Verb::Role(arguments) => change(&arguments, context).await,
        Verb::Remove { name } => remove(&name, context).await,
        Verb::Key(arguments) => credentials::keys(arguments, context).await,
        Verb::Token(arguments) => credentials::tokens(arguments, context).await,
    }
}

async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let people = context.client()?.people().await?;
    let empty = "nobody but the administrator; add somebody: coracle people add NAME --role deployer -a APP --key FILE";
    context.output.list(&people, empty, table);
    Ok(DONE)
}

fn table(people: &[Person]) -> Columns {
    let now = jiff::Timestamp::now();
    let mut columns = Columns::new(&["person", "roles", "", "kind", "label", "fingerprint", "last used"]);
    for person in people {
        let mut name = Cell::styled(person.name.as_str(), Style::Bold);
        let mut roles = roles(&person.roles);
        if person.credentials.is_empty() {
            let none = Cell::styled("no key, no token", Style::Dim);
            columns.row([name, roles.into(), "".into(), none, "".into(), "".into(), "".into()]);
            continue;
        }
        for Credential { id, kind, label, fingerprint, last_used_at, .. } in &person.credentials {
            let used = last_used_at.map_or("never".to_owned(), |used| moment::ago(used, now));
            let fingerprint = fingerprint.clone().unwrap_or_default();
            let row = [name, roles.into(), id.to_string().into(), kind.as_str().into(), label.as_str().into()];
            let [name_cell, roles_cell, id, kind, label] = row;
            columns.row([name_cell, roles_cell, id, kind, label, fingerprint.into(), used.into()]);
            (name, roles) = ("".into(), String::new());
        }
    }
    columns
}

/// `owner of shop, deployer of all apps`.
fn roles(roles: &[RoleIn]) -> String {
    let one = |RoleIn { app, role }: &RoleIn| match app {
        Some(app) => format!("{role} of {app}"),
        None => format!("{role} of all apps"),
    };
    if roles.is_empty() { "none".to_owned() } else { roles.iter().map(one).collect::<Vec<_>>().join(", ") }
}

async fn add(arguments: Add, context: &Context) -> Result<ExitCode, Failure> {
    let Add { name, role, place, key } = arguments;
    let roles = match role {
        Some(role) => vec![RoleIn { app: place.app(context)?, role }],
        None if place.all_apps => return Err(Failure::usage("--all-apps says where a role holds").hint("add --role deployer")),
        None => Vec::new(),
    };
    let keys = key.iter().map(|path| credentials::read_keys(path)).collect::<Result<Vec<_>, _>>()?.concat();
    let person = context.client()?.add_person(&NewPerson { name, roles, keys }).await?;
    tell(&person, context);
    if person.credentials.is_empty() {
        let name = &person.name;
        context.output.remark(format!("next: coracle people key add {name} FILE, or coracle people token create {name}"));
    }
    Ok(DONE)
}

async fn change(arguments: &Change, context: &Context) -> Result<ExitCode, Failure> {
    let change = RoleChange { app: arguments.place.app(context)?, role: arguments.role.0 };
    let person = context.client()?.change_role(&arguments.name, &change).await?;
    tell(&person, context);
    Ok(DONE)
}

async fn remove(name: &PersonName, context: &Context) -> Result<ExitCode, Failure> {
    context.client()?.remove_person(name).await?;
    context.output.document(&json!({ "removed": name }));
    context.output.tell(format!("{name} is removed, with every role, key and token"));
    Ok(DONE)
}

fn tell(person: &Person, context: &Context) {
    context.output.document(person);
    context.output.tell(format!("{}: {}", person.name, roles(&person.roles)));
}
