//! Middlewares, with chains unfolded.

use std::collections::BTreeMap;

use coracle_proxy_table as table;
use coracle_proxy_table::{Credential, Encoding, MiddlewareId};

use super::{Notes, Reference, global};
use crate::configuration::{Configuration, Kind};
use crate::dynamic as traefik;
use crate::dynamic::Middleware;

/// How many middlewares a chain may come to, those of chains within it counted.
const LONGEST: usize = 64;

/// What a middleware comes to.
enum Made {
    One(Box<table::Middleware>),
    /// Others, by name.
    Chain(Vec<String>),
    /// It asks for what is done anyway.
    Nothing,
    /// It cannot be made; whoever goes through it cannot be made either.
    Refused,
}

/// All middlewares.
pub(super) struct Middlewares(BTreeMap<String, Made>);

impl Middlewares {
    pub(super) fn of(configuration: &Configuration, notes: &mut Notes) -> Self {
        let mut all = BTreeMap::new();
        for (name, middleware) in &configuration.middlewares {
            let containers = configuration.middleware_sources.get(name);
            let about = || format!("middleware {name}");
            let mut said = Vec::new();
            let made = made(middleware, &mut said).unwrap_or_else(|why| {
                notes.add(Kind::Refused, containers, about(), why);
                Made::Refused
            });
            let made = with_service(made, configuration, &mut said);
            for message in said {
                notes.add(Kind::Unsupported, containers, about(), message);
            }
            all.insert(name.clone(), made);
        }
        Self(all)
    }

    /// Those that a list of references means, in their order.
    pub(super) fn of_list(&self, references: &[String]) -> Result<Vec<(MiddlewareId, table::Middleware)>, String> {
        let mut list = Vec::new();
        self.unfold(references, &mut Vec::new(), &mut list)?;
        Ok(list)
    }

    fn unfold<'a>(
        &'a self,
        references: &'a [String],
        within: &mut Vec<&'a str>,
        list: &mut Vec<(MiddlewareId, table::Middleware)>,
    ) -> Result<(), String> {
        for reference in references {
            let Reference::Ours(name) = Reference::of(reference) else {
                return Err(format!("its middleware {reference:?} is not one of a container's labels"));
            };
            if within.contains(&name) {
                return Err(format!("its middleware {name:?} is a chain that leads to itself"));
            }
            match self.0.get(name) {
                None => return Err(format!("there is no middleware {name:?}")),
                Some(Made::Refused) => return Err(format!("its middleware {name:?} cannot be made")),
                Some(Made::Nothing) => {}
                Some(Made::One(one)) => list.push((MiddlewareId(global(name)), (**one).clone())),
                Some(Made::Chain(inner)) => {
                    within.push(name);
                    self.unfold(inner, within, list)?;
                    within.pop();
                }
            }
            if list.len() > LONGEST {
                return Err(format!("it goes through more than {LONGEST} middlewares"));
            }
        }
        Ok(())
    }
}

/// Pages of a service that is not there, or not any more, cost nobody the route: the built-in ones stand in.
fn with_service(mut made: Made, configuration: &Configuration, said: &mut Vec<String>) -> Made {
    if let Made::One(one) = &mut made
        && let table::Middleware::ErrorPages(pages) = &mut **one
        && let Some(id) = pages.service.take_if(|id| configuration.services.keys().all(|name| global(name) != id.0))
    {
        pages.query = None;
        let name = id.0.split('@').next().unwrap_or_default();
        said.push(format!("errors.service: there is no service {name:?}; the built-in pages are shown"));
    }
    made
}

/// Says that settings have no effect, if they are set.
fn without_effect(said: &mut Vec<String>, settings: &[(&str, bool)]) {
    said.extend(settings.iter().filter(|(_, is_set)| *is_set).map(|(setting, _)| format!("{setting} has no effect")));
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn made(middleware: &Middleware, said: &mut Vec<String>) -> Result<Made, String> {
    let mut found = paths(middleware, said);
    found.extend(middleware.chain.as_ref().map(|it| Made::Chain(it.middlewares.clone())));
    found.extend(guards(middleware, said)?);
    found.extend(redirects(middleware)?);
    found.extend(limits(middleware, said)?);
    found.extend(answers(middleware, said)?);
    let unknown = [
        ("digestAuth", middleware.digest_auth.is_some()),
        ("passTLSClientCert", middleware.pass_tls_client_cert.is_some()),
        ("grpcWeb", middleware.grpc_web.is_some()),
        ("plugin", !middleware.plugin.is_empty()),
    ];
    if let Some((kind, _)) = unknown.iter().find(|(_, is_set)| *is_set) {
        return Err(format!("there is no {kind} here"));
    }
    match found.len() {
        0 => Err("it is of no kind".to_owned()),
        1 => Ok(found.remove(0)),
        _ => Err("it is of several kinds; give each a name of its own, and list them".to_owned()),
    }
}

/// What changes the path of a request.
fn paths(middleware: &Middleware, said: &mut Vec<String>) -> Vec<Made> {
    use table::Middleware as To;
    let mut found = Vec::new();
    if let Some(it) = &middleware.add_prefix {
        found.push(one(To::AddPrefix(table::AddPrefix { prefix: it.prefix.clone() })));
    }
    if let Some(it) = &middleware.strip_prefix {
        without_effect(said, &[("stripPrefix.forceSlash=false", !it.force_slash)]);
        found.push(one(To::StripPrefix(table::StripPrefix { prefixes: it.prefixes.clone() })));
    }
    if let Some(it) = &middleware.strip_prefix_regex {
        found.push(one(To::StripPrefixRegex(table::StripPrefixRegex { regex: it.regex.clone() })));
    }
    if let Some(it) = &middleware.replace_path {
        found.push(one(To::ReplacePath(table::ReplacePath { path: it.path.clone() })));
    }
    if let Some(it) = &middleware.replace_path_regex {
        let (regex, replacement) = (it.regex.clone(), it.replacement.clone());
        found.push(one(To::ReplacePathRegex(table::ReplacePathRegex { regex, replacement })));
    }
    found
}

/// What lets some requests pass and others not.
fn guards(middleware: &Middleware, said: &mut Vec<String>) -> Result<Vec<Made>, String> {
    use table::Middleware as To;
    let lists = middleware.ip_white_list.iter().chain(&middleware.ip_allow_list);
    let mut found: Vec<Made> = lists.map(|it| one(To::IpAllowList(ip_allow_list(it)))).collect();
    if let Some(it) = &middleware.basic_auth {
        found.push(one(To::BasicAuth(basic_auth(it)?)));
    }
    if let Some(it) = &middleware.forward_auth {
        found.push(one(To::ForwardAuth(forward_auth(it, said)?)));
    }
    Ok(found)
}

/// What sends requests elsewhere.
fn redirects(middleware: &Middleware) -> Result<Vec<Made>, String> {
    use table::Middleware as To;
    let mut found = Vec::new();
    if let Some(it) = &middleware.redirect_regex {
        let (regex, replacement, permanent) = (it.regex.clone(), it.replacement.clone(), it.permanent);
        found.push(one(To::RedirectRegex(table::RedirectRegex { regex, replacement, permanent })));
    }
    if let Some(it) = &middleware.redirect_scheme {
        let port = some(&it.port).map(|port| port.parse().map_err(|_| format!("redirectScheme.port: {port:?} is no port")));
        let (scheme, permanent) = (it.scheme.clone(), it.permanent);
        found.push(one(To::RedirectScheme(table::RedirectScheme { scheme, port: port.transpose()?, permanent })));
    }
    Ok(found)
}

/// What changes answers, and the headers of either.
fn answers(middleware: &Middleware, said: &mut Vec<String>) -> Result<Vec<Made>, String> {
    use table::Middleware as To;
    let mut found = Vec::new();
    if let Some(it) = &middleware.headers {
        found.push(one(To::Headers(Box::new(headers(it, said)))));
    }
    if let Some(it) = &middleware.errors {
        found.push(one(To::ErrorPages(error_pages(it)?)));
    }
    if let Some(it) = &middleware.compress {
        found.push(one(To::Compress(compress(it, said)?)));
    }
    if let Some(it) = &middleware.content_type {
        let what = "contentType.autoDetect: an answer without a Content-Type stays without one, so it";
        without_effect(said, &[(what, it.auto_detect)]);
        found.push(Made::Nothing);
    }
    Ok(found)
}

fn one(middleware: table::Middleware) -> Made {
    Made::One(Box::new(middleware))
}

fn limits(middleware: &Middleware, said: &mut Vec<String>) -> Result<Vec<Made>, String> {
    use table::Middleware as To;
    let mut found = Vec::new();
    if let Some(it) = &middleware.rate_limit {
        without_effect(said, &[("rateLimit.redis: each proxy counts for itself, so it", it.redis.is_some())]);
        found.push(one(To::RateLimit(table::RateLimit {
            average: u64::try_from(it.average).map_err(|_| "rateLimit.average is negative")?,
            period_ms: it.period.as_milliseconds(),
            burst: u64::try_from(it.burst).map_err(|_| "rateLimit.burst is negative")?.max(1),
            source_criterion: it.source_criterion.as_ref().map(source_criterion),
        })));
    }
    if let Some(it) = &middleware.in_flight_req {
        let source_criterion = it.source_criterion.as_ref().map(source_criterion);
        found.push(one(To::InFlightLimit(table::InFlightLimit { amount: it.amount, source_criterion })));
    }
    if let Some(it) = &middleware.buffering {
        without_effect(
            said,
            &[
                ("buffering.memRequestBodyBytes: bodies are passed on as they come, so it", it.mem_request_body_bytes != 0),
                ("buffering.maxResponseBodyBytes", it.max_response_body_bytes != 0),
                ("buffering.memResponseBodyBytes: bodies are passed on as they come, so it", it.mem_response_body_bytes != 0),
                ("buffering.retryExpression (see the retry middleware)", !it.retry_expression.is_empty()),
            ],
        );
        found.push(match it.max_request_body_bytes {
            0 => Made::Nothing,
            max_bytes => one(To::BodyLimit(table::BodyLimit { max_bytes })),
        });
    }
    if let Some(it) = &middleware.circuit_breaker {
        let mut breaker = table::CircuitBreaker::new(it.expression.clone());
        breaker.check_period_ms = it.check_period.as_milliseconds();
        breaker.fallback_duration_ms = it.fallback_duration.as_milliseconds();
        breaker.recovery_duration_ms = it.recovery_duration.as_milliseconds();
        breaker.response_code = it.response_code;
        found.push(one(To::CircuitBreaker(breaker)));
    }
    if let Some(it) = &middleware.retry {
        without_effect(
            said,
            &[
                ("retry.timeout", it.timeout.as_milliseconds() != 0),
                ("retry.maxRequestBodyBytes", it.max_request_body_bytes.is_some()),
                ("retry.status: an answer is an answer, so it", !it.status.is_empty()),
                ("retry.disableRetryOnNetworkError", it.disable_retry_on_network_error),
                ("retry.retryNonIdempotentMethod", it.retry_non_idempotent_method),
            ],
        );
        let initial_interval_ms = it.initial_interval.as_milliseconds();
        found.push(one(To::Retry(table::Retry { attempts: it.attempts, initial_interval_ms })));
    }
    Ok(found)
}

fn ip_strategy(it: &traefik::IpStrategy) -> table::IpStrategy {
    let depth = usize::try_from(it.depth).unwrap_or(usize::MAX);
    table::IpStrategy { depth, excluded_ips: it.excluded_ips.clone(), ipv6_subnet: it.ipv6_subnet }
}

fn source_criterion(it: &traefik::SourceCriterion) -> table::SourceCriterion {
    table::SourceCriterion {
        ip_strategy: it.ip_strategy.as_ref().map(ip_strategy),
        request_header_name: some(&it.request_header_name),
        request_host: it.request_host,
    }
}

fn ip_allow_list(it: &traefik::IpAllowList) -> table::IpAllowList {
    table::IpAllowList {
        source_range: it.source_range.clone(),
        ip_strategy: it.ip_strategy.as_ref().map(ip_strategy),
        reject_status_code: Some(it.reject_status_code).filter(|status| *status != 0),
    }
}

fn basic_auth(it: &traefik::Auth) -> Result<table::BasicAuth, String> {
    // The file would be one of this machine, and the label is the container's.
    if !it.users_file.is_empty() {
        return Err("basicAuth.usersFile is a file of Traefik's own container; put the users into basicAuth.users".to_owned());
    }
    Ok(table::BasicAuth {
        users: it.users.iter().cloned().map(Credential).collect(),
        users_file: None,
        realm: some(&it.realm),
        header_field: some(&it.header_field),
        remove_header: it.remove_header,
    })
}

fn forward_auth(it: &traefik::ForwardAuth, said: &mut Vec<String>) -> Result<table::ForwardAuth, String> {
    let settings = [("forwardAuth.forwardBody", it.forward_body), ("forwardAuth.maxBodySize", it.max_body_size.is_some())];
    without_effect(said, &settings);
    Ok(table::ForwardAuth {
        address: it.address.clone(),
        trust_forward_header: it.trust_forward_header,
        auth_response_headers: it.auth_response_headers.clone(),
        auth_response_headers_regex: some(&it.auth_response_headers_regex),
        auth_request_headers: it.auth_request_headers.clone(),
        add_auth_cookies_to_response: it.add_auth_cookies_to_response.clone(),
        header_field: some(&it.header_field),
        preserve_location_header: it.preserve_location_header,
        preserve_request_method: it.preserve_request_method,
        timeout_ms: 10_000,
        tls: auth_tls(it)?,
    })
}

/// A label's files would be of this machine, and Traefik's are of its own container.
fn auth_tls(it: &traefik::ForwardAuth) -> Result<table::AuthTls, String> {
    let mut tls = table::AuthTls::default();
    for (setting, value) in it.tls.iter().filter_map(|tls| tls.as_object()).flatten() {
        let is_set = value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| !matches!(text, "" | "false" | "0")));
        match setting.to_ascii_lowercase().as_str() {
            "insecureskipverify" => tls.insecure_skip_verify = is_set,
            _ if !is_set => {}
            _ => return Err(format!("forwardAuth.tls.{setting} is a file of Traefik's own container")),
        }
    }
    Ok(tls)
}

/// Without a service, the proxy's own pages.
fn error_pages(it: &traefik::ErrorPage) -> Result<table::ErrorPages, String> {
    let service = some(&it.service)
        .map(|name| match Reference::of(&name) {
            Reference::Ours(name) => Ok(table::ServiceId(global(name))),
            _ => Err(format!("errors.service: {name:?} is not one of a container's labels")),
        })
        .transpose()?;
    let rewrite = |(from, to): (&String, &i64)| {
        let to = u16::try_from(*to).map_err(|_| format!("errors.statusRewrites: {to} is no status"))?;
        Ok((from.clone(), to))
    };
    Ok(table::ErrorPages {
        status: it.status.clone(),
        query: some(&it.query).filter(|_| service.is_some()),
        service,
        status_rewrites: it.status_rewrites.iter().map(rewrite).collect::<Result<_, String>>()?,
        ..table::ErrorPages::default()
    })
}

fn compress(it: &traefik::Compress, said: &mut Vec<String>) -> Result<table::Compress, String> {
    let usual = table::Compress::default();
    let encoding = |name: &str| match name {
        "gzip" => Some(Encoding::Gzip),
        "br" => Some(Encoding::Br),
        "zstd" => Some(Encoding::Zstd),
        _ => None,
    };
    let known: Vec<Encoding> = it.encodings.iter().filter_map(|name| encoding(name)).collect();
    for name in it.encodings.iter().filter(|name| encoding(name).is_none()) {
        said.push(format!("compress.encodings: {name:?} is none of gzip, br and zstd"));
    }
    if known.is_empty() && !it.encodings.is_empty() {
        return Err("compress.encodings names none that is known".to_owned());
    }
    let default_encoding = some(&it.default_encoding)
        .map(|name| encoding(&name).ok_or_else(|| format!("compress.defaultEncoding: {name:?} is none of gzip, br and zstd")));
    Ok(table::Compress {
        excluded_content_types: it.excluded_content_types.clone(),
        included_content_types: it.included_content_types.clone(),
        min_response_body_bytes: match it.min_response_body_bytes {
            0 => usual.min_response_body_bytes,
            bytes => bytes,
        },
        encodings: if known.is_empty() { usual.encodings } else { known },
        default_encoding: default_encoding.transpose()?,
    })
}

fn headers(it: &traefik::Headers, said: &mut Vec<String>) -> table::Headers {
    without_effect(
        said,
        &[
            ("headers.accessControlAllowOrigin (see accessControlAllowOriginList)", !it.access_control_allow_origin.is_empty()),
            ("headers.sslRedirect (see the redirectScheme middleware)", it.ssl_redirect),
            ("headers.sslTemporaryRedirect (see the redirectScheme middleware)", it.ssl_temporary_redirect),
            ("headers.sslHost (see the redirectRegex middleware)", !it.ssl_host.is_empty()),
            ("headers.sslForceHost (see the redirectRegex middleware)", it.ssl_force_host),
            ("headers.featurePolicy (see permissionsPolicy)", !it.feature_policy.is_empty()),
        ],
    );
    table::Headers {
        custom_request_headers: it.custom_request_headers.clone(),
        custom_response_headers: it.custom_response_headers.clone(),
        access_control_allow_credentials: it.access_control_allow_credentials,
        access_control_allow_headers: it.access_control_allow_headers.clone(),
        access_control_allow_methods: it.access_control_allow_methods.clone(),
        access_control_allow_origin_list: it.access_control_allow_origin_list.clone(),
        access_control_allow_origin_list_regex: it.access_control_allow_origin_list_regex.clone(),
        access_control_expose_headers: it.access_control_expose_headers.clone(),
        access_control_max_age: it.access_control_max_age,
        add_vary_header: it.add_vary_header,
        allowed_hosts: it.allowed_hosts.clone(),
        hosts_proxy_headers: it.hosts_proxy_headers.clone(),
        ssl_proxy_headers: it.ssl_proxy_headers.clone(),
        sts_seconds: it.sts_seconds,
        sts_include_subdomains: it.sts_include_subdomains,
        sts_preload: it.sts_preload,
        force_sts_header: it.force_sts_header,
        frame_deny: it.frame_deny,
        custom_frame_options_value: some(&it.custom_frame_options_value),
        content_type_nosniff: it.content_type_nosniff,
        browser_xss_filter: it.browser_xss_filter,
        custom_browser_xss_value: some(&it.custom_browser_xss_value),
        content_security_policy: some(&it.content_security_policy),
        content_security_policy_report_only: some(&it.content_security_policy_report_only),
        public_key: some(&it.public_key),
        referrer_policy: some(&it.referrer_policy),
        permissions_policy: some(&it.permissions_policy),
        is_development: it.is_development,
    }
}
