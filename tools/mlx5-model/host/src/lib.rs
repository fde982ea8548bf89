// SPDX-License-Identifier: GPL-2.0

//! The other end: a driver of a ConnectX virtual function, in the same process.
//!
//! A [`Host`] owns memory, interrupt vectors and a [`Function`](mlx5_model::function::Function),
//! and drives it as a driver in a kernel does: through BAR and memory alone. Tests and benchmarks
//! of the model stand on it, and since it encodes what the model decodes with the same `prm`, a
//! field that one end misreads is seen.

pub mod channel;
pub mod command;
pub mod eq;
pub mod host;
pub mod memory;
pub mod net;
pub mod objects;
pub mod packet;
pub mod pair;
pub mod vectors;

pub use self::{
    command::Failure,
    host::{
        mac,
        Board,
        Host, //
    },
    memory::{
        Buffer,
        Memory, //
    },
    vectors::Vectors, //
};
