// SPDX-License-Identifier: GPL-2.0

//! The trace: what happened, as lines of JSON.

/// Where commands and events of one function are written down.
#[derive(Default)]
pub struct Trace {}
