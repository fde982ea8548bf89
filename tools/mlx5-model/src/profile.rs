// SPDX-License-Identifier: GPL-2.0

//! Profiles: what the firmware of a function can do.

/// What the firmware of a function can do, and what it is called.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The name of the profile.
    pub name: String,
    /// The version of the firmware: major, minor, sub-minor.
    pub firmware: [u16; 3],
}
