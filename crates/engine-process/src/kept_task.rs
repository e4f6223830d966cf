//! The task of a running instance, kept in the memory of its shim: `exec` needs it again, and it holds environment values,
//! which must not lie on a disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::IntoRawFd;

use rustix::fs::MemfdFlags;

use crate::task::{ShimRecord, Task};

/// Keeps the task for as long as this process lives. Answers the number of the descriptor that holds it; whoever may
/// trace this process can read it through `/proc`, nobody else.
pub(crate) fn keep(task: &Task) -> io::Result<i32> {
    let mut memory = File::from(rustix::fs::memfd_create("coracle-task", MemfdFlags::CLOEXEC)?);
    memory.write_all(&serde_json::to_vec(task)?)?;
    // Never closed: it goes with the shim. The program does not inherit it.
    Ok(memory.into_raw_fd())
}

/// The task that the shim of this record keeps.
pub(crate) fn of_shim(record: &ShimRecord) -> io::Result<Task> {
    let text = std::fs::read(format!("/proc/{}/fd/{}", record.pid, record.task_fd))?;
    Ok(serde_json::from_slice(&text)?)
}
