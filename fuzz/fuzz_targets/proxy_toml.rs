//! `proxy.toml`: mistakes have a place in the file, and what has none becomes a table that contradicts nothing.

#![no_main]

use std::path::Path;

use coracle_proxy_config::Config;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Config::parse(text, Path::new("/nowhere")) {
        Ok(config) => assert_eq!(config.table.check(), Ok(()), "{text}"),
        Err(mistakes) => {
            let lines = text.lines().count().max(1);
            for place in mistakes.all.iter().filter_map(|mistake| mistake.place) {
                assert!(place.line >= 1 && place.line <= lines + 1 && place.column >= 1, "{text}\n{mistakes}");
            }
        }
    }
});
