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
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
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

/// The most pages that a firmware may ask for at once: 256 MiB.
const MOST: u32 = 65536;

/// The most pages that are given or taken back in one command: their addresses fill a page.
const PORTION: u32 = 512;

/// How long the firmware may take to give up the next page when it needs none any more, and how
/// often it is asked meanwhile.
const PATIENCE: Delta = Delta::from_secs(5);
const STEP: Delta = Delta::from_millis(20);

/// The pages that the firmware has.
#[pin_data]
pub(crate) struct Pages {
    firmware: Arc<Firmware>,
    #[pin]
    given: Mutex<RBTree<u64, DeviceMemory>>,
    /// How many the firmware asked for by events that were not served yet.
    wanted: Atomic<i32>,
    /// How many it offered back.
    offered: Atomic<i32>,
    /// What the firmware calls the function where pages are meant.
    function: Atomic<i32>,
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
                wanted: Atomic::new(0),
                offered: Atomic::new(0),
                function: Atomic::new(0),
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
        let (output, _) = reply.read::<QueryPages>()?;
        self.function.store(output.function_id().into(), Relaxed);
        // In two's complement.
        match u32::try_from(output.num_pages() as i32) {
            Ok(count) if count > MOST => Err(Failure::not_sent::<ManagePages>(E2BIG)),
            Ok(count) => self.give_all(count),
            Err(_) => Ok(()),
        }
    }

    /// The function, as the firmware calls it.
    fn function(&self) -> u16 {
        // It came in as many bits.
        self.function.load(Relaxed) as u16
    }

    /// Gives `count` pages.
    fn give_all(&self, count: u32) -> Result<(), Failure> {
        let mut left = count;
        while left > 0 {
            let portion = left.min(PORTION);
            self.give(portion)?;
            left -= portion;
        }
        Ok(())
    }

    /// Gives pages by one command.
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
        let give = |input: &mut ManagePagesIn| {
            input
                .set_op_mod(PagesMove::GIVE)
                .set_function_id(self.function())
                .set_input_num_entries(count);
        };
        let given = self
            .book(fresh)
            .map_err(no_memory)
            .and_then(|()| self.firmware.execute_with::<ManagePages>(give, &tail, 0));
        match given {
            Ok(_) => Ok(()),
            Err(failure) => {
                self.not_given(&failure, &tail);
                Err(failure)
            }
        }
    }

    /// Puts pages into the books.
    fn book(&self, fresh: KVVec<DeviceMemory>) -> Result {
        let mut given = self.given.lock();
        for page in fresh {
            given.try_create_and_insert(page.addr(), page, GFP_KERNEL)?;
        }
        Ok(())
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
        let count = count.min(PORTION);
        let take = |input: &mut ManagePagesIn| {
            input
                .set_op_mod(PagesMove::TAKE)
                .set_function_id(self.function())
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
        // Apart: who asks and offers at once waits for both.
        if count > 0 {
            self.wanted.add(count.min(most), Relaxed);
        } else {
            self.offered.add(count.max(-most).saturating_neg(), Relaxed);
        }
    }

    /// Does what the firmware asked for.
    pub(crate) fn serve(&self) {
        // Relaxed: the numbers are all that is passed on.
        let wanted = self.wanted.xchg(0, Relaxed).unsigned_abs();
        let given = self.give_all(wanted).inspect_err(|failure| {
            // It waits for what did not come so far.
            if matches!(failure.reason, Reason::NotSent(_)) {
                self.deny();
            }
        });
        let offered = self.offered.xchg(0, Relaxed).unsigned_abs();
        let taken = self.take_all(offered).map(drop);
        for failure in [given.err(), taken.err()].into_iter().flatten() {
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
            input
                .set_op_mod(PagesMove::CANT_GIVE)
                .set_function_id(self.function());
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
        let mut since = Instant::<Monotonic>::now();
        loop {
            let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
            if count == 0 {
                return;
            }
            match self.take_all(count) {
                Ok(came) if came > 0 => since = Instant::now(),
                // It may be about to give them up.
                Ok(_) if since.elapsed() < PATIENCE => fsleep(STEP),
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
