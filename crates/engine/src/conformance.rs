//! The one suite that every engine passes: docker, process and the fake.
//!
//! An engine's integration test gives a [`Fixture`] and gets one test per check:
//!
//! ```ignore
//! coracle_engine::conformance_tests!(DockerFixture::new());
//! ```
//!
//! where the expression is a future of `Option<impl Fixture>`; `None` is a machine without that engine (the fixture says
//! so loudly, and fails instead where nothing may be missing). Each check has owners of its own, a deadline, and leaves
//! nothing behind: that is checked too.
#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stderr, reason = "these are tests, in a library only to be shared")]

pub mod builds;
pub mod environment;
pub mod instances;
pub mod logs;
pub mod owners;
pub mod programs;
pub mod removal;
mod server;
mod trees;
mod waiting;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use coracle_model::{AppName, BuildPlan, InstanceId};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::Engine;

pub use server::Server;
pub use trees::{Tree, dockerfile_tree, python_tree};
pub use waiting::{eventually, processes_with, unique};

/// How long a check may take, a cold build included.
const DEADLINE: Duration = Duration::from_secs(180);

/// The apps that checks use.
const APPS: [&str; 2] = ["blog", "shop"];

/// One machine with an engine on it, for one check.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The engine of the server under test, as a server that starts makes it. Called again it is the same owner and the
    /// same state: a server that has come back.
    async fn open(&self) -> Engine;

    /// The engine of another server on the same machine.
    async fn stranger(&self) -> Engine;

    /// What the engine can do here.
    fn capabilities(&self) -> Capabilities;

    /// Writes a source tree and says how to build it; `None` if this engine has no such build.
    async fn tree(&self, tree: Tree, directory: &Path) -> Option<BuildPlan>;

    /// Everything of both servers that exists on the machine, named so that a person finds it: containers, networks,
    /// volumes, images, processes, directories, control groups. Without the engine under test, where that is possible.
    /// What a server keeps for itself (its state directory, a bounded cache) does not count.
    async fn leftovers(&self) -> Vec<String>;

    /// Whatever others on the machine may read about an instance (labels, command, names). Process lists are looked at
    /// anyway.
    async fn readable_by_others(&self, id: &InstanceId) -> String;

    /// Ends what the fixture itself has started.
    async fn tear_down(&self) {}
}

/// What an engine can do on this machine. A check that needs what is missing passes without a word but a line of output.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities {
    /// It runs real programs: false for the fake alone.
    pub programs: bool,
    /// It enforces memory limits.
    pub memory_limit: bool,
    /// Volumes are seen at their path.
    pub volumes: bool,
    /// It finds every descendant of an instance, also one in a session of its own.
    pub descendants: bool,
}

/// What a check is given.
pub struct Bench {
    fixture: Box<dyn Fixture>,
}

impl Bench {
    /// The server under test.
    pub async fn server(&self) -> Server {
        Server::new(self.fixture.open().await)
    }

    /// Another server on the same machine.
    pub async fn stranger(&self) -> Server {
        Server::new(self.fixture.stranger().await)
    }

    /// What the engine can do.
    pub fn can(&self) -> Capabilities {
        self.fixture.capabilities()
    }

    /// The server under test, with an artifact of the test program.
    pub async fn built(&self) -> Server {
        let mut server = self.server().await;
        server.build_program(self.fixture.as_ref()).await;
        server
    }

    fn fixture(&self) -> &dyn Fixture {
        self.fixture.as_ref()
    }

    /// Removes everything the way a server would.
    async fn clean_up(&self) {
        for engine in [self.fixture.open().await, self.fixture.stranger().await] {
            for app in APPS.map(app) {
                engine.runtime.remove_app(&app).await.unwrap();
                engine.builder.prune(&app, &[]).await.unwrap();
            }
        }
    }
}

/// Carries out one check, and sees to it that nothing is left of it.
pub async fn run(fixture: Option<impl Fixture + 'static>, check: impl for<'a> FnOnce(&'a Bench) -> BoxFuture<'a, ()>) {
    let Some(fixture) = fixture else { return };
    let bench = Bench { fixture: Box::new(fixture) };
    let outcome = AssertUnwindSafe(tokio::time::timeout(DEADLINE, check(&bench))).catch_unwind().await;
    let cleaned = AssertUnwindSafe(tokio::time::timeout(DEADLINE, bench.clean_up())).catch_unwind().await;
    let left = AssertUnwindSafe(nothing_left(bench.fixture())).catch_unwind().await;
    bench.fixture.tear_down().await;
    // What the check says comes first: the rest may only follow from it.
    for result in [outcome, cleaned] {
        match result {
            Ok(in_time) => assert!(in_time.is_ok(), "it took longer than {DEADLINE:?}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    if let Err(panic) = left {
        std::panic::resume_unwind(panic);
    }
}

/// Waits until nothing of either server is on the machine.
async fn nothing_left(fixture: &dyn Fixture) {
    let mut left = Vec::new();
    for _ in 0..100 {
        left = fixture.leftovers().await;
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("left behind: {left:#?}");
}

/// Says that a check does not apply.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

/// One test per check over the given fixture.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests! { @each $fixture;
            builds::a_build_makes_an_artifact_that_is_there,
            builds::a_build_only_reads_its_source,
            builds::an_image_tells_what_it_is,
            builds::a_failing_step_is_named_and_its_output_told,
            builds::a_cancelled_build_ends_soon_and_says_so,
            builds::a_build_past_its_deadline_is_ended,
            builds::a_build_whose_caller_is_gone_leaves_nothing_that_pruning_does_not_remove,
            builds::pruning_removes_all_but_what_is_kept,
            builds::an_artifact_survives_the_engine,
            environment::an_instance_sees_what_it_was_given_and_nothing_of_the_server,
            environment::an_instance_that_does_not_listen_has_no_port,
            environment::values_reach_the_environment_unchanged,
            environment::variables_in_a_command_are_filled_in,
            environment::no_value_is_readable_by_others,
            environment::no_value_is_in_an_error,
            instances::a_started_instance_runs_and_answers_at_its_address,
            instances::the_command_that_the_build_found_runs,
            instances::starting_what_runs_changes_nothing,
            instances::starting_what_has_exited_starts_it_anew,
            instances::five_start_at_once_and_do_not_disturb_each_other,
            instances::what_is_gone_is_stopped_again_without_complaint,
            instances::a_polite_instance_is_stopped_long_before_its_grace_is_over,
            instances::a_stubborn_instance_is_killed_when_its_grace_is_over,
            instances::no_descendant_outlives_its_instance,
            instances::the_list_is_complete_and_in_order,
            instances::an_exited_instance_tells_how_it_ended,
            instances::memory_beyond_the_limit_ends_the_instance_and_is_named,
            instances::an_artifact_that_is_gone_is_named,
            instances::a_program_that_does_not_exist_does_not_run,
            instances::instances_outlive_the_engine,
            instances::events_tell_of_starts_and_ends,
            instances::a_running_instance_has_figures,
            logs::both_streams_are_kept_apart_and_in_order,
            logs::a_tail_is_the_last_lines,
            logs::since_leaves_out_what_was_before,
            logs::following_tells_every_line_once_and_ends_with_the_instance,
            logs::following_what_has_exited_ends,
            logs::a_log_outlives_its_program_and_goes_with_its_instance,
            logs::bytes_that_are_no_text_and_lines_without_an_end_are_kept,
            owners::another_server_sees_and_touches_nothing,
            owners::two_servers_run_the_same_instance_side_by_side,
            programs::a_program_runs_inside_an_instance,
            programs::a_cancelled_program_is_killed_and_its_instance_goes_on,
            programs::there_is_nothing_to_run_in_an_instance_that_is_gone,
            programs::a_one_off_process_runs_to_its_end_and_is_removed,
            programs::a_one_off_process_past_its_deadline_is_killed,
            programs::a_cancelled_one_off_process_is_killed,
            programs::a_one_off_process_whose_caller_is_gone_can_be_stopped,
            programs::a_line_that_is_too_long_is_cut,
            removal::removing_what_never_was_succeeds,
            removal::a_removed_release_leaves_the_others_alone,
            removal::a_removed_app_is_gone_with_what_runs,
            removal::volumes_last_until_their_app_is_removed,
        }
    };
    (@each $fixture:expr; $($group:ident :: $check:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::conformance::run($fixture.await, |bench| Box::pin($crate::conformance::$group::$check(bench))).await;
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    /// A check that is written and not listed would never run.
    #[test]
    fn every_check_is_listed() {
        let list = include_str!("conformance.rs");
        let groups = [
            ("builds", include_str!("conformance/builds.rs")),
            ("environment", include_str!("conformance/environment.rs")),
            ("instances", include_str!("conformance/instances.rs")),
            ("logs", include_str!("conformance/logs.rs")),
            ("owners", include_str!("conformance/owners.rs")),
            ("programs", include_str!("conformance/programs.rs")),
            ("removal", include_str!("conformance/removal.rs")),
        ];
        for (group, source) in groups {
            let checks = source.lines().filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next());
            for check in checks {
                assert!(list.contains(&format!("            {group}::{check},\n")), "{group}::{check} is not listed");
            }
        }
    }
}
