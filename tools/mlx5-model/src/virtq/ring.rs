// SPDX-License-Identifier: GPL-2.0

//! The rings of a virtqueue that is ready: where they lie, what was agreed on, how they fail.

use prm::cap::virtio_feature;
use virtio::{
    features::Features,
    memory::{
        Fault,
        Memory, //
    },
    net::{
        features,
        header, //
    },
    ring::{
        Config,
        ConfigError,
        Options,
        Queue,
        RingError,
        Slot,
        State, //
    },
};

/// The most pieces of memory that a chain of descriptors may consist of.
pub const MAX_CHAIN: usize = 1024;

/// Why a virtqueue failed: what its `error_type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Frames could not be moved.
    Network = 1,
    /// The rings, or a descriptor, are not as they can be.
    BadDescriptor = 2,
    /// Memory is not there, or not to be used so.
    InvalidBuffer = 3,
    /// A chain has too many descriptors.
    LongChain = 4,
    /// The firmware's own fault.
    Internal = 5,
}

impl Failure {
    /// The number that the driver sees.
    pub fn error_type(self) -> u8 {
        self as u8
    }
}

impl From<RingError> for Failure {
    fn from(error: RingError) -> Self {
        match error {
            RingError::ChainTooLong => Self::LongChain,
            RingError::Fault(_) => Self::InvalidBuffer,
            RingError::NotInFlight | RingError::NotNewest => Self::Internal,
            _ => Self::BadDescriptor,
        }
    }
}

impl From<Fault> for Failure {
    fn from(_: Fault) -> Self {
        Self::InvalidBuffer
    }
}

/// The virtio features that the features of a virtqueue stand for.
pub fn features(queue_features: u16, version_1: bool) -> Features {
    let mut set = if version_1 {
        Features::VERSION_1
    } else {
        Features::NONE
    };
    for (bit, feature) in [
        (virtio_feature::MRG_RXBUF, features::MRG_RXBUF),
        (virtio_feature::HOST_ECN, features::HOST_ECN),
        (virtio_feature::GUEST_ECN, features::GUEST_ECN),
        (virtio_feature::GUEST_TSO6, features::GUEST_TSO6),
        (virtio_feature::GUEST_TSO4, features::GUEST_TSO4),
        (virtio_feature::GUEST_CSUM, features::GUEST_CSUM),
        (virtio_feature::CSUM, features::CSUM),
        (virtio_feature::HOST_TSO6, features::HOST_TSO6),
        (virtio_feature::HOST_TSO4, features::HOST_TSO4),
    ] {
        if (queue_features >> bit) & 1 != 0 {
            set |= feature;
        }
    }
    set
}

/// The ring features of a virtqueue.
///
/// The object does not say which of them the driver negotiated. An indirect descriptor shows by its
/// flag, so it is always understood. EVENT_IDX does not show, so it is never in use: a driver must
/// not offer it.
pub fn options() -> Options {
    Options {
        indirect: true,
        ..Options::default()
    }
}

/// The rings of a virtqueue, and the memory they and the buffers are in.
pub struct Ring<M> {
    pub(super) queue: Queue<Vec<Slot>>,
    /// What the areas of the ring are reached through.
    pub(super) rings: M,
    /// What the buffers are reached through.
    pub(super) buffers: M,
    /// What the driver takes and gives.
    pub(super) features: Features,
    /// The length of the header before a frame, in bytes.
    pub(super) header_len: usize,
}

impl<M: Memory> Ring<M> {
    /// Makes the rings of a virtqueue that continues at `state`. Memory is not touched.
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    pub fn new(
        config: Config,
        state: State,
        features: Features,
        rings: M,
        buffers: M,
    ) -> Result<Self, ConfigError> {
        let slots = vec![Slot::default(); config.size.into()];
        Ok(Self {
            queue: Queue::new(config, state, slots)?,
            rings,
            buffers,
            features,
            header_len: header::length(features),
        })
    }

    /// Where the rings stand: the available and the used index.
    pub fn indices(&self) -> (u16, u16) {
        match self.queue.state() {
            State::Split { avail, used } => (avail, used),
            // No virtqueue is made with this layout.
            State::Packed { .. } => (0, 0),
        }
    }

    /// Asks the driver for kicks, as long as it is possible: what is wrong with the rings shows
    /// when there is something to be moved. An earlier user of the rings may have asked for none.
    pub(super) fn ask_for_kicks(&mut self) {
        let _ = self.queue.enable_kicks(&self.rings);
    }

    /// Ends the use of the rings, which the next user finds as they would be had this one never
    /// been. Returns where it begins.
    pub(super) fn stop(mut self) -> (u16, u16) {
        self.ask_for_kicks();
        self.indices()
    }

    /// Gives up: what was taken and not given back counts as not taken.
    pub(super) fn abandon(mut self) -> (u16, u16) {
        // If that cannot be said, the difference of the indices tells.
        let _ = self.queue.rewind();
        self.indices()
    }
}
