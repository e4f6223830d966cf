//! What a build that failed was missing: programs and headers that a slim image, or a machine, does not have, told by the words
//! of the tools that looked for them.

/// What is missing, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// What needs it, as the installer calls it; `None`: it does not say.
    pub package: Option<String>,
    /// What was looked for, for people: `git`, `a C compiler`.
    pub what: &'static str,
    /// The packages of Debian that bring it.
    pub system: &'static str,
}

/// Signs of what is missing, the most telling first: what is said, what it means, and the packages of Debian.
const SIGNS: &[(&[&str], &str, &str)] = &[
    (
        &["Cannot find command 'git'", "Git executable not found", "syscall spawn git", "git: not found", "spawn git ENOENT"],
        "git",
        "git",
    ),
    (&["pg_config executable not found", "pg_config is required", "libpq-fe.h"], "PostgreSQL's headers", "gcc libpq-dev"),
    (
        &["mysql_config: not found", "Can not find valid pkg-config name", "mysql.h: No such file"],
        "MySQL's headers",
        "gcc pkg-config default-libmysqlclient-dev",
    ),
    (&["xmlversion.h: No such file", "libxml/", "xslt-config: not found"], "libxml2's headers", "gcc libxml2-dev libxslt1-dev"),
    (&["ffi.h: No such file"], "libffi's headers", "gcc libffi-dev"),
    (&["openssl/opensslv.h", "openssl/ssl.h"], "OpenSSL's headers", "gcc libssl-dev"),
    (&["jpeglib.h", "headers or library files could not be found for jpeg"], "libjpeg's headers", "gcc libjpeg-dev zlib1g-dev"),
    (&["Python.h: No such file"], "Python's headers", "gcc python3-dev"),
    (
        &["cargo, the Rust package manager, is not installed", "can't find Rust compiler", "cargo: not found"],
        "a Rust compiler",
        "cargo",
    ),
    (&["gyp ERR! find Python", "gyp ERR! stack Error: not found: make"], "make, Python and a C++ compiler", "python3 make g++"),
    (&["cmake: not found", "CMake must be installed"], "CMake", "cmake g++"),
    (
        &[
            "command 'gcc' failed: No such file",
            "command 'cc' failed: No such file",
            "unable to execute 'gcc'",
            "unable to execute 'cc'",
            "gcc: not found",
            "cc: not found",
            "command 'x86_64-linux-gnu-gcc' failed",
            "command 'aarch64-linux-gnu-gcc' failed",
        ],
        "a C compiler",
        "gcc libc6-dev",
    ),
    (&["command 'g++' failed: No such file", "g++: not found"], "a C++ compiler", "g++"),
];

/// What the last lines of a build that failed say is missing, if they say that anything is.
pub fn lacking<S: AsRef<str>>(lines: &[S]) -> Option<Lacking> {
    let says = |sign: &&str| lines.iter().any(|line| line.as_ref().contains(*sign));
    let (_, what, system) = SIGNS.iter().find(|(signs, ..)| signs.iter().any(&says))?;
    let package = lines.iter().rev().find_map(|line| package(line.as_ref(), what));
    Some(Lacking { package, what, system })
}

/// The package that a line is about.
fn package(line: &str, what: &str) -> Option<String> {
    let name = if what == "git" {
        // Without who asks for it: an address may have a token in it.
        let (_, address) = line.split_once("git+")?;
        let address = address.split_whitespace().next()?;
        let (_, rest) = address.split_once("://")?;
        let (host, path) = rest.split_once('/')?;
        format!("{}/{}", host.rsplit('@').next()?, path.split(['@', '#']).next()?)
    } else {
        let after = ["Failed building wheel for ", "Failed to build `", "Could not build wheels for ", "Failed to build "];
        let rest = after.iter().find_map(|sign| line.split_once(sign).map(|(_, rest)| rest))?;
        rest.split(['`', ',', ' ', '=']).next()?.to_owned()
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    (!name.is_empty() && name.len() < 100 && name.chars().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], package: Option<&str>, system: &str) {
        let lacking = lacking(lines).unwrap();
        assert_eq!((lacking.package.as_deref(), lacking.system), (package, system));
    }

    #[test]
    fn what_is_missing_is_told_by_the_words_of_whoever_looked_for_it() {
        check(
            &[
                "Collecting shop@ git+https://token:x@github.com/a/shop@v1#egg=shop (from -r requirements.txt (line 2))",
                "ERROR: Cannot find command 'git' - do you have 'git' installed and in your PATH?",
            ],
            Some("github.com/a/shop"),
            "git",
        );
        check(
            &[
                "error: command 'gcc' failed: No such file or directory",
                "ERROR: Failed building wheel for uwsgi",
                "Failed to build uwsgi",
            ],
            Some("uwsgi"),
            "gcc libc6-dev",
        );
        check(
            &["Error: pg_config executable not found.", "  × Failed to build `psycopg2==2.9.9`"],
            Some("psycopg2"),
            "gcc libpq-dev",
        );
        check(&["npm error syscall spawn git"], None, "git");
        assert_eq!(lacking(&["ERROR: No matching distribution found for flask==99", "see https://git-scm.com"]), None);
        assert_eq!(lacking::<&str>(&[]), None);
    }
}
