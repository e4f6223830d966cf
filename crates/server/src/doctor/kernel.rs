//! What the kernel and the user's rights allow.

use coracle_api::Check;
use coracle_jail::Hierarchy;

use super::{ok, warn};

/// Descriptors that a busy proxy and its clients need.
const WANTED_DESCRIPTORS: u64 = 8_192;

/// Watches that the engines and `coracle dev` share with everything else on the machine.
const WANTED_INOTIFY_INSTANCES: u64 = 64;

pub(super) fn checks() -> Vec<Check> {
    vec![user(), cgroups(), user_namespaces(), descriptors(), inotify()]
}

fn user() -> Check {
    if rustix::process::geteuid().is_root() {
        return ok("user", "root: every app of the process engine gets a user of its own");
    }
    warn(
        "user",
        format!("uid {}: apps of the process engine run as the server's own user", rustix::process::geteuid().as_raw()),
        "run the server as root, or use the docker engine, to keep apps apart",
    )
}

fn cgroups() -> Check {
    let hierarchy = Hierarchy::detect();
    let controllers = hierarchy.controllers();
    let missing: Vec<&str> = ["memory", "cpu", "pids"].into_iter().filter(|name| !controllers.contains(name)).collect();
    let version = hierarchy.version();
    if missing.is_empty() {
        return ok("cgroups", format!("{version}: {}", controllers.join(", ")));
    }
    warn(
        "cgroups",
        format!("{version}: the process engine cannot limit {}", missing.join(", ")),
        "run the server as root, or under systemd with Delegate=yes (`coracle server unit`)",
    )
}

fn user_namespaces() -> Check {
    let read = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let most = read("/proc/sys/user/max_user_namespaces").unwrap_or(0);
    let unprivileged = read("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or(1);
    let restricted = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").unwrap_or(0);
    if rustix::process::geteuid().is_root() {
        return ok("user namespaces", "not needed: the server is root");
    }
    if most > 0 && unprivileged == 1 && restricted == 0 {
        return ok("user namespaces", format!("allowed, up to {most}"));
    }
    warn(
        "user namespaces",
        "not allowed to ordinary users",
        "allow them (`sysctl kernel.unprivileged_userns_clone=1`, AppArmor), or run the server as root",
    )
}

fn descriptors() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let detail = format!("{} open files at once, {} at most", shown(limit.current), shown(limit.maximum));
    if most >= WANTED_DESCRIPTORS {
        return ok("open files", detail);
    }
    warn("open files", detail, "raise it: `ulimit -n`, or LimitNOFILE= in the unit")
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

fn inotify() -> Check {
    let Ok(text) = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances") else {
        return warn("file watches", "inotify is not there", "use a kernel with inotify");
    };
    match text.trim().parse::<u64>() {
        Ok(most) if most >= WANTED_INOTIFY_INSTANCES => ok("file watches", format!("{most} inotify instances per user")),
        _ => warn(
            "file watches",
            format!("only {} inotify instances per user", text.trim()),
            "raise it: `sysctl fs.inotify.max_user_instances=512`",
        ),
    }
}
