// SPDX-License-Identifier: GPL-2.0

//! A function as a PCI device behind a vfio-user socket.
//!
//! ```text
//!   QEMU ── socket ──> Server ──┬── region 7 ──> ConfigSpace   standard header, PCIe, MSI-X
//!     ▲                         ├── region 0 ──> Device        BAR 0: a function::Function
//!     │                         ├── DMA_MAP ───> DmaSpace      by file descriptors
//!     └──── eventfds ── Msix <──┴── SET_IRQS                   vectors
//! ```
//!
//! # What the crate `vfio_user` does not do, and what is done about it
//!
//! - `Server::run` serves one connection. [`Server::serve`] calls it again for the next client,
//!   after a reset; a second client waits until the first is gone.
//! - It handles one message at a time, and QEMU gives an answer 5 s. Nothing here or behind
//!   [`Device`] may wait.
//! - A malformed version or size makes it panic. The panic ends the connection and no more.
//! - Most errors are answered with the error flag and errno 0, which QEMU takes for success. What
//!   goes wrong is therefore logged here, and what can be ignored is.
//! - The body of a command it does not know stays in the stream, and what follows is garbage: the
//!   client has to reconnect. QEMU sends no such command.
//! - `DMA_READ` and `DMA_WRITE` to the client are missing: memory that comes without a file
//!   descriptor (ROMs, BARs of other devices) is out of the function's reach.
//! - A region is given for mmap only with sparse areas. Nothing of the BAR is: a doorbell page
//!   that is mapped loses repeated kicks.

mod config_space;
mod msix;
mod server;

use std::ops::RangeInclusive;

use config_space::ConfigSpace;
pub use msix::Msix;
pub use server::Server;

use crate::function::Function;

/// How many interrupt vectors a function may have. The table has a page of the BAR, 16 bytes for
/// each; a driver wants one for commands and one for completions at least.
pub const VECTORS: RangeInclusive<u16> = 2..=256;

/// What sits behind BAR 0. Nothing may wait.
pub trait Device: Send + Sync {
    /// The driver reads `to.len()` bytes at `offset`.
    fn bar_read(&self, offset: u64, to: &mut [u8]);

    /// The driver writes `from` at `offset`.
    fn bar_write(&self, offset: u64, from: &[u8]);

    /// The device is reset, and touches the driver's memory no more when this returns.
    fn reset(&self);
}

impl Device for Function {
    fn bar_read(&self, offset: u64, to: &mut [u8]) {
        self.bar_read(offset, to);
    }

    fn bar_write(&self, offset: u64, from: &[u8]) {
        self.bar_write(offset, from);
    }

    fn reset(&self) {
        self.reset();
    }
}
