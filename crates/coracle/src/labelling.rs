//! How containers' labels are read: the same arguments for a server that discovers containers, and for a look at what labels
//! would do.

use clap::{Args, ValueEnum};
use coracle_server::labels::{Constraints, Exposure, Options, RuleTemplate};

use crate::failure::Failure;

/// How containers' labels are read.
#[derive(Debug, Clone, Args)]
pub(crate) struct LabelArguments {
    /// The rule of containers whose labels give none: a template about .Name, .ContainerName and .Labels
    ///
    /// In the language of Go's text/template, with normalize and the common functions of sprig. Host(`{{ normalize .Name }}`) if
    /// not given; .Name is service-project for containers of a compose project.
    #[arg(long, value_name = "TEMPLATE", value_parser = template)]
    default_rule: Option<String>,
    /// Route containers without labels too, as Traefik does unless it is told otherwise
    ///
    /// If not given, only containers with traefik.enable=true or a label that begins with traefik.http. are routed.
    #[arg(long)]
    exposed_by_default: bool,
    /// The network in which containers are reached that name none by traefik.docker.network
    #[arg(long, value_name = "NAME")]
    container_network: Option<String>,
    /// Route only containers whose labels match, as in Label(`tier`, `web`) && !LabelRegex(`stage`, `^dev`)
    #[arg(long, value_name = "EXPRESSION", value_parser = constraints)]
    constraints: Option<String>,
    /// Keep the services of containers that are not healthy: requests get 503 in place of 404
    #[arg(long)]
    allow_empty_services: bool,
    /// Reach containers at the addresses and ports of this machine that they publish
    #[arg(long)]
    use_bind_port_ip: bool,
    /// What rules are written in whose labels do not say it by ruleSyntax
    #[arg(long, value_enum, default_value = "v3")]
    rule_syntax: RuleSyntax,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RuleSyntax {
    V2,
    V3,
}

fn template(text: &str) -> Result<String, String> {
    text.parse::<RuleTemplate>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn constraints(text: &str) -> Result<String, String> {
    text.parse::<Constraints>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl LabelArguments {
    /// What they say.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let (template, constraints) = (self.default_rule.as_deref(), self.constraints.as_deref());
        let template =
            template.map(str::parse).transpose().map_err(|error| Failure::usage(format!("--default-rule: {error}")))?;
        let constraints =
            constraints.map(str::parse).transpose().map_err(|error| Failure::usage(format!("--constraints: {error}")))?;
        Ok(Options {
            default_rule: template.unwrap_or_default(),
            exposure: if self.exposed_by_default { Exposure::All } else { Exposure::Labelled },
            network: self.container_network.clone(),
            constraints,
            allow_empty_services: self.allow_empty_services,
            use_bind_port_ip: self.use_bind_port_ip,
            dialect: match self.rule_syntax {
                RuleSyntax::V2 => coracle_proxy::table::Dialect::V2,
                RuleSyntax::V3 => coracle_proxy::table::Dialect::V3,
            },
        })
    }

    /// As they were typed; nothing of what is usual.
    pub(crate) fn typed(&self) -> Vec<String> {
        let valued = [
            ("--default-rule", &self.default_rule),
            ("--container-network", &self.container_network),
            ("--constraints", &self.constraints),
        ];
        let valued = valued.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value.clone()?])).flatten();
        let flags = [
            ("--exposed-by-default", self.exposed_by_default),
            ("--allow-empty-services", self.allow_empty_services),
            ("--use-bind-port-ip", self.use_bind_port_ip),
            ("--rule-syntax=v2", self.rule_syntax == RuleSyntax::V2),
        ];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned());
        valued.chain(flags).collect()
    }
}
