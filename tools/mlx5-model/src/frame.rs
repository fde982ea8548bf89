// SPDX-License-Identifier: GPL-2.0

//! Ethernet frames on their way through the switch.

/// An Ethernet frame without its check sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// From the destination address on. Every checksum in it is whole.
    pub bytes: Vec<u8>,
}
