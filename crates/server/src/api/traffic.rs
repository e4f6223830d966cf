//! Who is reached where: the proxy is asked, and its answers are told with the names of apps.

use axum::Json as Answered;
use axum::extract::State;
use coracle_api::{CertificateList, Domain, DomainList, LocalAuthority, Problem, ProblemKind, RenewalOptions, RouteList};
use coracle_model::{AppName, Release};
use http::StatusCode;

use super::extract::Options;
use super::{Answer, Shared};
use crate::access::Caller;
use crate::live::{self, Hosts};
use crate::problems;
use crate::proxy_process::ProxyProcess;

/// Which requests go where: as the proxy says it, or else as it was told.
#[utoipa::path(get, path = "/routes", tag = "traffic", operation_id = "list_routes", responses(
    (status = 200, body = RouteList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn routes(State(context): State<Shared>) -> Answer<Answered<RouteList>> {
    let apps: Vec<AppName> = context.store.apps().await?.into_iter().map(|record| record.name).collect();
    let table = context.published.table();
    let told = match &context.proxy {
        Some(proxy) => proxy.client().routes().await.inspect_err(|error| tracing::debug!(%error, "the proxy does not say")).ok(),
        None => None,
    };
    Ok(Answered(match told {
        Some(routes) => live::routes(table.generation, routes, &apps),
        None => live::told(&table, &apps),
    }))
}

/// The hosts that apps are reached at, and how their certificates stand.
#[utoipa::path(get, path = "/domains", tag = "traffic", operation_id = "list_domains", responses(
    (status = 200, body = DomainList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn domains(State(context): State<Shared>, caller: Caller) -> Answer<Answered<DomainList>> {
    let releases = active(&context).await?;
    let hosts = Hosts::of(&releases);
    let certificates = match &context.proxy {
        Some(proxy) => proxy.client().certificates().await.map_err(|error| problems::proxy(&error))?,
        None => Vec::new(),
    };
    let certificates: Vec<_> = certificates.into_iter().map(|it| live::certificate(it, &hosts)).collect();
    let domains = releases.iter().filter(|release| caller.sees(&release.app)).flat_map(|release| {
        release.spec.http.hosts.iter().map(|host| {
            let canonical = release.spec.http.canonical_host.as_ref().filter(|canonical| *canonical != host);
            Domain {
                host: host.to_string(),
                app: release.app.clone(),
                path_prefix: release.spec.http.path_prefix.clone(),
                canonical: canonical.map(ToString::to_string),
                certificate: certificates.iter().find(|it| it.name == host.as_str()).cloned(),
            }
        })
    });
    Ok(Answered(DomainList { domains: domains.collect() }))
}

/// All certificates that there are or should be.
#[utoipa::path(get, path = "/certificates", tag = "traffic", operation_id = "list_certificates", responses(
    (status = 200, body = CertificateList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn certificates(State(context): State<Shared>) -> Answer<Answered<CertificateList>> {
    let told = proxy(&context)?.client().certificates().await.map_err(|error| problems::proxy(&error))?;
    let releases = active(&context).await?;
    let hosts = Hosts::of(&releases);
    let mut certificates: Vec<_> = told.into_iter().map(|it| live::certificate(it, &hosts)).collect();
    certificates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Answered(CertificateList { certificates }))
}

/// Tries at once for a certificate, however long the next attempt was to wait. How it went is told by its state.
#[utoipa::path(
    post, path = "/certificates/renewal", tag = "traffic", operation_id = "renew_certificate", params(RenewalOptions),
    responses(
        (status = 204, description = "It is being tried for"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn renew(State(context): State<Shared>, Options(options): Options<RenewalOptions>) -> Answer<StatusCode> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    if options.name.is_empty() || options.name.len() > 253 || !options.name.bytes().all(is_name) {
        let shown: String = options.name.chars().take(80).collect();
        return Err(Problem::new(ProblemKind::BadRequest, format!("{shown:?} is no name of a host")).into());
    }
    proxy(&context)?.client().renew(&options.name).await.map_err(|error| problems::proxy(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The machine's own authority, which certifies names under `localhost`.
#[utoipa::path(get, path = "/certificates/authority", tag = "traffic", operation_id = "show_local_authority", responses(
    (status = 200, body = LocalAuthority),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn authority(State(context): State<Shared>) -> Answer<Answered<LocalAuthority>> {
    let pem = proxy(&context)?.client().local_authority().await.map_err(|error| problems::proxy(&error))?;
    Ok(Answered(LocalAuthority { pem }))
}

fn proxy(context: &Shared) -> Result<&ProxyProcess, Problem> {
    let nobody = || Problem::new(ProblemKind::Unavailable, "this server has no proxy, so it has no certificates");
    context.proxy.as_deref().ok_or_else(nobody)
}

/// The active releases that take requests.
async fn active(context: &Shared) -> Answer<Vec<Release>> {
    let mut releases = context.store.active_releases().await?;
    releases.retain(|release| release.processes().keys().any(|process| process.is_web()));
    Ok(releases)
}
