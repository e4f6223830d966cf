//! How programs are kept from the machine and from each other, and which way this machine allows.

use std::str::FromStr;

/// The ways, the quickest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Slots made ahead, copies of a warm interpreter in namespaces of their own.
    Zygote,
    /// The same slots, and in each a fresh interpreter for the program.
    Exec,
    /// Containers started ahead by a Docker engine.
    Docker,
    /// None but the process's own limits: programs can do what the daemon's user can.
    Nothing,
}

impl Isolation {
    const ALL: [(Self, &str); 4] =
        [(Self::Zygote, "zygote"), (Self::Exec, "exec"), (Self::Docker, "docker"), (Self::Nothing, "nothing")];

    /// The word for it: `zygote`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or("zygote", |(_, word)| word)
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What is wanted: one way, or the best that the machine allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The first of `zygote` and `docker` that is safe here.
    #[default]
    Auto,
    /// This one and no other.
    Only(Isolation),
}

impl FromStr for Wanted {
    type Err = String;

    /// `auto`, `zygote`, `exec` or `docker`. Nothing at all is not a way that can be wanted, only put up with.
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "zygote" => Ok(Self::Only(Isolation::Zygote)),
            "exec" => Ok(Self::Only(Isolation::Exec)),
            "docker" => Ok(Self::Only(Isolation::Docker)),
            other => Err(format!("there is no mode {other:?}; there is auto, zygote, exec, docker")),
        }
    }
}

/// What an operator puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permitted {
    /// Limits of each process instead of all processes of a program together, where there are no cgroups.
    pub weak_limits: bool,
    /// No sandbox at all, where none can be made.
    pub no_sandbox: bool,
}
