// SPDX-License-Identifier: GPL-2.0
//! A port of the switch: the part of a device that other devices' workers see.

use core::fmt;

use kernel::{
    new_spinlock,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SetOnce,
        SpinLock, //
    }, //
};
use vdpa::{
    memory::{
        Spaces,
        View, //
    },
    worker::Handle,
    Callbacks, //
};
use virtio::{
    memory::Fault,
    net::{
        config::ConfigSpace,
        filter::Filter,
        MacAddress, //
    },
    ring::RingError, //
};

use crate::{
    frame::Addresses,
    queue::{
        Interrupt,
        Queue, //
    }, //
};

/// Virtqueue group of the transmit and receive queues' buffers.
pub(crate) const GROUP_DATA: u32 = 0;

/// Virtqueue group of the control queue, its rings included.
pub(crate) const GROUP_CONTROL: u32 = 1;

/// Virtqueue group of the rings of transmit and receive queues.
pub(crate) const GROUP_RINGS: u32 = 2;

/// Number of virtqueue groups.
pub(crate) const GROUPS: u32 = 3;

/// What is wrong with a port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// A ring is broken.
    Ring(RingError),
    /// A buffer is not in memory that the device was given for that.
    Memory(Fault),
    /// A receive buffer has a part for the device to read, or none for it to write.
    ReceiveBuffer,
    /// A control command has no room for the answer.
    NoAnswer,
    /// The rings could not be looked at for lack of memory.
    NoMemory,
    /// The queue could not be started as it was set up.
    Start(Error),
}

impl From<RingError> for Reason {
    fn from(error: RingError) -> Self {
        Reason::Ring(error)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Ring(error) => write!(f, "{error}"),
            Reason::Memory(fault) => write!(f, "buffer: {fault}"),
            Reason::ReceiveBuffer => f.write_str("receive buffer is not for writing"),
            Reason::NoAnswer => f.write_str("control command without room for the answer"),
            Reason::NoMemory => f.write_str("out of memory"),
            Reason::Start(error) => write!(f, "cannot start ({})", error.to_errno()),
        }
    }
}

/// The memory of a port's driver.
pub(crate) struct Views {
    data: View,
    /// The memory of the rings, if they lie in another address space.
    rings: Option<View>,
}

impl Views {
    /// The memory of the buffers.
    pub(crate) fn data(&self) -> &View {
        &self.data
    }

    /// The memory of the rings.
    pub(crate) fn rings(&self) -> &View {
        self.rings.as_ref().unwrap_or(&self.data)
    }
}

/// What the driver's control commands and the administrator set.
pub(crate) struct Settings {
    /// What the port wants to receive.
    pub(crate) filter: Filter,
    /// The configuration space.
    pub(crate) config: ConfigSpace,
    /// Queue pairs in use.
    pub(crate) pairs: u16,
}

/// A port.
#[pin_data]
pub(crate) struct Port {
    number: u32,
    name: CString,
    spaces: Arc<Spaces>,
    callbacks: Arc<Callbacks>,
    queues: KVec<Pin<KBox<Queue>>>,
    /// Queue pairs in use, for senders, who choose one of them.
    pairs: Atomic<u32>,
    /// Filter, configuration, queue pairs.
    #[pin]
    pub(crate) settings: SpinLock<Settings>,
    /// The first thing found wrong since the last reset, and in which queue.
    #[pin]
    fault: SpinLock<Option<(u16, Reason)>>,
    /// The control worker, which also looks after faults.
    control: SetOnce<Handle>,
}

impl Port {
    /// Creates a port with `queues` virtqueues.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        number: u32,
        name: &CStr,
        spaces: Arc<Spaces>,
        callbacks: Arc<Callbacks>,
        queues: u16,
        config: ConfigSpace,
    ) -> Result<Arc<Self>> {
        let mut list = KVec::with_capacity(usize::from(queues), GFP_KERNEL)?;
        for _ in 0..queues {
            list.push(KBox::pin_init(Queue::new(), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let name = CString::try_from_fmt(fmt!("{}", name))?;
        Arc::pin_init(
            pin_init!(Self {
                number,
                name,
                spaces,
                callbacks,
                queues: list,
                pairs: Atomic::new(1),
                settings <- new_spinlock!(Settings {
                    filter: Filter::RESET,
                    config,
                    pairs: 1,
                }),
                fault <- new_spinlock!(None),
                control: SetOnce::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// The number that tells the port from all others.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The device's name, for messages.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// Virtqueue `index`.
    pub(crate) fn queue(&self, index: u16) -> Option<&Queue> {
        self.queues
            .get(usize::from(index))
            .map(|queue| queue.as_ref().get_ref())
    }

    /// The memory of the driver as it is mapped now. To be dropped soon: whoever takes memory away
    /// from the device waits for it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn views(&self) -> Result<Views> {
        let one = self.spaces.asid_of_group(GROUP_DATA) == self.spaces.asid_of_group(GROUP_RINGS);
        Ok(Views {
            data: self.spaces.view_of_group(GROUP_DATA)?,
            rings: if one {
                None
            } else {
                Some(self.spaces.view_of_group(GROUP_RINGS)?)
            },
        })
    }

    /// The memory of the control queue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn control_view(&self) -> Result<View> {
        self.spaces.view_of_group(GROUP_CONTROL)
    }

    /// Whether a VMM has mapped memory for the device.
    pub(crate) fn is_mapped(&self) -> bool {
        self.spaces.user_map_exists()
    }

    /// Whether the port wants a frame with these addresses.
    pub(crate) fn accepts(&self, frame: &Addresses) -> bool {
        let settings = self.settings.lock();
        settings
            .filter
            .accepts(&settings.config.mac(), &frame.to, frame.customer_vlan())
    }

    /// The port's own address, while its driver receives.
    pub(crate) fn own_address(&self) -> Option<MacAddress> {
        let mac = self.settings.lock().config.mac();
        Some(mac).filter(|_| self.is_up())
    }

    /// Whether the port's driver receives: all of them use the first queue.
    pub(crate) fn is_up(&self) -> bool {
        self.queue(0).is_some_and(Queue::is_running)
    }

    /// The receive queue for frames of the flow `spread`.
    pub(crate) fn receive_index(&self, spread: u32) -> u16 {
        let pairs = self.pairs.load(Relaxed).max(1);
        // Below the number of pairs, which fits.
        2 * (spread % pairs) as u16
    }

    /// Sets the number of queue pairs in use.
    pub(crate) fn set_pairs(&self, pairs: u16) {
        self.settings.lock().pairs = pairs;
        self.pairs.store(u32::from(pairs), Relaxed);
    }

    /// Tells the driver that buffers of queue `index` were used. Not called under a ring's lock.
    pub(crate) fn interrupt(&self, index: u16, interrupt: Interrupt<'_>) {
        self.callbacks.queue(index);
        drop(interrupt);
    }

    /// Tells the driver that the configuration or the status changed.
    pub(crate) fn interrupt_config(&self) {
        self.callbacks.config();
    }

    /// Names the control worker, once.
    pub(crate) fn set_control(&self, handle: Handle) {
        self.control.populate(handle);
    }

    /// Reports that queue `index` was found broken, in its start `epoch`. The queue is shut at once;
    /// the control worker stops the device. If the queue was stopped since, this comes too late and
    /// does nothing: the next driver is not to blame.
    pub(crate) fn fault(&self, index: u16, epoch: u32, reason: Reason) {
        let Some(queue) = self.queue(index) else {
            return;
        };
        queue.shut(epoch, || {
            let mut fault = self.fault.lock();
            if fault.is_none() {
                *fault = Some((index, reason));
            }
        });
        if let Some(handle) = self.control.as_ref() {
            handle.queue();
        }
    }

    /// Takes the fault that was reported, to act on it before the next reset or, in that reset, to
    /// forget it.
    pub(crate) fn take_fault(&self) -> Option<(u16, Reason)> {
        self.fault.lock().take()
    }

    /// Forgets what the driver set, at a reset.
    pub(crate) fn reset(&self) {
        let mut settings = self.settings.lock();
        settings.filter.reset();
        settings.config.reset();
        settings.pairs = 1;
        drop(settings);
        self.pairs.store(1, Relaxed);
    }
}
