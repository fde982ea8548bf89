// SPDX-License-Identifier: GPL-2.0

//! One life of the firmware, for who makes objects in it.
//!
//! The word "life" is taken, by the function's thread and by the lifecycle of a virtio device.

use hardware::Device;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    batch::Batch,
    capability::Capabilities,
    doorbell::Doorbell,
    events::{
        Listener,
        Listeners,
        Listening,
        Subject, //
    },
    firmware::Firmware, //
};

/// One life of the firmware: what there is from its start to its end. It ends with the firmware,
/// and is of no use then: each command fails at once. A new one comes by
/// [`Client::lives`](super::clients::Client::lives).
pub(crate) struct Era {
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
        let this = Self {
            firmware: firmware.clone(),
            capabilities,
            null_mkey,
            uid,
            doorbell,
            listeners,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
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
}
