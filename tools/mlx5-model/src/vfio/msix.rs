// SPDX-License-Identifier: GPL-2.0

//! The interrupt vectors of a function.
//!
//! The client keeps the MSI-X table, its masks and the pending bits the driver sees. It connects a
//! vector with an eventfd when the driver unmasks it for the first time, and may take all of them
//! away and give them back while the driver knows nothing of it. A vector that is raised in
//! between is therefore remembered, as a masked one is in hardware:
//!
//! ```text
//!                 connected       not connected
//!   MSI-X on      eventfd         remembered; told when the vector is connected
//!   MSI-X off     eventfd         lost
//! ```

use std::{
    fs::File,
    io::{
        self,
        Write, //
    },
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Mutex,
        MutexGuard,
        PoisonError, //
    },
};

use tracing::{
    debug,
    warn, //
};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_TYPE_MASK,
    VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE,
    VFIO_IRQ_SET_DATA_TYPE_MASK, //
};

use crate::platform::Interrupts;

#[derive(Default)]
struct Vector {
    eventfd: Option<File>,
    pending: bool,
}

impl Vector {
    fn signal(&mut self) {
        if let Some(mut eventfd) = self.eventfd.as_ref() {
            // It is full only if nobody has looked for 2^64 interrupts: it is signalled then.
            if let Err(e) = eventfd.write(&1u64.to_ne_bytes()) {
                debug!("an eventfd cannot be written: {e}");
            }
        }
    }
}

/// The interrupt vectors of a function.
pub struct Msix {
    vectors: Vec<Mutex<Vector>>,
    enabled: AtomicBool,
}

impl Msix {
    /// Makes `count` vectors, none of them connected.
    pub fn new(count: u16) -> Self {
        Self {
            vectors: (0..count).map(|_| Mutex::default()).collect(),
            enabled: AtomicBool::new(false),
        }
    }

    /// The driver turned MSI-X on or off. What is pending is forgotten when it is off.
    pub fn enable(&self, on: bool) {
        self.enabled.store(on, Ordering::SeqCst);
        if !on {
            for vector in &self.vectors {
                lock(vector).pending = false;
            }
        }
    }

    /// The client is gone, or the device was reset: nothing is connected nor pending.
    pub fn reset(&self) {
        self.enabled.store(false, Ordering::SeqCst);
        for vector in &self.vectors {
            *lock(vector) = Vector::default();
        }
    }

    /// Does what a message of the client says about `count` vectors from `start`:
    ///
    /// - eventfds, as many as vectors: connects them;
    /// - eventfds, but none came: disconnects the vectors;
    /// - no data, no vectors: disconnects all;
    /// - no data: signals the vectors, as a test.
    ///
    /// # Errors
    ///
    /// If there are no such vectors, or the message is none of these.
    pub fn set(&self, flags: u32, start: u32, count: u32, eventfds: Vec<File>) -> io::Result<()> {
        let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if flags & VFIO_IRQ_SET_ACTION_TYPE_MASK != VFIO_IRQ_SET_ACTION_TRIGGER {
            return invalid(format!("vectors can only be triggered, not {flags:#x}"));
        }
        let range = usize::try_from(start)
            .ok()
            .zip(usize::try_from(count).ok())
            .and_then(|(start, count)| self.vectors.get(start..start.checked_add(count)?));
        let Some(vectors) = range else {
            return invalid(format!(
                "{count} vectors from {start} on, but there are {}",
                self.count()
            ));
        };
        match flags & VFIO_IRQ_SET_DATA_TYPE_MASK {
            VFIO_IRQ_SET_DATA_NONE if count == 0 => {
                for vector in &self.vectors {
                    lock(vector).eventfd = None;
                }
            }
            VFIO_IRQ_SET_DATA_NONE => {
                for vector in vectors {
                    lock(vector).signal();
                }
            }
            VFIO_IRQ_SET_DATA_EVENTFD if eventfds.is_empty() => {
                for vector in vectors {
                    lock(vector).eventfd = None;
                }
            }
            VFIO_IRQ_SET_DATA_EVENTFD if eventfds.len() == vectors.len() => {
                for (vector, eventfd) in vectors.iter().zip(eventfds) {
                    let mut vector = lock(vector);
                    vector.eventfd = Some(eventfd);
                    if std::mem::take(&mut vector.pending) {
                        vector.signal();
                    }
                }
            }
            _ => {
                return invalid(format!(
                    "{count} vectors, {} eventfds, flags {flags:#x}",
                    eventfds.len()
                ));
            }
        }
        Ok(())
    }
}

impl Interrupts for Msix {
    fn count(&self) -> u16 {
        // They were made from a number of 16 bits.
        self.vectors.len() as u16
    }

    fn raise(&self, vector: u16) {
        let Some(slot) = self.vectors.get(usize::from(vector)) else {
            warn!("vector {vector} is raised, but there are {}", self.count());
            return;
        };
        let mut slot = lock(slot);
        if slot.eventfd.is_some() {
            slot.signal();
        } else if self.enabled.load(Ordering::SeqCst) {
            slot.pending = true;
        } else {
            debug!("vector {vector} is lost: MSI-X is off");
        }
    }
}

fn lock(vector: &Mutex<Vector>) -> MutexGuard<'_, Vector> {
    // A vector is whole at every moment.
    vector.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::unix::net::UnixStream, //
    };

    use super::*;

    const CONNECT: u32 = 0x24;
    const SIGNAL: u32 = 0x21;

    /// What stands for an eventfd: 8 bytes arrive for each interrupt.
    fn eventfd() -> (File, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        there.set_nonblocking(true).unwrap();
        (File::from(std::os::fd::OwnedFd::from(here)), there)
    }

    fn interrupts(there: &mut UnixStream) -> usize {
        let mut bytes = [0; 800];
        there.read(&mut bytes).map_or(0, |n| n / 8)
    }

    #[test]
    fn vectors_arrive_one_a_message_and_go_so() {
        let msix = Msix::new(4);
        let (fd, mut there) = eventfd();
        msix.set(CONNECT, 2, 1, vec![fd]).unwrap();
        msix.raise(2);
        msix.raise(1);
        assert_eq!(interrupts(&mut there), 1);
        msix.set(CONNECT, 2, 1, vec![]).unwrap();
        msix.raise(2);
        assert_eq!(interrupts(&mut there), 0);
    }

    #[test]
    fn several_at_once_and_all_away() {
        let msix = Msix::new(4);
        let (first, mut first_there) = eventfd();
        let (second, mut second_there) = eventfd();
        msix.set(CONNECT, 1, 2, vec![first, second]).unwrap();
        msix.set(SIGNAL, 1, 2, vec![]).unwrap();
        msix.raise(2);
        assert_eq!(
            (interrupts(&mut first_there), interrupts(&mut second_there)),
            (1, 2)
        );
        msix.set(SIGNAL, 0, 0, vec![]).unwrap();
        msix.raise(1);
        assert_eq!(interrupts(&mut first_there), 0);
    }

    #[test]
    fn raised_between_two_connections() {
        let msix = Msix::new(1);
        msix.raise(0);
        msix.enable(true);
        let (fd, mut there) = eventfd();
        msix.set(CONNECT, 0, 1, vec![fd]).unwrap();
        assert_eq!(interrupts(&mut there), 0, "raised while MSI-X was off");
        msix.set(SIGNAL, 0, 0, vec![]).unwrap();
        msix.raise(0);
        msix.raise(0);
        let (fd, mut there) = eventfd();
        msix.set(CONNECT, 0, 1, vec![fd]).unwrap();
        assert_eq!(
            interrupts(&mut there),
            1,
            "remembered once, and told at once"
        );
        msix.set(CONNECT, 0, 1, vec![]).unwrap();
        msix.raise(0);
        msix.enable(false);
        msix.enable(true);
        let (fd, mut there) = eventfd();
        msix.set(CONNECT, 0, 1, vec![fd]).unwrap();
        assert_eq!(interrupts(&mut there), 0, "forgotten when MSI-X went off");
    }

    #[test]
    fn what_makes_no_sense() {
        let msix = Msix::new(4);
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        for (flags, start, count, fds) in [
            (CONNECT, 4, 1, 0),
            (CONNECT, 1, u32::MAX, 0),
            (CONNECT, 0, 2, 1),
            (0x22, 0, 1, 0),
            (0x0c, 0, 1, 0),
            (0x09, 0, 1, 0),
            (0x04, 0, 1, 1),
        ] {
            let fds = (0..fds).map(|_| eventfd().0).collect();
            assert_eq!(
                kind(msix.set(flags, start, count, fds)),
                io::ErrorKind::InvalidInput
            );
        }
        msix.raise(4);
    }
}
