//! The maker: a small process with one thread, forked from the daemon before that has a runtime, which makes everything that
//! needs namespaces. What it makes are its brothers, children of the daemon: whoever answers for them can wait for them.
//!
//! It takes orders as datagrams and answers each with the pid of what it started; PID 1 of a slot reports by itself when it is
//! ready. It decides nothing and remembers only the roots of the images and the namespaces that seats keep.

mod init;
mod order;
mod roots;
mod seat;
mod zygote;

pub(crate) use zygote::VARIABLES;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use coracle_jail::process::{Fork, exit_now, fork};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) use order::{Order, Report, receive_with, send as send_order, send_with as send_datagram};

use crate::image::Image;
use seat::Seats;

/// The number that the user of a sandbox has inside it.
pub(crate) const INNER: coracle_jail::User = coracle_jail::User { uid: 1000, gid: 1000 };

/// What the maker has to know from the start.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) images: Vec<Image>,
    pub(crate) users: Users,
    /// Whether this is an ordinary user's, in a user namespace: some things then go another way.
    pub(crate) rootless: bool,
    /// Whether programs can be made to lose their groups.
    pub(crate) drops_groups: bool,
    /// Bytes in each of `/work`, `/tmp` and `/dev/shm`.
    pub(crate) disk_bytes: u64,
    /// Files in each of them.
    pub(crate) disk_inodes: u64,
    /// Open files of each process.
    pub(crate) nofile: u64,
}

/// The users that seats are given, one each as long as there are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Users {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Users {
    /// Of the seat of that number; the group has the same.
    pub(crate) fn of(self, seat: u32) -> u32 {
        self.first + seat % self.count.max(1)
    }
}

/// Forks the maker off. The socket ends it when it closes. Only for a process with a single thread.
pub(crate) fn start(plan: &Plan) -> io::Result<(rustix::process::Pid, OwnedFd)> {
    let (ours, its) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    match fork()? {
        Fork::Parent(pid) => Ok((pid, ours)),
        Fork::Child => {
            drop(ours);
            // An error has been reported over the socket, where that is possible.
            let code = i32::from(work(plan, &its).is_err());
            exit_now(code)
        }
    }
}

fn work(plan: &Plan, socket: &OwnedFd) -> Result<(), coracle_jail::JailError> {
    let step = |error: rustix::io::Errno| coracle_jail::JailError { step: "receive an order".to_owned(), source: error.into() };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(step)?;
    // The daemon goes before the programs that it watches. They do not inherit that, nor does what is made for the next ones.
    if rustix::process::getpriority_process(None).map_err(step)? < 0 {
        rustix::process::setpriority_process(None, 0).map_err(step)?;
    }
    let proc = File::open("/proc").map_err(|source| coracle_jail::JailError { step: "open /proc".to_owned(), source })?;
    let roots = roots::build(plan, socket);
    let mut seats = Seats::new(plan.users, proc.into());
    loop {
        let Some((order, descriptors)) = order::receive(socket).map_err(step)? else { return Ok(()) };
        let done = match order {
            Order::Slot { image, seat, .. } => init::start(plan, &roots, &mut seats, image, seat, order.id(), socket),
            Order::Zygote { image, .. } => zygote::start(plan, &roots, &mut seats, image, &descriptors),
        };
        let report = match done {
            Ok(pid) => Report::Started { id: order.id(), pid: pid.as_raw_nonzero().get() },
            Err(error) => Report::Failed { id: order.id(), why: error.to_string() },
        };
        send(socket, &report);
    }
}

/// Tells the daemon, and answers whether it is there to hear it; if not, the maker ends at the next order.
fn send(socket: &OwnedFd, report: &Report) -> bool {
    rustix::net::send(socket.as_fd(), &report.encode(), SendFlags::NOSIGNAL).is_ok()
}

/// The next datagram on a socket of the maker, for the daemon.
pub(crate) fn read_report(socket: &OwnedFd) -> io::Result<Option<Report>> {
    let mut bytes = [0_u8; 4096];
    let (_, length) = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    Ok(bytes.get(..length).and_then(Report::decode))
}
