//! A compose file, through the whole loader.

#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/compose/tests/it/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|text: &str| {
    bodies::compose_file(text);
});
