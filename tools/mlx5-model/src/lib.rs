// SPDX-License-Identifier: GPL-2.0

//! ConnectX virtual functions in user space, well enough made that unmodified drivers accept them.
//!
//! ```text
//!   vfio::Server ── bar_read, bar_write, reset ──> function::Function
//!                                                   │ init_segment   the registers in front
//!                                                   │ command        entries, mailboxes, dispatch
//!                                                   ▼
//!                                                  hca::Hca          objects, by commands only
//!                                                   │
//!          doorbell page ── kick ──> virtq ─────────┤ eq, cq, qp, mkey, umem, steering, vport
//!                                      │
//!                                      └── frames ──> eswitch ──> steering ──> virtq of another
//! ```
//!
//! Commands change objects under one lock for each function ([`hca::Hca`]). Traffic never takes
//! that lock: what it needs is shared through [`platform::Platform`] or held by the queue itself.

pub mod board;
pub mod buffer;
pub mod capability;
pub mod command;
pub mod config;
pub mod control;
pub mod cq;
pub mod eq;
pub mod eswitch;
pub mod fault;
pub mod frame;
pub mod function;
pub mod hca;
pub mod health;
pub mod init_segment;
pub mod life;
pub mod memory;
pub mod mkey;
pub mod object;
pub mod packet;
pub mod pages;
pub mod pd;
pub mod platform;
pub mod profile;
pub mod qp;
pub mod refusal;
pub mod register;
pub mod socket;
pub mod stats;
pub mod steering;
pub mod trace;
pub mod uar;
pub mod umem;
pub mod vfio;
pub mod virtq;
pub mod vport;
