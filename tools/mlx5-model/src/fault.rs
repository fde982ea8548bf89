// SPDX-License-Identifier: GPL-2.0

//! Faults on request: what is to go wrong, when, and how often.

/// What is to go wrong in one function.
#[derive(Default)]
pub struct Faults {}
