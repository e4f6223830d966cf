//! How the parts of a release are checked.

use std::time::Duration;

use coracle_model::container::{HealthCheck, HealthTest};
use coracle_model::stack::Exposure;
use coracle_model::{ProcessName, Release, Span};
pub(crate) use coracle_probe::{Check, Unhealthy, until_healthy, watch};

/// How long the program of a check may take that says nothing about it.
const PROGRAM_LIMIT: Duration = Duration::from_secs(30);

/// How the instances of a process or stateful service are checked in this release.
pub(crate) fn check_of(release: &Release, part: &ProcessName) -> Check {
    let http = release.http_of(part);
    let own = release.spec.part(part).and_then(|spec| spec.container.health.as_ref());
    let disabled = own.is_some_and(|own| own.test == HealthTest::Disabled);
    match http.and_then(|http| http.health.clone().map(|path| (path, &http.hosts))) {
        Some((path, hosts)) => {
            let host = hosts.iter().find(|host| !host.as_str().contains('*'));
            Check::Http { path, host: host.map_or_else(|| "localhost".to_owned(), ToString::to_string) }
        }
        None => match own.and_then(|own| own.test.argv()) {
            Some(argv) => Check::Program {
                argv,
                limit: own.and_then(|own| own.timeout).map_or(PROGRAM_LIMIT, Span::duration),
                patience: own.map(patience).unwrap_or_default(),
            },
            None if release.artifact_of(part).has_healthcheck && !disabled && release.image_checks(part) => Check::Image,
            None if release.serves(part) => Check::Answer,
            None if is_inside(release, part) => Check::Tcp,
            None => Check::Running,
        },
    }
}

/// Whether other parts of the release ask for this one.
pub(crate) fn is_inside(release: &Release, part: &ProcessName) -> bool {
    release.spec.part(part).is_some_and(|spec| matches!(spec.exposure, Exposure::Inside { .. }))
}

/// How long a health check gives a program before it is a failure.
fn patience(check: &HealthCheck) -> Duration {
    let interval = check.interval.unwrap_or(Span::seconds(30)).duration();
    check.start_period.map_or(Duration::ZERO, Span::duration) + interval * check.retries.unwrap_or(3)
}
