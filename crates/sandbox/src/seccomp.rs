//! The system calls that a program in a sandbox may make: a list with a reason per line. Everything else answers EPERM (or
//! what [`ANSWERS`] says), so that a library which can do without it does.
//!
//! The list is the last fence, not the only one: a program in there has no capability, no network, no other user's file and
//! no way to see another process. What is kept out here is kept out because of bugs in the kernel that are not known yet.

mod policy;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    sock_filter,
};

pub use policy::{ALLOWED, ANSWERS, Allowed, Answered, ENTERING, Only, REFUSED};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The filter is written for other processors.
    #[error("the list of system calls does not know this processor ({0})")]
    Processor(&'static str),
    /// The compiler refused the list.
    #[error("the list of system calls does not compile: {0}")]
    Compile(String),
}

/// The filter, in two parts that apply together: an array of `struct sock_filter` each.
///
/// Installing a filter takes the kernel the longer the longer it is (it tries out every call), so the list is installed once,
/// in the zygote, and inherited; a worker adds only the short second part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// What is allowed in a sandbox or on the way into it; all else is refused.
    pub list: Vec<u8>,
    /// Refuses what is needed on the way only, and the parts of allowed calls that nobody needs.
    pub last: Vec<u8>,
}

/// Compiles the filter for this machine's processor.
pub fn programs() -> Result<Programs, SeccompError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| SeccompError::Processor(std::env::consts::ARCH))?;
    let refuse = || SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let list = rules(ALLOWED.iter().chain(ENTERING))?;
    let list = SeccompFilter::new(list, refuse(), SeccompAction::Allow, arch).map_err(compile)?;
    let last =
        SeccompFilter::new(rules(ENTERING.iter().chain(REFUSED))?, SeccompAction::Allow, refuse(), arch).map_err(compile)?;
    let list = answers().into_iter().chain(BpfProgram::try_from(list).map_err(compile)?);
    let last = farewell().into_iter().chain(BpfProgram::try_from(last).map_err(compile)?);
    Ok(Programs { list: bytes(list), last: bytes(last) })
}

fn rules<'a>(list: impl IntoIterator<Item = &'a Allowed>) -> Result<BTreeMap<i64, Vec<SeccompRule>>, SeccompError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in list {
        for call in allowed.calls {
            let chain = rules.entry(*call).or_default();
            chain.extend(rule(allowed.only)?);
        }
    }
    Ok(rules)
}

fn bytes(program: impl IntoIterator<Item = sock_filter>) -> Vec<u8> {
    let step = |step: sock_filter| {
        let [code0, code1] = step.code.to_ne_bytes();
        let [k0, k1, k2, k3] = step.k.to_ne_bytes();
        [code0, code1, step.jt, step.jf, k0, k1, k2, k3]
    };
    program.into_iter().flat_map(step).collect()
}

fn compile(error: impl std::fmt::Display) -> SeccompError {
    SeccompError::Compile(error.to_string())
}

fn rule(only: Only) -> Result<Option<SeccompRule>, SeccompError> {
    let condition = |argument, length, compared, value| SeccompCondition::new(argument, length, compared, value).map_err(compile);
    let is = |argument, value| condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    let masked = |argument, bits, value| condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), value);
    let conditions = match only {
        Only::Always => return Ok(None),
        Only::Is { argument, value } => vec![is(argument, value)?],
        Only::Without { argument, bits } => vec![masked(argument, bits, 0)?],
        Only::With { argument, bits } => vec![masked(argument, bits, bits)?],
        Only::IsAndGives { argument, value, given } => {
            vec![is(argument, value)?, condition(given, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?]
        }
    };
    SeccompRule::new(conditions).map(Some).map_err(compile)
}

/// What a worker's last call, exit_group(2), has in the upper half of its first argument. The kernel's exit codes are in the
/// lower half, so the call means the same without it.
const FAREWELL: u32 = 0x6661_7265;

/// Of struct sock_filter: what steps do.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Of struct seccomp_data: where things are. Both processors that are known have the lower half first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const ITS_UPPER_HALF: u32 = FIRST_ARGUMENT + 4;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Steps that apply to this processor's own calls alone: the lists themselves kill what comes from another mode of it, and
/// here another mode's numbers must not be mistaken for ours.
fn native_only(body: Vec<sock_filter>) -> Vec<sock_filter> {
    let native = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };
    let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
    let mut steps = vec![step(LOAD, 0, 0, ARCHITECTURE), step(JUMP_IF_EQUAL, 0, skip, native)];
    steps.extend(body);
    steps
}

/// Steps before the last list: a worker's last call is told to whoever listens, and waits for an answer, which never comes: the
/// worker is killed where it waits. Where nobody listens, the kernel answers ENOSYS.
fn farewell() -> Vec<sock_filter> {
    let number = u32::try_from(libc::SYS_exit_group).unwrap_or(u32::MAX);
    native_only(vec![
        step(LOAD, 0, 0, NUMBER),
        step(JUMP_IF_EQUAL, 0, 3, number),
        step(LOAD, 0, 0, ITS_UPPER_HALF),
        step(JUMP_IF_EQUAL, 0, 1, FAREWELL),
        step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    ])
}

/// Steps before the list: calls that are answered with an error of their own.
fn answers() -> Vec<sock_filter> {
    const ERRNO: u32 = 0x0005_0000;
    let mut body = vec![step(LOAD, 0, 0, NUMBER)];
    for answered in ANSWERS {
        let number = u32::try_from(answered.call).unwrap_or(u32::MAX);
        let answer = step(RETURN, 0, 0, ERRNO | answered.errno.cast_unsigned());
        match answered.unless_first {
            None => body.extend([step(JUMP_IF_EQUAL, 0, 1, number), answer]),
            Some(value) => body.extend([
                step(JUMP_IF_EQUAL, 0, 4, number),
                step(LOAD, 0, 0, FIRST_ARGUMENT),
                step(JUMP_IF_EQUAL, 1, 0, value),
                answer,
                step(LOAD, 0, 0, NUMBER),
            ]),
        }
    }
    native_only(body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_list_compiles_and_fits() {
        let programs = programs().unwrap();
        for program in [programs.list, programs.last] {
            assert_eq!(program.len() % 8, 0);
            assert!(program.len() / 8 < 4096, "the kernel takes 4096 steps");
        }
    }

    /// Otherwise a worker would end without a farewell, and nobody would notice but by the time that it takes.
    #[test]
    fn the_zygote_says_farewell_as_the_filter_expects_it() {
        let zygote = include_str!("zygote.py");
        assert!(zygote.contains(&format!("FAREWELL = 0x{FAREWELL:08x} << 32")));
        let steps = programs().unwrap().last;
        let told = FAREWELL.to_ne_bytes();
        assert!(steps.chunks_exact(8).any(|step| step[4..] == told), "no step of the filter knows it");
    }

    #[test]
    fn every_line_has_a_reason_and_no_call_two_lines_that_disagree() {
        let mut seen: BTreeMap<i64, Only> = BTreeMap::new();
        for allowed in ALLOWED.iter().chain(ENTERING) {
            assert!(allowed.because.len() > 5, "{allowed:?}");
            for call in allowed.calls {
                let before = seen.insert(*call, allowed.only);
                let both_conditional = before.is_none_or(|before| before != Only::Always && allowed.only != Only::Always);
                assert!(both_conditional, "call {call} is in two lines: {allowed:?}");
            }
        }
    }
}
