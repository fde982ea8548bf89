// SPDX-License-Identifier: GPL-2.0

//! The relay between a monitor and a device that is not there.

mod fake;
mod messages;
mod requests;
