//! Seats: what outlives a slot and is given to the next one. A user of its own on the machine, a user namespace that knows
//! only this user, and an empty network that nobody in it has any power over.

use std::os::fd::{AsFd, OwnedFd};

use coracle_jail::{JailError, Namespace, User};

use super::{INNER, Users};

/// The namespaces of one seat.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) user: User,
    pub(super) users: Namespace,
    pub(super) network: Namespace,
}

/// All seats made so far.
#[derive(Debug)]
pub(super) struct Seats {
    all: Users,
    proc: OwnedFd,
    made: Vec<Option<Seat>>,
    /// The network of the zygotes.
    nowhere: Option<Namespace>,
}

impl Seats {
    pub(super) fn new(all: Users, proc: OwnedFd) -> Self {
        Self { all, proc, made: Vec::new(), nowhere: None }
    }

    /// The seat of that number, made if it does not exist. This process is in its network afterwards.
    pub(super) fn take(&mut self, number: u32) -> Result<&Seat, JailError> {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if self.made.len() <= place {
            self.made.resize_with(place + 1, || None);
        }
        let missing = || JailError { step: format!("take seat {number}"), source: std::io::ErrorKind::NotFound.into() };
        let entry = self.made.get_mut(place).ok_or_else(missing)?;
        if entry.is_none() {
            let uid = self.all.of(number);
            let user = User { uid, gid: uid };
            let users = Namespace::new_users(self.proc.as_fd(), INNER, user)?;
            *entry = Some(Seat { user, users, network: Namespace::new_network(self.proc.as_fd())? });
        }
        let seat = entry.as_ref().ok_or_else(missing)?;
        seat.network.enter()?;
        Ok(seat)
    }

    /// Puts this process into a network where nothing is.
    pub(super) fn go_nowhere(&mut self) -> Result<(), JailError> {
        match &self.nowhere {
            Some(network) => network.enter(),
            None => {
                self.nowhere = Some(Namespace::new_network(self.proc.as_fd())?);
                Ok(())
            }
        }
    }
}
