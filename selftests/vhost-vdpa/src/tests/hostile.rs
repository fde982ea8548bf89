// SPDX-License-Identifier: GPL-2.0
//! Rings that no driver makes: they stop their device, and no other one.

use std::time::{Duration, Instant};

use super::{mac, Context, Tests};
use crate::ktap::{ensure, ensure_eq, Outcome, Stop};
use crate::rig::{exchange, Plan, Port, PATIENCE, RX, TX};
use crate::uapi::{self, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("hostile: available index beyond the ring", avail_jump),
    ("hostile: head that is no descriptor", bad_head),
    ("hostile: next that is no descriptor", bad_next),
    ("hostile: chain without an end", endless),
    ("hostile: address that is not mapped", bad_address),
    (
        "hostile: address around the end of everything",
        wrapping_address,
    ),
    ("hostile: lengths that overflow", overflow),
    (
        "hostile: nowhere to write in a receive buffer",
        read_only_receive,
    ),
    (
        "hostile: receive buffer in memory to be read only",
        read_only_memory,
    ),
    ("hostile: writable before readable", order),
    ("hostile: indirect table of odd length", table_length),
    ("hostile: indirect table in an indirect table", nested),
    (
        "hostile: indirect table that goes on in the ring",
        table_next,
    ),
    ("hostile: indirect table that is not mapped", table_address),
    ("hostile: packed, chain without an end", packed_endless),
    (
        "hostile: packed, indirect table of odd length",
        packed_table,
    ),
    (
        "hostile: packed, address that is not mapped",
        packed_address,
    ),
    (
        "hostile: rings at addresses that are not mapped",
        unmapped_ring,
    ),
    ("hostile: rings full of noise", noise),
    (
        "hostile: what one driver broke does not reach the next one",
        next_driver,
    ),
    (
        "hostile: a device without a control queue is stopped too",
        no_control_queue,
    ),
];

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Packed: available in the first round.
const AVAIL: u16 = 1 << 7;

/// A descriptor, split or packed: the two share size and first fields.
#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    /// Split: the flags. Packed: the buffer's id.
    third: u16,
    /// Split: the next one. Packed: the flags.
    fourth: u16,
}

fn split(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        third: flags,
        fourth: next,
    }
}

fn packed(address: u64, length: u32, flags: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        third: 0,
        fourth: flags | AVAIL,
    }
}

/// Writes a table of descriptors.
fn write(port: &Port, at: u64, table: &[Descriptor]) {
    for (at, descriptor) in (at..).step_by(16).zip(table) {
        port.region.write(at, &descriptor.address.to_le_bytes());
        port.region.write(at + 8, &descriptor.length.to_le_bytes());
        port.region.write(at + 12, &descriptor.third.to_le_bytes());
        port.region.write(at + 14, &descriptor.fourth.to_le_bytes());
    }
}

/// Memory that no queue uses for anything: the end of the last one's.
fn spare(port: &Port) -> u64 {
    port.region.end() - 65536
}

/// What a test does to a device that has just been started.
type Attack<'a> = &'a dyn Fn(&mut Port);

/// Runs the attack on one device of three: it must need a reset, the others
/// must not, and after the reset it must run again.
fn attack(context: &Context, plan: Plan, queue: usize, attack: Attack<'_>) -> Outcome {
    context.require_switch()?;
    let devices = if plan.features & uapi::F_RING_PACKED != 0 {
        context.provisioned(uapi::F_RING_PACKED, 3)?
    } else {
        vec![context.device(0)?, context.device(1)?, context.device(2)?]
    };
    // Without receive buffers: the ring is the attacker's.
    let mut victim = Port::prepare(&devices[0], plan)?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    let mut c = Port::start(&devices[2], Plan::MODERN)?;
    // Neither shall hear what is sent to the victim.
    b.filter()?;
    c.filter()?;
    attack(&mut victim);
    victim.enable()?;
    victim.vhost.add_status(uapi::DRIVER_OK)?;
    victim.queues[queue].kick.signal()?;
    if queue == RX {
        // Somebody must send before the buffer is looked at.
        let frame = crate::rig::frame(mac(0), mac(1), 200, 1);
        for _ in 0..3 {
            b.send(&frame)?;
        }
        b.drain()?;
    }
    victim.wait_status(NEEDS_RESET)?;
    ensure!(
        victim.config_call.wait(PATIENCE),
        "no configuration interrupt tells of it"
    );
    // It is dead until it is reset.
    for queue in &victim.queues {
        queue.kick.signal()?;
    }
    exchange(&mut b, &mut c, 20)?;
    exchange(&mut c, &mut b, 20)?;
    for port in [&b, &c] {
        ensure_eq!(port.vhost.status()? & NEEDS_RESET, 0);
    }
    ensure!(
        victim.vhost.status()? & NEEDS_RESET != 0,
        "came back by itself"
    );
    victim.restart(None)?;
    ensure_eq!(victim.vhost.status()? & NEEDS_RESET, 0);
    exchange(&mut victim, &mut b, 20)?;
    exchange(&mut b, &mut victim, 20)
}

/// Offers a chain of these descriptors in the split ring of `queue`.
fn offer(port: &mut Port, queue: usize, table: &[Descriptor]) {
    let layout = port.queues[queue].ring.layout();
    write(port, layout.desc, table);
    port.region.write(layout.driver + 4, &0u16.to_le_bytes());
    port.region.store_u16(layout.driver + 2, 1u16.to_le());
}

/// Offers `table` for sending, in a split ring.
fn send(context: &Context, features: u64, table: &dyn Fn(&Port) -> Vec<Descriptor>) -> Outcome {
    let plan = Plan {
        features,
        ..Plan::MODERN
    };
    attack(context, plan, TX, &|port| {
        let table = table(port);
        offer(port, TX, &table);
    })
}

fn avail_jump(context: &Context) -> Outcome {
    attack(context, Plan::MODERN, TX, &|port| {
        let layout = port.queues[TX].ring.layout();
        port.region.store_u16(layout.driver + 2, 65u16.to_le());
    })
}

fn bad_head(context: &Context) -> Outcome {
    attack(context, Plan::MODERN, TX, &|port| {
        let layout = port.queues[TX].ring.layout();
        port.region.write(layout.driver + 4, &64u16.to_le_bytes());
        port.region.store_u16(layout.driver + 2, 1u16.to_le());
    })
}

fn bad_next(context: &Context) -> Outcome {
    send(context, 0, &|port| vec![split(spare(port), 12, NEXT, 64)])
}

fn endless(context: &Context) -> Outcome {
    send(context, 0, &|port| {
        let at = spare(port);
        vec![split(at, 12, NEXT, 1), split(at, 100, NEXT, 0)]
    })
}

fn bad_address(context: &Context) -> Outcome {
    send(context, 0, &|port| {
        vec![split(port.region.end() + 4096, 100, 0, 0)]
    })
}

fn wrapping_address(context: &Context) -> Outcome {
    send(context, 0, &|_| vec![split(u64::MAX - 10, 100, 0, 0)])
}

fn overflow(context: &Context) -> Outcome {
    send(context, 0, &|port| {
        let at = spare(port);
        vec![split(at, u32::MAX, NEXT, 1), split(at, u32::MAX, 0, 0)]
    })
}

fn read_only_receive(context: &Context) -> Outcome {
    attack(context, Plan::MODERN, RX, &|port| {
        let at = spare(port);
        offer(port, RX, &[split(at, 1526, 0, 0)]);
    })
}

fn read_only_memory(context: &Context) -> Outcome {
    // The pages of the receive buffer are mapped once more, not to be written.
    let pages = crate::memory::Pages::new(4096)?;
    attack(context, Plan::MODERN, RX, &|port| {
        const IOVA: u64 = 0x4000_0000;
        if let Err(error) = port.vhost.map(0, IOVA, 4096, pages.address(), uapi::RO) {
            println!("# {error}");
        }
        offer(port, RX, &[split(IOVA, 1526, WRITE, 0)]);
    })
}

fn order(context: &Context) -> Outcome {
    send(context, 0, &|port| {
        let at = spare(port);
        vec![split(at, 100, WRITE | NEXT, 1), split(at + 200, 100, 0, 0)]
    })
}

fn table_length(context: &Context) -> Outcome {
    send(context, uapi::F_INDIRECT_DESC, &|port| {
        vec![split(spare(port), 17, INDIRECT, 0)]
    })
}

fn nested(context: &Context) -> Outcome {
    send(context, uapi::F_INDIRECT_DESC, &|port| {
        let at = spare(port);
        write(port, at, &[split(at + 64, 16, INDIRECT, 0)]);
        write(port, at + 64, &[split(at + 128, 100, 0, 0)]);
        vec![split(at, 16, INDIRECT, 0)]
    })
}

fn table_next(context: &Context) -> Outcome {
    send(context, uapi::F_INDIRECT_DESC, &|port| {
        let at = spare(port);
        write(port, at, &[split(at + 64, 100, 0, 0)]);
        vec![split(at, 16, INDIRECT | NEXT, 1), split(at + 64, 100, 0, 0)]
    })
}

fn table_address(context: &Context) -> Outcome {
    send(context, uapi::F_INDIRECT_DESC, &|port| {
        vec![split(port.region.end() + 4096, 32, INDIRECT, 0)]
    })
}

/// Offers these descriptors for sending, in a packed ring.
fn send_packed(context: &Context, more: u64, table: &dyn Fn(&Port) -> Vec<Descriptor>) -> Outcome {
    let plan = Plan {
        features: uapi::F_RING_PACKED | more,
        ..Plan::MODERN
    };
    attack(context, plan, TX, &|port| {
        let table = table(port);
        let desc = port.queues[TX].ring.layout().desc;
        write(port, desc, &table);
    })
}

fn packed_endless(context: &Context) -> Outcome {
    send_packed(context, 0, &|port| {
        let at = spare(port);
        vec![packed(at, 16, NEXT); usize::from(port.plan.size)]
    })
}

fn packed_table(context: &Context) -> Outcome {
    send_packed(context, uapi::F_INDIRECT_DESC, &|port| {
        vec![packed(spare(port), 15, INDIRECT)]
    })
}

fn packed_address(context: &Context) -> Outcome {
    send_packed(context, 0, &|port| {
        vec![packed(port.region.end() + 4096, 100, 0)]
    })
}

fn unmapped_ring(context: &Context) -> Outcome {
    attack(context, Plan::MODERN, TX, &|port| {
        let nowhere = port.region.end() + (1 << 20);
        let result = port.vhost.set_vring_addr(uapi::VringAddr {
            index: TX as u32,
            desc: nowhere,
            avail: nowhere + 0x1000,
            used: nowhere + 0x2000,
            ..uapi::VringAddr::default()
        });
        if let Err(error) = result {
            println!("# {error}");
        }
    })
}

fn noise(context: &Context) -> Outcome {
    context.require_switch()?;
    let devices = [context.device(0)?, context.device(1)?];
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    let mut state = 0x1234_5678_9abc_def1u64;
    for round in 0..50 {
        let mut port = Port::prepare(&devices[0], Plan::MODERN)?;
        let layout = port.queues[TX].ring.layout();
        let fill = |port: &Port, at: u64, length: u64, state: &mut u64| {
            for at in (at..at + length).step_by(8) {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                port.region.write(at, &state.to_le_bytes());
            }
        };
        fill(&port, layout.desc, 64 * 16, &mut state);
        fill(&port, layout.driver, 4 + 64 * 2, &mut state);
        if round % 2 == 0 {
            // An index that is believed, so that the heads are looked at.
            port.region.store_u16(layout.driver + 2, 64u16.to_le());
        }
        port.run()?;
        port.queues[TX].kick.signal()?;
        outlive(&port)?;
    }
    ensure_eq!(b.vhost.status()? & NEEDS_RESET, 0);
    let mut a = Port::start(&devices[0], Plan::MODERN)?;
    exchange(&mut a, &mut b, 20)
}

fn next_driver(context: &Context) -> Outcome {
    context.require_switch()?;
    let devices = [context.device(0)?, context.device(1)?];
    let mut port = Port::start(&devices[0], Plan::MODERN)?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    let nowhere = port.region.end() + 4096;
    for round in 0..200 {
        offer(&mut port, TX, &[split(nowhere, 100, 0, 0)]);
        port.queues[TX].kick.signal()?;
        // The reset comes before the device has seen it, while it does, after.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(20 * (round % 40)) {
            std::hint::spin_loop();
        }
        port.restart(None)?;
        std::thread::sleep(Duration::from_millis(1));
        ensure_eq!(port.vhost.status()? & NEEDS_RESET, 0);
    }
    exchange(&mut port, &mut b, 20)
}

fn no_control_queue(context: &Context) -> Outcome {
    context.require_switch()?;
    let features = uapi::NET_F_MAC | uapi::F_VERSION_1 | uapi::F_ACCESS_PLATFORM;
    let device = context.device_with(0, &["device_features", &format!("{features:#x}")])?;
    let other = context.device(1)?;
    let mut port = Port::start(&device, Plan::MODERN)?;
    let mut b = Port::start(&other, Plan::MODERN)?;
    let nowhere = port.region.end() + 4096;
    offer(&mut port, TX, &[split(nowhere, 100, 0, 0)]);
    port.queues[TX].kick.signal()?;
    port.wait_status(NEEDS_RESET)?;
    port.restart(None)?;
    exchange(&mut port, &mut b, 20)
}

/// Waits until the device has broken or has had the time to.
fn outlive(port: &Port) -> Result<(), Stop> {
    for _ in 0..20 {
        if port.vhost.status()? & NEEDS_RESET != 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
