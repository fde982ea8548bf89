// SPDX-License-Identifier: GPL-2.0

//! The initialization segment: the registers in front of BAR 0.

use core::fmt;

use kernel::{
    io::poll::read_poll_timeout,
    prelude::*,
    sync::Arc,
    time::Delta, //
};
use prm::{
    init_segment::{
        HealthBuffer,
        InitSegment as Reference,
        NicInterface,
        CMDIF_REV, //
    },
    layout::Field,
    Layout, //
};

use super::{
    health::pulse::Reading,
    registers::{
        offset,
        Registers,
        GONE, //
    }, //
};

const FIRMWARE: usize = offset(&Reference::INFO, "fw_rev");
const INTERFACE_REVISION: usize = offset(&Reference::INFO, "cmdif_rev_fw_sub");
const QUEUE_HIGH: usize = offset(&Reference::INFO, "cmdq_addr_h");
const QUEUE_LOW: usize = offset(&Reference::INFO, "cmdq_addr_l_sz");
const DOORBELL: usize = offset(&Reference::INFO, "cmd_dbell");
const INITIALIZING: usize = offset(&Reference::INFO, "initializing");
const HEALTH: usize = offset(&Reference::INFO, "health");
/// The last of the registers that all functions have.
pub(crate) const COUNTER: usize = offset(&Reference::INFO, "health_counter");
const HEALTH_FIRMWARE: usize = HEALTH + offset(&HealthBuffer::INFO, "fw_ver");
const SEVERITY: usize = HEALTH + offset(&HealthBuffer::INFO, "rfr_severity");
/// The word with `irisc_index`, `synd` and `ext_synd`.
const SYNDROME: usize = HEALTH + offset(&HealthBuffer::INFO, "irisc_index");

/// In [`INITIALIZING`]: the firmware is still starting.
const STARTING: u32 = 1 << 31;

/// How long firmware may take to start: after a reset of the whole board, two minutes.
const START: Delta = Delta::from_secs(120);

/// How often it is looked at meanwhile.
const STEP: Delta = Delta::from_millis(2);

/// The version of the firmware.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    major: u16,
    minor: u16,
    subminor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:04}", self.major, self.minor, self.subminor)
    }
}

/// How the firmware wants the command queue.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    /// The logarithm of the number of entries.
    pub(crate) log_entries: u8,
    /// The logarithm of the bytes from entry to entry.
    pub(crate) log_stride: u8,
}

/// The initialization segment of a function.
#[derive(Clone)]
pub(crate) struct InitSegment(Arc<Registers>);

impl InitSegment {
    /// The segment in front of `registers`.
    pub(crate) fn new(registers: &Arc<Registers>) -> Self {
        Self(registers.clone())
    }

    /// Returns whether nothing answers.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.read(FIRMWARE) == GONE
    }

    /// Returns whether the firmware has started, and does not ask for a reset.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_gone()
            && self.0.read(INITIALIZING) & STARTING == 0
            && !self.health().asks_for_reset()
    }

    /// Waits until the firmware has started.
    ///
    /// # Errors
    ///
    /// `ENODEV` if nothing answers, `ETIMEDOUT` if it does not start.
    pub(crate) fn wait(&self) -> Result {
        read_poll_timeout(
            || match self.0.read(INITIALIZING) {
                GONE => Err(ENODEV),
                value => Ok(value),
            },
            |value| value & STARTING == 0,
            STEP,
            START,
        )
        .map(drop)
    }

    /// The version of the firmware.
    pub(crate) fn version(&self) -> Version {
        let words = (self.0.read(FIRMWARE), self.0.read(INTERFACE_REVISION));
        // Halves of words.
        Version {
            major: words.0 as u16,
            minor: (words.0 >> 16) as u16,
            subminor: words.1 as u16,
        }
    }

    /// How the firmware wants the command queue.
    ///
    /// # Errors
    ///
    /// The revision of the command interface, if it is one that this driver does not know.
    pub(crate) fn geometry(&self) -> Result<Geometry, u16> {
        // The high half of the word.
        let revision = (self.0.read(INTERFACE_REVISION) >> 16) as u16;
        if revision != CMDIF_REV {
            return Err(revision);
        }
        let word = self.0.read(QUEUE_LOW);
        Ok(Geometry {
            log_entries: (word >> 4) as u8 & 0xf,
            log_stride: word as u8 & 0xf,
        })
    }

    /// Tells where the command queue is: at the beginning of a page. A driver has the function from
    /// now on.
    pub(crate) fn set_queue(&self, addr: u64) {
        self.0.write(QUEUE_HIGH, (addr >> 32) as u32);
        // Bits 10 to 8 say who has the function: `FULL_DRIVER` is 0.
        self.0.write(QUEUE_LOW, addr as u32 & !0xfff);
    }

    /// Says that nobody has the function: the firmware forgets what it was given.
    pub(crate) fn disable(&self) {
        let interface = (NicInterface::DISABLED.into_bits() as u32) << 8;
        self.0.write(QUEUE_LOW, interface);
    }

    /// Returns whether nobody has the function, says the firmware: it does not use anything that it
    /// was given.
    pub(crate) fn is_disabled(&self) -> bool {
        u64::from(self.health().interface) == NicInterface::DISABLED.into_bits()
    }

    /// Has the firmware look at slots of the command queue, a bit for each.
    pub(crate) fn ring(&self, slots: u32) {
        self.0.write(DOORBELL, slots);
    }

    /// How the firmware is.
    pub(crate) fn health(&self) -> Reading {
        Reading {
            firmware: self.0.read(HEALTH_FIRMWARE),
            severity: (self.0.read(SEVERITY) >> 24) as u8,
            syndrome: (self.0.read(SYNDROME) >> 16) as u8,
            interface: (self.0.read(QUEUE_LOW) >> 8) as u8 & 7,
            counter: self.0.read(COUNTER),
        }
    }
}
