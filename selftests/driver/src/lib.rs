// SPDX-License-Identifier: GPL-2.0
//! Driver-side virtqueues.
