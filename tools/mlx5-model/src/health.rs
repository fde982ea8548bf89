// SPDX-License-Identifier: GPL-2.0

//! What the firmware says of its own health, in the registers in front of BAR 0.
//!
//! A driver looks there every other second: at a counter that must have changed, at a syndrome that
//! must be 0, and at a bit that asks for a reset. What it finds wrong is not repaired by commands:
//! the firmware is reset, and a driver starts it from the beginning.

use crate::init_segment::Registers;

/// In `rfr_severity`: a reset is asked for.
const RESET_REQUESTED: u8 = 0x80;
/// In `rfr_severity`: there is a severity, of those that system logs have.
const SEVERITY_VALID: u8 = 0x08;
const CRITICAL: u8 = 2;
const ERROR: u8 = 3;

/// The firmware is not well. If that is `fatal`, it stops: the counter stands still, and a reset is
/// asked for.
pub fn fall_ill(registers: &Registers, syndrome: u8, fatal: bool) {
    let severity = if fatal {
        RESET_REQUESTED | SEVERITY_VALID | CRITICAL
    } else {
        SEVERITY_VALID | ERROR
    };
    registers.set_health(!fatal, |health| {
        health.set_synd(syndrome).set_rfr_severity(severity);
    });
}

/// The firmware is well.
pub fn recover(registers: &Registers) {
    registers.set_health(true, |health| {
        health.set_synd(0).set_rfr_severity(0);
    });
}
