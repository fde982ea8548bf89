// SPDX-License-Identifier: GPL-2.0
//! The parts of `rust_mlx5_vdpa` that know no kernel, built on the host for their unit tests.
#![cfg(test)]
// What only the kernel calls is no dead code.
#![allow(dead_code)]

#[path = "hca/command/failure.rs"]
mod failure;
#[path = "hca/command/mailbox.rs"]
mod mailbox;
#[path = "hca/health/pulse.rs"]
mod pulse;
#[path = "hca/eq/ring.rs"]
mod ring;
#[path = "hca/interrupts/sharing.rs"]
mod sharing;
#[path = "hca/command/slots.rs"]
mod slots;
#[path = "hca/events/subject.rs"]
mod subject;
#[path = "hca/command/times.rs"]
mod times;

mod hca {
    pub(crate) mod channel {
        pub(crate) mod ring;
        pub(crate) mod wire;
    }
}

mod net {
    pub(crate) mod map {
        pub(crate) mod extent;
        pub(crate) mod plan;
    }
    pub(crate) mod offer;
    pub(crate) mod queue {
        pub(crate) mod fields;
    }
    pub(crate) mod steering {
        pub(crate) mod rules;
        pub(crate) mod spread;
    }
    pub(crate) mod wire {
        pub(crate) mod key;
        pub(crate) mod port;
        pub(crate) mod queue;
        pub(crate) mod steer;
        pub(crate) mod umem;
    }
}

#[path = "tests/channel.rs"]
mod channels;
#[path = "tests/map.rs"]
mod maps;
#[path = "tests/queue.rs"]
mod queues;
#[path = "tests/steering.rs"]
mod steering;
