// SPDX-License-Identifier: GPL-2.0

//! What the ConnectX programmer's reference says, as pure types: commands and their outcomes,
//! contexts of objects, events and capabilities.
//!
//! Each is written down once, as a big-endian structure of typed bit-fields
//! ([`layout!`](crate::layout)). A driver encodes requests and decodes replies with it; a device
//! model does the reverse. The names are the reference's, as Linux spells them.
//!
//! Nothing here knows a kernel or an operating system: the same code is compiled into kernel
//! modules by Kbuild and into tools and tests by cargo.

#![no_std]
// Kbuild gives every crate `no_std`, cargo none.
#![allow(unused_attributes, clippy::duplicated_attributes)]
#![forbid(unsafe_code)]

pub mod cap;
pub mod command;
pub mod cq;
pub mod eq;
pub mod flow;
pub mod hca;
pub mod init_segment;
pub mod layout;
pub mod mkey;
mod opcode;
pub mod page;
pub mod pd;
pub mod qp;
pub mod register;
pub mod rqt;
mod status;
pub mod tir;
pub mod tis;
pub mod uar;
pub mod umem;
pub mod virtq;
pub mod vport;

pub use self::{
    command::Command,
    layout::Layout,
    opcode::{
        ObjectType,
        Opcode, //
    },
    status::Status, //
};

// For the macros, which are used outside too.
#[doc(hidden)]
pub use {
    zerocopy,
    zerocopy_derive, //
};

/// The structures of this crate.
pub static LAYOUTS: &[&[layout::Info]] = &[
    cap::LAYOUTS,
    command::LAYOUTS,
    cq::LAYOUTS,
    eq::LAYOUTS,
    flow::LAYOUTS,
    hca::LAYOUTS,
    init_segment::LAYOUTS,
    mkey::LAYOUTS,
    page::LAYOUTS,
    pd::LAYOUTS,
    qp::LAYOUTS,
    register::LAYOUTS,
    rqt::LAYOUTS,
    tir::LAYOUTS,
    tis::LAYOUTS,
    uar::LAYOUTS,
    umem::LAYOUTS,
    virtq::LAYOUTS,
    vport::LAYOUTS,
];
