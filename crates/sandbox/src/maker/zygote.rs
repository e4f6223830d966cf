//! Starting a zygote: the image's interpreter in the image's root, with the zygote's script and four descriptors.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use coracle_jail::process::{
    Fork, close_on_exec_from, default_signals, exec, exit_now, fork_brother, place_descriptor, unblock_signals,
};
use coracle_jail::{JailError, Namespace, Namespaces};
use rustix::process::{Pid, Resource, Rlimit};

use super::seat::Seats;
use super::{INNER, Plan, roots};
use crate::image::{Image, ZYGOTE};

/// The variables that every program in a sandbox starts with.
pub(crate) const VARIABLES: [&str; 9] = [
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "HOME=/work",
    "USER=sandbox",
    "TMPDIR=/tmp",
    "LANG=C.UTF-8",
    // As in a locale of a language: in this one, Python would write lone surrogates as bytes that are no UTF-8.
    "PYTHONIOENCODING=utf-8:strict",
    "PYTHONDONTWRITEBYTECODE=1",
    // A share of a core is no place for a thread per core of the machine.
    "OPENBLAS_NUM_THREADS=1",
    "OMP_NUM_THREADS=1",
];

/// Starts one and answers its pid. The descriptors are its socket, standard input, output and error.
pub(super) fn start(
    plan: &Plan,
    roots: &[Option<Namespace>],
    seats: &mut Seats,
    image: u32,
    descriptors: &[OwnedFd],
) -> Result<Pid, JailError> {
    let step = |source: io::Error| JailError { step: "start a zygote".to_owned(), source };
    let place = usize::try_from(image).unwrap_or(usize::MAX);
    let image_of = plan.images.get(place).ok_or_else(|| step(io::ErrorKind::NotFound.into()))?;
    let [socket, input, output, error] = descriptors else { return Err(step(io::ErrorKind::InvalidInput.into())) };
    roots::enter(roots, image)?;
    seats.go_nowhere()?;
    // A mount namespace of its own: a slot's copy of the image's root is made from one that nobody runs in.
    match fork_brother(Namespaces { mount: true, uts: true, ipc: true, ..Namespaces::NONE }).map_err(step)? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            // Far above the four numbers that are about to be given out.
            let placed = [(input, 0), (output, 1), (error, 2), (socket, 3)]
                .into_iter()
                .map(|(descriptor, number)| Ok((rustix::io::fcntl_dupfd_cloexec(descriptor, 64)?, number)))
                .collect::<io::Result<Vec<_>>>()
                .and_then(|moved| moved.iter().try_for_each(|(descriptor, number)| place_descriptor(descriptor, *number)));
            drop(placed.and_then(|()| become_python(image_of, plan)));
            exit_now(127)
        }
    }
}

fn become_python(image: &Image, plan: &Plan) -> io::Result<()> {
    close_on_exec_from(4)?;
    unblock_signals();
    default_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let limits = [
        (Resource::Nofile, plan.nofile),
        // A file can be no larger than the place that it is in; the kernel says so before it is tried.
        (Resource::Fsize, plan.disk_bytes),
        (Resource::Memlock, 64 << 10),
        (Resource::Msgqueue, 64 << 10),
    ];
    for (resource, limit) in limits {
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    // No core dumps. Where they go to a program of the machine, a limit of 0 is not asked; one of 1 is (core(5)).
    let core = |limit| rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(limit), maximum: Some(limit) });
    core(1).or_else(|_| core(0))?;
    let text = |text: &str| CString::new(text).map_err(io::Error::from);
    let python = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(image.python().as_os_str()))?;
    let mut arguments = vec![python.clone(), text("-s")?, text(ZYGOTE)?];
    arguments.push(text(&INNER.uid.to_string())?);
    arguments.push(text(&INNER.gid.to_string())?);
    arguments.push(text(if plan.drops_groups { "groups-go" } else { "groups-stay" })?);
    for module in &image.preload {
        arguments.push(text(module)?);
    }
    let mut variables = VARIABLES.iter().map(|variable| text(variable)).collect::<io::Result<Vec<_>>>()?;
    if let Some(variable) = image.package_variable() {
        variables.push(text(&variable)?);
    }
    Err(exec(&python, &arguments, &variables))
}
