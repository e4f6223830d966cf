//! Whole-system stories: the real program, real Docker, real gunicorn, real requests. Each is told on both engines where
//! both can tell it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, unreachable_pub)]

/// Tells a story on both engines, each on a server of its own.
macro_rules! on_both_engines {
    ($($(#[$doc:meta])* async fn $name:ident($env:ident: Env) $story:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$doc])*
            async fn story($env: Env) $story

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_docker() {
                tell(coracle_model::EngineKind::Docker).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_processes() {
                tell(coracle_model::EngineKind::Process).await;
            }

            async fn tell(engine: coracle_model::EngineKind) {
                if coracle_tests::engine::can_tell(engine, &format!("{} on {engine}", module_path!())) {
                    story(Env::start(engine).await).await;
                }
            }
        }
    )*};
}

mod approval;
mod broken_releases;
mod called_off;
mod certificates;
mod ci;
mod ci_init;
mod compose;
mod configuration;
mod crash;
mod discovery;
mod examples;
mod git_bombs;
mod git_examples;
mod git_push;
mod git_ssh;
mod healing;
mod hostile;
mod import;
mod machine;
mod neighbours;
mod no_dockerfile;
mod pipeline;
mod policy;
mod previews;
mod promotion;
mod pyrunner;
mod registry;
mod releases;
mod remote;
mod soak;
mod stacks;
mod upgrade;
mod watch;
mod webhooks;
