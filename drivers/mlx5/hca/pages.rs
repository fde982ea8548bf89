// SPDX-License-Identifier: GPL-2.0

//! Pages of our memory that the firmware keeps its state in.
//!
//! The firmware says how many it wants, before it starts and at any time later, and has them until
//! it gives them back. Each is known by its address, so that it is seen if one comes back that it
//! never had, or twice.

use hardware::DeviceMemory;
use kernel::{
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    rbtree::RBTree,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};
use prm::{
    page::{
        ManagePages,
        ManagePagesIn,
        PagesMove,
        PagesWanted,
        QueryPages, //
    },
    Opcode, //
};

use super::{
    command::{
        Failure,
        Reason, //
    },
    firmware::Firmware, //
};
use crate::show::Show;

/// A page of the firmware, whatever the host's pages are.
const BYTES: usize = 4096;
const _: () = assert!(PAGE_SIZE >= BYTES);

/// The most pages that are given in one command, and a firmware may ask for at once: 256 MiB.
const MOST: u32 = 65536;

/// The most pages that are taken back in one command.
const TAKEN: u32 = 512;

/// The pages that the firmware has.
#[pin_data]
pub(crate) struct Pages {
    firmware: Arc<Firmware>,
    #[pin]
    given: Mutex<RBTree<u64, DeviceMemory>>,
    /// How many the firmware asked for by events, less how many it offered back.
    asked: Atomic<i32>,
}

impl Pages {
    /// No pages yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(firmware: &Arc<Firmware>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                firmware: firmware.clone(),
                given <- new_mutex!(RBTree::new()),
                asked: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// How many the firmware has.
    pub(crate) fn count(&self) -> usize {
        self.given.lock().values().count()
    }

    /// Gives the pages that the firmware wants now.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command, and of want of memory.
    pub(crate) fn supply(&self, wanted: PagesWanted) -> Result<(), Failure> {
        let reply = self.firmware.execute::<QueryPages>(|input| {
            input.set_op_mod(wanted);
        })?;
        // In two's complement.
        let count = reply.read::<QueryPages>()?.0.num_pages() as i32;
        match u32::try_from(count) {
            Ok(0) | Err(_) => Ok(()),
            Ok(count) if count > MOST => Err(Failure::not_sent::<ManagePages>(E2BIG)),
            Ok(count) => self.give(count),
        }
    }

    /// Gives pages.
    fn give(&self, count: u32) -> Result<(), Failure> {
        let no_memory = Failure::not_sent::<ManagePages>;
        let mut tail = KVVec::with_capacity(8 * count as usize, GFP_KERNEL)
            .map_err(|error| no_memory(error.into()))?;
        let mut fresh = KVVec::with_capacity(count as usize, GFP_KERNEL)
            .map_err(|error| no_memory(error.into()))?;
        for _ in 0..count {
            let device = self.firmware.device();
            let page = DeviceMemory::new(device, BYTES).map_err(no_memory)?;
            tail.extend_from_slice(&page.addr().to_be_bytes(), GFP_KERNEL)
                .map_err(|error| no_memory(error.into()))?;
            fresh
                .push(page, GFP_KERNEL)
                .map_err(|error| no_memory(error.into()))?;
        }
        // They are in the books before the firmware has them: it may give them back at once.
        {
            let mut given = self.given.lock();
            for page in fresh {
                given
                    .try_create_and_insert(page.addr(), page, GFP_KERNEL)
                    .map_err(no_memory)?;
            }
        }
        let give = |input: &mut ManagePagesIn| {
            input
                .set_op_mod(PagesMove::GIVE)
                .set_input_num_entries(count);
        };
        match self.firmware.execute_with::<ManagePages>(give, &tail, 0) {
            Ok(_) => Ok(()),
            Err(failure) => {
                self.not_given(&failure, &tail);
                Err(failure)
            }
        }
    }

    /// Pages were not taken by the firmware, or who knows: those stay in the books.
    fn not_given(&self, failure: &Failure, tail: &[u8]) {
        if failure.is_in_doubt() {
            return;
        }
        let mut given = self.given.lock();
        for addr in tail.chunks_exact(8) {
            if let Ok(addr) = <[u8; 8]>::try_from(addr) {
                given.remove(&u64::from_be_bytes(addr));
            }
        }
    }

    /// Takes back up to `count` pages. Returns how many came.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command, also if a page comes back that the firmware never had.
    fn take(&self, count: u32) -> Result<u32, Failure> {
        let count = count.min(TAKEN);
        let take = |input: &mut ManagePagesIn| {
            input
                .set_op_mod(PagesMove::TAKE)
                .set_input_num_entries(count);
        };
        let room = 8 * count as usize;
        let reply = self.firmware.execute_with::<ManagePages>(take, &[], room)?;
        let (output, tail) = reply.read::<ManagePages>()?;
        let came = output.output_num_entries();
        let garbled = Reason::Garbled.of(Opcode::MANAGE_PAGES);
        if came > count {
            return Err(garbled);
        }
        for addr in tail.chunks_exact(8).take(came as usize) {
            let addr = <[u8; 8]>::try_from(addr).map_err(|_| garbled)?;
            let page = self.given.lock().remove(&u64::from_be_bytes(addr));
            // The memory is given back where no lock is held.
            page.ok_or(garbled)?;
        }
        Ok(came)
    }

    /// The firmware asks for pages, or offers some back. To be served by [`Self::serve`].
    ///
    /// May be called in any context.
    pub(crate) fn ask(&self, count: i32) {
        let most = MOST as i32;
        self.asked.add(count.clamp(-most, most), Relaxed);
    }

    /// Does what the firmware asked for.
    pub(crate) fn serve(&self) {
        // Relaxed: the numbers are all that is passed on.
        let asked = self.asked.xchg(0, Relaxed);
        let count = asked.unsigned_abs().min(MOST);
        let served = match asked {
            0 => Ok(()),
            1.. => self.give(count).inspect_err(|failure| {
                if matches!(failure.reason, Reason::NotSent(_)) {
                    self.deny();
                }
            }),
            _ => self.take_all(count).map(drop),
        };
        if let Err(failure) = served {
            if failure.reason != Reason::Dead {
                dev_err!(
                    self.firmware.log(),
                    "pages the firmware asked for: {}\n",
                    Show(failure)
                );
            }
        }
    }

    /// Says that there are none, so that the firmware does not wait for any.
    fn deny(&self) {
        let denied = self.firmware.execute::<ManagePages>(|input| {
            input.set_op_mod(PagesMove::CANT_GIVE);
        });
        if let Err(failure) = denied {
            dev_err!(self.firmware.log(), "{}\n", Show(failure));
        }
    }

    /// Takes back `count` pages, or as many as come. Returns how many did.
    fn take_all(&self, count: u32) -> Result<u32, Failure> {
        let mut left = count;
        while left > 0 {
            match self.take(left)? {
                0 => break,
                came => left -= came,
            }
        }
        Ok(count - left)
    }

    /// Takes every page back, when the firmware needs none any more.
    pub(crate) fn reclaim(&self) {
        loop {
            let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
            if count == 0 {
                return;
            }
            // Each turn takes one back at least, or is the last.
            match self.take_all(count) {
                Ok(came) if came > 0 => {}
                Ok(_) => {
                    dev_err!(self.firmware.log(), "the firmware keeps {} pages\n", count);
                    self.firmware.distrust();
                    return;
                }
                Err(failure) => {
                    self.firmware.failed(&failure);
                    return;
                }
            }
        }
    }
}
