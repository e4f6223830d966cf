//! What whoever starts a measurement asks for, by variables of the environment.

/// A number by its name, or the usual one where it is not given.
///
/// # Panics
/// If it is given and is no number.
pub fn number(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Whether a scenario is asked for: `ONLY=c64,tls`, otherwise all are.
pub fn wanted(name: &str) -> bool {
    std::env::var("ONLY").ok().filter(|only| !only.is_empty()).is_none_or(|only| only.split(',').any(|one| one == name))
}
