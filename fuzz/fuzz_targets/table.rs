//! Snapshots of the proxy's table: refused, or compiled as a whole.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(table) = serde_json::from_slice::<coracle_proxy::table::Table>(bytes) {
        drop(coracle_proxy::check(table));
    }
});
