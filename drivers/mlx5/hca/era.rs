// SPDX-License-Identifier: GPL-2.0

//! One life of the firmware, for who makes objects in it.
//!
//! The word "life" is taken, by the function's thread and by the lifecycle of a virtio device.

use hardware::Device;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use super::{
    batch::Batch,
    capability::Capabilities,
    channel::{
        pool::Pool,
        Channel, //
    },
    command::Failure,
    doorbell::Doorbell,
    events::{
        Listener,
        Listeners,
        Listening,
        Subject, //
    },
    firmware::Firmware,
    interrupts::Line, //
};

/// One life of the firmware: what there is from its start to its end. It ends with the firmware,
/// and is of no use then: each command fails at once. A new one comes by
/// [`Client::lives`](super::clients::Client::lives).
#[pin_data]
pub(crate) struct Era {
    #[pin]
    channels: Mutex<Pool>,
    firmware: Arc<Firmware>,
    capabilities: Arc<Capabilities>,
    null_mkey: u32,
    /// The user context of all objects, for firmware that registers memory (umems) for no other; 0
    /// else, which is the driver itself.
    uid: u16,
    doorbell: Option<Doorbell>,
    listeners: Arc<Listeners>,
}

impl Era {
    /// What the firmware said of itself, and gave.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        firmware: &Arc<Firmware>,
        capabilities: Arc<Capabilities>,
        null_mkey: u32,
        uid: u16,
        uar: u32,
        listeners: Arc<Listeners>,
    ) -> Result<Arc<Self>> {
        let doorbell = Doorbell::new(firmware.registers(), &capabilities, uar).ok();
        let most_eqs = capabilities.completion_eqs();
        let pool = Pool::new(firmware, &listeners, most_eqs, uar, uid);
        Arc::pin_init(
            pin_init!(Self {
                channels <- new_mutex!(pool),
                firmware: firmware.clone(),
                capabilities,
                null_mkey,
                uid,
                doorbell,
                listeners,
            }),
            GFP_KERNEL,
        )
    }

    /// The function's device: what DMA memory is made for, and messages are about.
    pub(crate) fn device(&self) -> &Arc<Device> {
        self.firmware.device()
    }

    /// What the firmware can do.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The key of holes: what is read through it is zero, what is written is dropped.
    pub(crate) fn null_mkey(&self) -> u32 {
        self.null_mkey
    }

    /// Commands to be executed at once. They say by themselves on whose behalf they are, where they
    /// have to: who fills them in leaves that field alone.
    pub(crate) fn batch(&self) -> Batch {
        Batch::new(&self.firmware, self.uid)
    }

    /// The doorbells of virtqueues; `None` where there are no virtqueues.
    pub(crate) fn doorbell(&self) -> Option<&Doorbell> {
        self.doorbell.as_ref()
    }

    /// Returns whether nothing is asked of the firmware any more.
    pub(crate) fn is_over(&self) -> bool {
        self.firmware.is_dead()
    }

    /// Returns whether there may be something in the firmware that nobody can end any more, with
    /// the memory that it was given.
    pub(crate) fn is_unclean(&self) -> bool {
        self.firmware.is_unclean()
    }

    /// Tells `listener` what the firmware reports about `subject`, until the value that is returned
    /// is dropped. An object's number may be another's when it is gone: drop the value before.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody is told of it already, `ENOMEM`.
    pub(crate) fn listen(
        &self,
        subject: Subject,
        listener: Arc<dyn Listener>,
    ) -> Result<Listening> {
        Listeners::add(&self.listeners, subject, listener)
    }

    /// What virtqueues tell of used buffers by, where they cannot interrupt by themselves: one for
    /// each of `lines`. They are as before if somebody had them before.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub(crate) fn channels(&self, lines: &[Arc<Line>]) -> Result<KVec<Channel>, Failure> {
        self.channels.lock().take(lines)
    }

    /// Takes a channel back that no virtqueue refers to any more.
    pub(crate) fn put_back(&self, channel: Channel) {
        self.channels.lock().put_back(channel);
    }

    /// The firmware ends: what the era has for its users is taken away. Those are gone.
    pub(super) fn end(&self) {
        // What failed is in the log.
        let _ = self.channels.lock().end();
    }
}
