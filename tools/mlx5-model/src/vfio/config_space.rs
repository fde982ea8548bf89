// SPDX-License-Identifier: GPL-2.0

//! The configuration space of a virtual function.
//!
//! ```text
//!   0x00  standard header: 15b3:101e, class 020000
//!   0x60  PCI Express capability
//!   0x9c  MSI-X capability
//!   0x100 extended capability: device serial number
//! ```
//!
//! A byte has a mask of the bits that the driver may change; the others keep their value. The
//! client sizes BARs by itself, so a BAR has its type bits and no address.

/// The size of the space in bytes.
pub(super) const SIZE: usize = 4096;

const VENDOR: u16 = 0x15b3;
/// A virtual function of the family. Drivers choose what they offer by it.
const DEVICE: u16 = 0x101e;
/// Network controller, Ethernet.
const CLASS: u32 = 0x02_0000;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CLASS_AND_REVISION: usize = 0x08;
const CACHE_LINE: usize = 0x0c;
const BAR0: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

const PCIE: usize = 0x60;
const PCIE_FLAGS: usize = PCIE + 0x02;
const DEVICE_CAPABILITIES: usize = PCIE + 0x04;
const DEVICE_CONTROL: usize = PCIE + 0x08;
const LINK_CAPABILITIES: usize = PCIE + 0x0c;
const LINK_STATUS: usize = PCIE + 0x12;
const DEVICE_CONTROL_2: usize = PCIE + 0x28;

/// The PCI Express capability is 0x3c bytes long.
const MSIX: usize = PCIE + 0x3c;
const MSIX_CONTROL: usize = MSIX + 0x02;
const MSIX_TABLE: usize = MSIX + 0x04;
const MSIX_PBA: usize = MSIX + 0x08;

/// The head of the extended capability, version 1 and the last, and the number behind it.
const SERIAL: usize = 0x100;
const SERIAL_HEAD: u32 = 0x0001_0003;

const ID_PCIE: u8 = 0x10;
const ID_MSIX: u8 = 0x11;

/// Status: there is a list of capabilities.
const CAPABILITY_LIST: u16 = 1 << 4;
/// Command: memory, bus master, parity, SERR, no INTx.
const COMMAND_MASK: u16 = 0x0546;
/// Command: the function may be master of the bus.
const BUS_MASTER: u8 = 1 << 2;
/// A 64-bit memory BAR that may be prefetched.
const BAR_TYPE: u32 = 0xc;
/// Version 2 of the capability, an endpoint.
const PCIE_V2_ENDPOINT: u16 = 0x0002;
/// Payloads of 512 bytes, role-based errors, function-level reset.
const PCIE_DEVICE: u32 = 0x1000_8002;
/// 16 GT/s and 16 lanes, as both can be and are.
const PCIE_LINK: u16 = 0x0104;
/// Device control: reset the function. Reads as 0.
const INITIATE_RESET: u16 = 1 << 15;
/// MSI-X control: on, and all vectors masked.
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;
/// Where the table and the pending bits are, in BAR 0.
const TABLE_OFFSET: u32 = 0x10_2000;
const PBA_OFFSET: u32 = 0x10_3000;

/// What a write asks for beyond being remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// MSI-X was turned on or off.
    Msix(bool),
    /// The driver resets the function.
    Reset,
}

/// The configuration space of one function.
pub(super) struct ConfigSpace {
    bytes: Box<[u8; SIZE]>,
    writable: Box<[u8; SIZE]>,
    vectors: u16,
    serial: u64,
}

impl ConfigSpace {
    /// Makes the space of a function with `vectors` interrupt vectors and a `serial` number.
    pub(super) fn new(vectors: u16, serial: u64) -> Self {
        let mut space = Self {
            bytes: Box::new([0; SIZE]),
            writable: Box::new([0; SIZE]),
            vectors,
            serial,
        };
        space.reset();
        space
    }

    /// Puts everything back to what it was at power-on.
    pub(super) fn reset(&mut self) {
        *self = Self {
            bytes: Box::new([0; SIZE]),
            writable: Box::new([0; SIZE]),
            vectors: self.vectors,
            serial: self.serial,
        };
        self.set_u16(0x00, VENDOR);
        self.set_u16(0x02, DEVICE);
        self.allow(COMMAND, COMMAND_MASK);
        self.set_u16(STATUS, CAPABILITY_LIST);
        self.set_u32(CLASS_AND_REVISION, CLASS << 8);
        self.allow(CACHE_LINE, 0x00ff);
        self.set_u32(BAR0, BAR_TYPE);
        self.set_u16(SUBSYSTEM_VENDOR, VENDOR);
        self.set_u16(SUBSYSTEM, 0x0001);
        self.bytes[CAPABILITIES] = PCIE as u8;
        self.allow(INTERRUPT_LINE, 0x00ff);

        self.bytes[PCIE] = ID_PCIE;
        self.bytes[PCIE + 1] = MSIX as u8;
        self.set_u16(PCIE_FLAGS, PCIE_V2_ENDPOINT);
        self.set_u32(DEVICE_CAPABILITIES, PCIE_DEVICE);
        self.allow(DEVICE_CONTROL, !INITIATE_RESET);
        self.set_u32(LINK_CAPABILITIES, PCIE_LINK.into());
        self.set_u16(LINK_STATUS, PCIE_LINK);
        self.allow(DEVICE_CONTROL_2, 0xffff);

        self.bytes[MSIX] = ID_MSIX;
        self.set_u16(MSIX_CONTROL, self.vectors.saturating_sub(1));
        self.allow(MSIX_CONTROL, MSIX_ENABLE | MSIX_FUNCTION_MASK);
        self.set_u32(MSIX_TABLE, TABLE_OFFSET);
        self.set_u32(MSIX_PBA, PBA_OFFSET);

        self.set_u32(SERIAL, SERIAL_HEAD);
        // The halves of it.
        self.set_u32(SERIAL + 4, self.serial as u32);
        self.set_u32(SERIAL + 8, (self.serial >> 32) as u32);
    }

    /// Reads `to.len()` bytes at `offset`. What is behind the end reads as 0.
    pub(super) fn read(&self, offset: u64, to: &mut [u8]) {
        let there = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.bytes.get(offset..));
        let mut there = there.unwrap_or_default().iter();
        for byte in to {
            *byte = there.next().copied().unwrap_or(0);
        }
    }

    /// Writes `from` at `offset`, as far as it may be written, and says what it asks for.
    pub(super) fn write(&mut self, offset: u64, from: &[u8]) -> Option<Effect> {
        let was_enabled = self.msix_enabled();
        let mut reset = false;
        let offset = usize::try_from(offset).unwrap_or(SIZE).min(SIZE);
        for (byte, at) in from.iter().zip(offset..SIZE) {
            let (to, mask) = (&mut self.bytes[at], self.writable[at]);
            *to = (*to & !mask) | (byte & mask);
            // The bit is in the upper byte of the register.
            reset |= at == DEVICE_CONTROL + 1 && (u16::from(*byte) << 8) & INITIATE_RESET != 0;
        }
        if reset {
            return Some(Effect::Reset);
        }
        let enabled = self.msix_enabled();
        (enabled != was_enabled).then_some(Effect::Msix(enabled))
    }

    /// Whether the function may be master of the bus: without that it reaches no memory.
    pub(super) fn is_bus_master(&self) -> bool {
        self.bytes[COMMAND] & BUS_MASTER != 0
    }

    fn msix_enabled(&self) -> bool {
        (u16::from(self.bytes[MSIX_CONTROL + 1]) << 8) & MSIX_ENABLE != 0
    }

    fn set_u16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn allow(&mut self, at: usize, mask: u16) {
        self.writable[at..at + 2].copy_from_slice(&mask.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(space: &ConfigSpace, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        space.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn a_driver_finds_what_it_looks_for() {
        let space = ConfigSpace::new(64, 0x0123_4567_89ab_cdef);
        assert_eq!(u32_at(&space, 0), 0x101e_15b3);
        assert_eq!(u32_at(&space, 8) >> 8, 0x02_0000);
        // Follow the list as a driver does.
        let mut found = Vec::new();
        let mut at = u32_at(&space, 0x34) & 0xff;
        while at != 0 && found.len() < 16 {
            let head = u32_at(&space, at.into());
            found.push((head & 0xff, at));
            at = (head >> 8) & 0xff;
        }
        assert_eq!(found, [(0x10, 0x60), (0x11, 0x9c)]);
        assert_eq!(u32_at(&space, 0x9c) >> 16, 63);
        assert_eq!(u32_at(&space, 0xa0), 0x10_2000);
        assert_eq!(u32_at(&space, 0xa4), 0x10_3000);
        // One extended capability.
        assert_eq!(u32_at(&space, 0x100), 0x0001_0003);
        assert_eq!(u32_at(&space, 0x104), 0x89ab_cdef);
        assert_eq!(u32_at(&space, 0x108), 0x0123_4567);
    }

    #[test]
    fn only_what_may_be_written_is() {
        let mut space = ConfigSpace::new(64, 0x0123_4567_89ab_cdef);
        for at in (0..SIZE as u64)
            .step_by(2)
            .filter(|at| *at != DEVICE_CONTROL as u64)
        {
            space.write(at, &[0xff, 0xff]);
        }
        assert_eq!(u32_at(&space, 0), 0x101e_15b3);
        assert_eq!(u32_at(&space, 4), 0x0010_0546);
        assert!(space.is_bus_master());
        assert_eq!(u32_at(&space, 0x10), 0xc);
        assert_eq!(u32_at(&space, 0x14), 0);
        assert_eq!(u32_at(&space, 0x9c) >> 16, 0xc03f);
        space.reset();
        assert_eq!(u32_at(&space, 4), 0x0010_0000);
        assert!(!space.is_bus_master());
        assert_eq!(u32_at(&space, 0x9c) >> 16, 0x003f);
    }

    #[test]
    fn writes_have_effects() {
        let mut space = ConfigSpace::new(64, 0x0123_4567_89ab_cdef);
        assert_eq!(space.write(0x9e, &[0x00, 0x80]), Some(Effect::Msix(true)));
        assert_eq!(space.write(0x9e, &[0x00, 0xc0]), None);
        assert_eq!(space.write(0x9f, &[0x00]), Some(Effect::Msix(false)));
        assert_eq!(space.write(0x68, &[0x10, 0x28]), None);
        assert_eq!(space.write(0x68, &[0x10, 0xa8]), Some(Effect::Reset));
        assert_eq!(u32_at(&space, 0x68) & 0xffff, 0x2810);
    }

    #[test]
    fn behind_the_end() {
        let mut space = ConfigSpace::new(64, 0x0123_4567_89ab_cdef);
        assert_eq!(space.write(SIZE as u64 - 1, &[0xff; 8]), None);
        assert_eq!(space.write(u64::MAX, &[0xff; 8]), None);
        let mut bytes = [0xaa; 8];
        space.read(u64::MAX - 3, &mut bytes);
        assert_eq!(bytes, [0; 8]);
    }
}
