// SPDX-License-Identifier: GPL-2.0

//! Tests of the machine: against an independent monitor, over everything it can reach
//! (`explore`), over long random lives (`random`), and as its real callers drive it (`callers`).

mod callers;
mod explore;
mod monitor;
mod random;

use super::{Config, Lifecycle};
use crate::features::Features;
use crate::net;

/// What the devices of these tests offer.
const OFFERED: Features = Features::VERSION_1
    .union(Features::ACCESS_PLATFORM)
    .union(Features::RING_PACKED)
    .union(Features::ANY_LAYOUT)
    .union(net::features::MAC)
    .union(net::features::CTRL_VQ)
    .union(net::features::MQ);

/// A legacy driver's features, as QEMU sends them for any guest: with ACCESS_PLATFORM.
const LEGACY: Features = net::features::MAC.union(Features::ACCESS_PLATFORM);

/// A modern driver's features.
const MODERN: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM);

fn device(queues: u16) -> Lifecycle {
    Lifecycle::new(Config {
        queues,
        offered: OFFERED,
        required: Features::NONE,
        legacy: true,
        big_endian: true,
        check: net::features::check,
    })
}
