//! One file per command.

pub(crate) mod approve;
pub(crate) mod apps;
pub(crate) mod certs;
pub(crate) mod ci;
pub(crate) mod completions;
pub(crate) mod compose;
pub(crate) mod config;
pub(crate) mod deploy;
pub(crate) mod deployments;
pub(crate) mod destroy;
pub(crate) mod dev;
pub(crate) mod dial;
pub(crate) mod doctor;
pub(crate) mod domains;
pub(crate) mod exec;
pub(crate) mod forge;
pub(crate) mod git;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod people;
pub(crate) mod policy;
pub(crate) mod previews;
pub(crate) mod promote;
pub(crate) mod proxy;
pub(crate) mod ps;
pub(crate) mod reference;
pub(crate) mod registry;
pub(crate) mod releases;
pub(crate) mod remote;
pub(crate) mod restart;
pub(crate) mod rollback;
pub(crate) mod routes;
pub(crate) mod run;
pub(crate) mod secrets;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod version;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

/// The exit code of a command that did not fail.
pub(crate) type ExitCode = u8;

/// Done, and nothing to add.
pub(crate) const DONE: ExitCode = 0;

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Arguments),
    Dev(dev::Arguments),
    Deploy(deploy::Arguments),
    Ci(ci::Arguments),
    Import(import::Arguments),
    Approve(approve::Approve),
    Reject(approve::Reject),
    Promote(promote::Arguments),
    Rollback(rollback::Arguments),
    Releases(releases::Arguments),
    Deployments(deployments::Arguments),
    Status(status::Arguments),
    Ps(ps::Arguments),
    Logs(logs::Arguments),
    Run(run::Arguments),
    Exec(exec::Arguments),
    Config(config::Arguments),
    Compose(compose::Arguments),
    Secrets(secrets::Arguments),
    Registry(registry::Arguments),
    Restart(restart::Arguments),
    Routes(routes::Arguments),
    Domains(domains::Arguments),
    Git(git::Arguments),
    Previews(previews::Arguments),
    Forge(forge::Arguments),
    Remote(remote::Arguments),
    Certs(certs::Arguments),
    People(people::Arguments),
    Policy(policy::Arguments),
    Apps(apps::Arguments),
    Destroy(destroy::Arguments),
    Server(Box<server::Arguments>),
    Proxy(Box<proxy::Arguments>),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
    Version(version::Arguments),
    #[command(hide = true)]
    Dial(dial::Arguments),
    #[command(hide = true)]
    Reference(reference::Arguments),
}

impl Command {
    /// Whether it serves many at once; everything else waits for one answer, which one thread can do.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Server(server) if server.serves())
    }

    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Init(arguments) => init::run(arguments, context),
            Self::Dev(arguments) => dev::run(arguments, context).await,
            Self::Deploy(arguments) => deploy::run(arguments, context).await,
            Self::Ci(arguments) => ci::run(arguments, context).await,
            Self::Import(arguments) => import::run(arguments, context).await,
            Self::Approve(arguments) => approve::approve(arguments, context).await,
            Self::Reject(arguments) => approve::reject(arguments, context).await,
            Self::Promote(arguments) => promote::run(arguments, context).await,
            Self::Registry(arguments) => registry::run(arguments, context).await,
            Self::Rollback(arguments) => rollback::run(arguments, context).await,
            Self::Releases(arguments) => releases::run(arguments, context).await,
            Self::Deployments(arguments) => deployments::run(arguments, context).await,
            Self::Status(arguments) => status::run(arguments, context).await,
            Self::Ps(arguments) => ps::run(arguments, context).await,
            Self::Logs(arguments) => logs::run(arguments, context).await,
            Self::Run(arguments) => run::run(arguments, context).await,
            Self::Exec(arguments) => exec::run(arguments, context).await,
            Self::Config(arguments) => config::run(arguments, context).await,
            Self::Compose(arguments) => compose::run(arguments, context),
            Self::Secrets(arguments) => secrets::run(arguments, context).await,
            Self::Restart(arguments) => restart::run(arguments, context).await,
            Self::Routes(arguments) => routes::run(arguments, context).await,
            Self::Git(arguments) => git::run(arguments, context).await,
            Self::Previews(arguments) => previews::run(arguments, context).await,
            Self::Forge(arguments) => forge::run(arguments, context).await,
            Self::Remote(arguments) => remote::run(arguments, context).await,
            Self::Domains(arguments) => domains::run(arguments, context).await,
            Self::Certs(arguments) => certs::run(arguments, context).await,
            Self::People(arguments) => people::run(arguments, context).await,
            Self::Policy(arguments) => policy::run(arguments, context).await,
            Self::Apps(arguments) => apps::run(arguments, context).await,
            Self::Destroy(arguments) => destroy::run(arguments, context).await,
            Self::Server(arguments) => server::run(*arguments, context).await,
            Self::Proxy(arguments) => proxy::run(*arguments, context),
            Self::Doctor(arguments) => doctor::run(arguments, context).await,
            Self::Completions(arguments) => completions::run(arguments, context),
            Self::Man(arguments) => man::run(arguments, context),
            Self::Version(arguments) => version::run(arguments, context),
            Self::Dial(arguments) => dial::run(arguments, context),
            Self::Reference(arguments) => reference::run(arguments, context),
        }
    }
}
