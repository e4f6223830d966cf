//! PID 1 of a slot: mounts what a slot has of its own, gives up its power and sleeps. Whoever loses his parent in there
//! becomes its child and is forgotten when he ends; when it is killed, the kernel kills everybody else.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_jail::process::{Fork, close_all_but, exit_now, forget_children, fork_brother, sleep_for_ever};
use coracle_jail::{Confinement, JailError, Namespace, Namespaces, Scratch};
use rustix::process::Pid;

use super::seat::{Seat, Seats};
use super::{Plan, Report, roots, send};

/// Starts one and answers its pid. It reports under `id` when it is ready.
pub(super) fn start(
    plan: &Plan,
    roots: &[Option<Namespace>],
    seats: &mut Seats,
    image: u32,
    seat: u32,
    id: u32,
    socket: &OwnedFd,
) -> Result<Pid, JailError> {
    roots::enter(roots, image)?;
    let seat = seats.take(seat)?;
    let cloned = fork_brother(Namespaces::ALL).map_err(|source| JailError { step: "clone a slot".to_owned(), source })?;
    match cloned {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => live(plan, seat, id, socket),
    }
}

fn live(plan: &Plan, seat: &Seat, id: u32, socket: &OwnedFd) -> ! {
    forget_children();
    match settle(plan, seat) {
        // From here on the daemon's death is this process's; one that died before is noticed by its silence.
        Ok(()) if send(socket, &Report::Ready { id }) => {}
        Ok(()) => exit_now(1),
        Err(error) => {
            send(socket, &Report::Failed { id, why: error.to_string() });
            exit_now(1);
        }
    }
    if close_all_but(&[]).is_err() {
        exit_now(1);
    }
    sleep_for_ever()
}

fn settle(plan: &Plan, seat: &Seat) -> Result<(), JailError> {
    let hide = |error: rustix::io::Errno| JailError { step: "hide the daemon's memory".to_owned(), source: error.into() };
    // This process is a copy of the daemon's and may be of the same user as the program: nobody in there looks into it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(hide)?;
    for (place, mode, executable) in [("/work", 0o755, true), ("/tmp", 0o1777, true), ("/dev/shm", 0o1777, false)] {
        let (bytes, inodes) = (plan.disk_bytes, plan.disk_inodes);
        Scratch { place: PathBuf::from(place), bytes, inodes, owner: seat.user, mode, executable }.mount()?;
    }
    coracle_jail::root::mount_processes_alone()?;
    if plan.rootless {
        coracle_jail::root::take_off(Path::new(crate::image::MACHINES_PROC))?;
    }
    let named = |error: rustix::io::Errno| JailError { step: "name the host".to_owned(), source: error.into() };
    rustix::system::sethostname(b"sandbox").map_err(named)?;
    rustix::system::setdomainname(b"(none)").map_err(named)?;
    seat.users.enter()?;
    seal_projects();
    let confinement =
        Confinement { drop_capabilities: true, no_new_privileges: true, dies_with_parent: true, ..Confinement::default() };
    confinement.enter(&[])
}

/// The map of project ids takes no privilege to write, can be written once, and stays with the seat: a program could leave a
/// message in it for the next one. Refused where it is written already, and where the namespace above has none, in which
/// case programs are refused too.
fn seal_projects() {
    std::fs::write("/proc/self/projid_map", "0 0 1").ok();
}
