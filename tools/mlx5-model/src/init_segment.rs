// SPDX-License-Identifier: GPL-2.0

//! The registers in front of BAR 0.
//!
//! ```text
//!   0x0000  firmware version, revision of the command interface
//!   0x0010  address of the command queue, its geometry, NIC interface
//!   0x0018  command doorbell
//!   0x01fc  initializing
//!   0x0200  health buffer
//!   0x0ff8  time limits (none: the driver uses its own)
//!   0x1000  clock, health counter
//! ```

use std::{
    sync::{
        Mutex,
        MutexGuard,
        PoisonError, //
    },
    time::Instant,
};

use prm::{
    init_segment::{
        self as reference,
        HealthBuffer,
        NicInterface,
        CMDIF_REV, //
    },
    layout::Field,
    Layout, //
};
use zerocopy::IntoBytes;

/// The logarithm of the number of entries of the command queue.
pub const LOG_COMMANDS: u32 = 5;
/// The logarithm of the size of an entry in bytes.
pub const LOG_STRIDE: u32 = 6;

/// The bits of `cmdq_addr_l_sz` that are an address: the queue fills a page.
const ADDRESS: u32 = !0xfff;

/// What a write to the registers asks for beyond a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Commands are to be executed: a bit for each slot.
    Commands(u32),
    /// There is a command queue, whose slots are all free.
    Queue,
    /// The function is to be used by nobody, or by a driver again.
    Interface(NicInterface),
}

/// The registers of one function.
pub struct Registers {
    state: Mutex<State>,
}

struct State {
    segment: reference::InitSegment,
    interface: NicInterface,
    /// Whether the health counter goes on.
    alive: bool,
    started: Instant,
}

impl Registers {
    /// The registers of a function whose firmware is ready: `firmware` is its version, major,
    /// minor and sub-minor.
    pub fn new(firmware: [u16; 3]) -> Self {
        let [major, minor, subminor] = firmware;
        let mut segment = reference::InitSegment::new();
        segment
            .set_fw_rev((u32::from(minor) << 16) | u32::from(major))
            .set_cmdif_rev_fw_sub((u32::from(CMDIF_REV) << 16) | u32::from(subminor));
        // As the firmware packs it; never all ones, by which a driver knows a dead link.
        segment.health_mut().set_fw_ver(
            (u32::from(major) << 24) | ((u32::from(minor) & 0xff) << 16) | u32::from(subminor),
        );
        Self {
            state: Mutex::new(State {
                segment,
                interface: NicInterface::FULL_DRIVER,
                alive: true,
                started: Instant::now(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads registers; what is beyond them reads as 0.
    pub fn read(&self, offset: u64, to: &mut [u8]) {
        let mut state = self.state();
        let ticks = state.started.elapsed().as_nanos();
        if state.alive {
            // That it was looked at is change enough, however fast the polls follow each other.
            let counter = state.segment.health_counter().wrapping_add(1);
            state.segment.set_health_counter(counter);
        }
        let geometry = (LOG_COMMANDS << 4) | LOG_STRIDE;
        let low = state.segment.cmdq_addr_l_sz() & ADDRESS;
        let mut segment = state.segment.clone();
        segment
            .set_cmdq_addr_l_sz(low | ((state.interface.into_bits() as u32) << 8) | geometry)
            .set_internal_timer_h((ticks >> 32) as u32)
            .set_internal_timer_l(ticks as u32);
        let bytes = segment.as_bytes();
        let from = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get(offset..))
            .unwrap_or_default();
        let len = from.len().min(to.len());
        let (there, beyond) = to.split_at_mut(len);
        there.copy_from_slice(&from[..len]);
        beyond.fill(0);
    }

    /// Writes one register of 32 bits, or two that follow each other. What cannot be written, or
    /// is not written as a whole, is left as it is.
    pub fn write(&self, offset: u64, from: &[u8]) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut state = self.state();
        for (at, bytes) in (offset..).step_by(4).zip(from.chunks(4)) {
            let Ok(bytes) = <[u8; 4]>::try_from(bytes) else {
                break;
            };
            let value = u32::from_be_bytes(bytes);
            match at {
                0x10 => {
                    state.segment.set_cmdq_addr_h(value);
                }
                0x14 => {
                    state.segment.set_cmdq_addr_l_sz(value & ADDRESS);
                    if let Ok(interface) = NicInterface::from_bits(u64::from((value >> 8) & 7)) {
                        if interface != state.interface {
                            state.interface = interface;
                            requests.push(Request::Interface(interface));
                        }
                    }
                    if state.interface == NicInterface::FULL_DRIVER {
                        requests.push(Request::Queue);
                    }
                }
                0x18 => requests.push(Request::Commands(value)),
                _ => {}
            }
        }
        requests
    }

    /// Where the command queue is, if there is one.
    pub fn command_queue(&self) -> Option<u64> {
        let state = self.state();
        let high = u64::from(state.segment.cmdq_addr_h());
        let low = u64::from(state.segment.cmdq_addr_l_sz());
        let address = (high << 32) | low;
        (state.interface == NicInterface::FULL_DRIVER && address != 0).then_some(address)
    }

    /// Sets who may use the function.
    pub fn set_interface(&self, interface: NicInterface) {
        self.state().interface = interface;
    }

    /// Changes the health buffer, and whether the health counter goes on.
    pub fn set_health(&self, alive: bool, change: impl FnOnce(&mut HealthBuffer)) {
        let mut state = self.state();
        state.alive = alive;
        change(state.segment.health_mut());
    }

    /// The function is reset: there is no command queue.
    pub fn reset(&self) {
        let mut state = self.state();
        state.segment.set_cmdq_addr_h(0).set_cmdq_addr_l_sz(0);
        state.interface = NicInterface::FULL_DRIVER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(registers: &Registers, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        registers.read(offset, &mut bytes);
        u32::from_be_bytes(bytes)
    }

    #[test]
    fn a_driver_finds_what_it_looks_for() {
        let registers = Registers::new([22, 41, 1000]);
        assert_eq!(read(&registers, 0), (41 << 16) | 22);
        assert_eq!(read(&registers, 4), (5 << 16) | 1000);
        assert_eq!(read(&registers, 0x14), 0x56);
        assert_eq!(read(&registers, 0x1fc), 0);
        assert_eq!(read(&registers, 0xffc), 0);
        assert_ne!(read(&registers, 0x1010), read(&registers, 0x1010));
        assert_eq!(read(&registers, 0x4000), 0);
    }

    #[test]
    fn a_command_queue_is_where_it_was_put() {
        let registers = Registers::new([22, 41, 1000]);
        assert_eq!(registers.command_queue(), None);
        assert_eq!(registers.write(0x10, &7u32.to_be_bytes()), []);
        assert_eq!(
            registers.write(0x14, &0x1234_5000u32.to_be_bytes()),
            [Request::Queue]
        );
        assert_eq!(registers.command_queue(), Some(0x7_1234_5000));
        assert_eq!(read(&registers, 0x14), 0x1234_5056);
        assert_eq!(
            registers.write(0x18, &5u32.to_be_bytes()),
            [Request::Commands(5)]
        );
        assert_eq!(
            registers.write(0x14, &0x1234_5100u32.to_be_bytes()),
            [Request::Interface(NicInterface::DISABLED)]
        );
        assert_eq!(registers.command_queue(), None);
        assert_eq!(read(&registers, 0x14), 0x1234_5156);
        registers.reset();
        assert_eq!(read(&registers, 0x14), 0x56);
    }

    #[test]
    fn a_sick_firmware_stops_counting() {
        let registers = Registers::new([22, 41, 1000]);
        registers.set_health(false, |health| {
            health.set_synd(8).set_rfr_severity(0x80);
        });
        assert_eq!(read(&registers, 0x1010), read(&registers, 0x1010));
        assert_eq!(read(&registers, 0x23c), 8 << 16);
    }
}
