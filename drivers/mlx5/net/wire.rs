// SPDX-License-Identifier: GPL-2.0

//! Inputs of commands, as pure functions of what they shall say.
//!
//! They know no kernel, so that on the host they are executed on the model of the hardware.

pub(crate) mod key;
pub(crate) mod port;
pub(crate) mod queue;
pub(crate) mod steer;
pub(crate) mod umem;
