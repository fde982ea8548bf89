// SPDX-License-Identifier: GPL-2.0
//! Commands of the control queue, good and malformed.

use std::time::Instant;

use driver::{Buffer, Region, Shape};

use super::{mac, Context, Tests};
use crate::device::Device;
use crate::ktap::{ensure, ensure_eq, require, Outcome, Stop};
use crate::rig::{exchange, frame, Plan, Port, CTRL, PATIENCE};
use crate::uapi::{self, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("control: receive modes", receive_modes),
    ("control: address", address),
    ("control: address table", address_table),
    ("control: VLAN filter", vlan),
    ("control: queue pairs", queue_pairs),
    ("control: commands that are none", unknown),
    ("control: malformed commands", malformed),
    ("control: many commands in a row", many),
    (
        "control: memory that is mapped while commands are served",
        fresh_memory,
    ),
];

const OK: u8 = 0;
const ERR: u8 = 1;

const CLASS_RX: u8 = 0;
const RX_PROMISC: u8 = 0;
const RX_ALLMULTI: u8 = 1;
const RX_NOBCAST: u8 = 5;
const CLASS_MAC: u8 = 1;
const MAC_TABLE_SET: u8 = 0;
const MAC_ADDR_SET: u8 = 1;
const CLASS_VLAN: u8 = 2;
const VLAN_ADD: u8 = 0;
const VLAN_DEL: u8 = 1;
const CLASS_MQ: u8 = 4;
const MQ_PAIRS_SET: u8 = 0;

/// The plan of a driver that knows the control queue.
fn plan(legacy: bool, features: u64) -> Plan {
    Plan {
        features,
        ..if legacy { Plan::LEGACY } else { Plan::MODERN }
    }
}

/// Two devices, and drivers on them: one with these features, one plain.
fn pair(context: &Context, legacy: bool, features: u64) -> Result<([Device; 2], Port, Port), Stop> {
    context.require_switch()?;
    let devices = [context.device(0)?, context.device(1)?];
    let a = Port::start(&devices[0], plan(legacy, features))?;
    let b = Port::start(&devices[1], Plan::MODERN)?;
    require!(a.queues.len() > 2, "the device has no control queue");
    Ok((devices, a, b))
}

/// Sends to `to` and checks whether that arrives.
fn arrives(from: &mut Port, at: &mut Port, to: [u8; 6], wanted: bool) -> Outcome {
    let frame = frame(to, mac(1), 100, u32::from(to[5]));
    from.send(&frame)?;
    if wanted {
        at.expect(&frame)?;
    } else {
        at.expect_nothing()?;
    }
    from.drain()
}

const STRANGER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
const MULTICAST: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 0x55];
const BROADCAST: [u8; 6] = [0xff; 6];

fn receive_modes(context: &Context) -> Outcome {
    for legacy in [false, true] {
        let (_devices, mut a, mut b) = pair(context, legacy, uapi::NET_F_CTRL_RX)?;
        arrives(&mut b, &mut a, BROADCAST, true)?;
        for (on, wanted) in [([1u8], true), ([0], false)] {
            ensure_eq!(a.control(CLASS_RX, RX_PROMISC, &[&on])?, OK);
            arrives(&mut b, &mut a, STRANGER, wanted)?;
        }
        for (on, wanted) in [([1u8], true), ([0], false)] {
            ensure_eq!(a.control(CLASS_RX, RX_ALLMULTI, &[&on])?, OK);
            arrives(&mut b, &mut a, MULTICAST, wanted)?;
        }
        // Not negotiated (CTRL_RX_EXTRA), so not served.
        ensure_eq!(a.control(CLASS_RX, RX_NOBCAST, &[&[1]])?, ERR);
        arrives(&mut b, &mut a, BROADCAST, true)?;
    }
    Ok(())
}

fn address(context: &Context) -> Outcome {
    for legacy in [false, true] {
        let (devices, mut a, mut b) = pair(context, legacy, uapi::NET_F_CTRL_MAC_ADDR)?;
        a.filter()?;
        let new = [0x02, 0x44, 0x44, 0x44, 0x44, 0x44];
        ensure_eq!(a.control(CLASS_MAC, MAC_ADDR_SET, &[&new])?, OK);
        ensure_eq!(a.vhost.config(0, 6)?, new.to_vec());
        arrives(&mut b, &mut a, new, true)?;
        arrives(&mut b, &mut a, mac(0), false)?;
        // Too short; and the address stays.
        ensure_eq!(a.control(CLASS_MAC, MAC_ADDR_SET, &[&new[..5]])?, ERR);
        ensure_eq!(a.vhost.config(0, 6)?, new.to_vec());
        drop(a);
        let vhost = devices[0].open()?;
        ensure_eq!(vhost.config(0, 6)?, mac(0).to_vec());
    }
    Ok(())
}

/// Entries of an address table as they are sent.
fn table(entries: u32, addresses: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = entries.to_le_bytes().to_vec();
    for address in addresses {
        bytes.extend_from_slice(address);
    }
    bytes
}

fn address_table(context: &Context) -> Outcome {
    for legacy in [false, true] {
        let features = uapi::NET_F_CTRL_MAC_ADDR | uapi::NET_F_CTRL_RX;
        let (_devices, mut a, mut b) = pair(context, legacy, features)?;
        a.filter()?;
        let unicast = table(1, &[STRANGER]);
        let multicast = table(1, &[MULTICAST]);
        let none = table(0, &[]);
        ensure_eq!(
            a.control(CLASS_MAC, MAC_TABLE_SET, &[&unicast, &multicast])?,
            OK
        );
        arrives(&mut b, &mut a, STRANGER, true)?;
        arrives(&mut b, &mut a, MULTICAST, true)?;
        arrives(&mut b, &mut a, mac(0), true)?;
        ensure_eq!(a.control(CLASS_MAC, MAC_TABLE_SET, &[&none, &none])?, OK);
        arrives(&mut b, &mut a, STRANGER, false)?;
        arrives(&mut b, &mut a, MULTICAST, false)?;
        // More entries than are there, and far more than there can be.
        for entries in [2, 1000, u32::MAX] {
            let lie = table(entries, &[STRANGER]);
            ensure_eq!(a.control(CLASS_MAC, MAC_TABLE_SET, &[&lie, &none])?, ERR);
        }
        ensure_eq!(a.control(CLASS_MAC, MAC_TABLE_SET, &[&unicast])?, ERR);
        arrives(&mut b, &mut a, STRANGER, false)?;
    }
    Ok(())
}

fn vlan(context: &Context) -> Outcome {
    let features = uapi::NET_F_CTRL_VLAN | uapi::NET_F_CTRL_RX;
    let (_devices, mut a, mut b) = pair(context, false, features)?;
    let good = 100u16.to_le_bytes();
    ensure_eq!(a.control(CLASS_VLAN, VLAN_ADD, &[&good])?, OK);
    ensure_eq!(a.control(CLASS_VLAN, VLAN_DEL, &[&good])?, OK);
    ensure_eq!(
        a.control(CLASS_VLAN, VLAN_ADD, &[&4096u16.to_le_bytes()])?,
        ERR
    );
    ensure_eq!(a.control(CLASS_VLAN, VLAN_ADD, &[&[1]])?, ERR);
    exchange(&mut a, &mut b, 5)?;
    exchange(&mut b, &mut a, 5)
}

fn queue_pairs(context: &Context) -> Outcome {
    context.require_switch()?;
    let device = context.device(0)?;
    let mut port = Port::start(&device, Plan::MODERN)?;
    require!(port.queues.len() > 2, "the device has no control queue");
    // MQ was not negotiated.
    for pairs in [0u16, 1, 2, 65535] {
        let answer = port.control(CLASS_MQ, MQ_PAIRS_SET, &[&pairs.to_le_bytes()])?;
        ensure_eq!(answer, ERR);
    }
    Ok(())
}

fn unknown(context: &Context) -> Outcome {
    context.require_switch()?;
    let device = context.device(0)?;
    let mut port = Port::start(&device, Plan::MODERN)?;
    for (class, command) in [(9, 0), (255, 255), (CLASS_MAC, 9), (CLASS_RX, 99)] {
        ensure_eq!(port.control(class, command, &[&[0; 6]])?, ERR);
    }
    ensure_eq!(port.vhost.status()? & NEEDS_RESET, 0);
    Ok(())
}

fn malformed(context: &Context) -> Outcome {
    let features = uapi::NET_F_CTRL_MAC_ADDR | uapi::NET_F_CTRL_RX;
    let (_devices, mut a, mut b) = pair(context, false, features)?;
    // No data, half a header, far too much data.
    ensure_eq!(a.control(CLASS_RX, RX_PROMISC, &[])?, ERR);
    ensure_eq!(a.control_raw(&[&[CLASS_RX]], 1)?, Some(ERR));
    ensure_eq!(a.control(CLASS_MAC, 77, &[&[0x55; 1500]])?, ERR);
    // Nowhere to answer: the command is used, or the device gives up.
    let answered = a
        .control_raw(&[&[CLASS_RX, RX_PROMISC], &[1]], 0)?
        .is_some();
    let broken = a.vhost.status()? & NEEDS_RESET != 0;
    require!(answered || broken, "a command without an answer is lost");
    if broken {
        a.restart(None)?;
    }
    // Cut at any place, a command means the same.
    let data = [0x02, 0x55, 0x55, 0x55, 0x55, 0x55];
    let answer = a.control_raw(&[&[CLASS_MAC], &[MAC_ADDR_SET], &data[..1], &data[1..]], 1)?;
    ensure_eq!(answer, Some(OK));
    let answer = a.control_raw(
        &[&[CLASS_MAC, MAC_ADDR_SET, 2, 0x66, 0x66, 0x66, 0x66, 0x66]],
        1,
    )?;
    ensure_eq!(answer, Some(OK));
    ensure_eq!(a.vhost.config(0, 6)?, vec![2, 0x66, 0x66, 0x66, 0x66, 0x66]);
    exchange(&mut a, &mut b, 5)
}

fn many(context: &Context) -> Outcome {
    let (_devices, mut a, mut b) = pair(context, false, uapi::NET_F_CTRL_MAC_ADDR)?;
    for number in 0..300u32 {
        let mut new = mac(0);
        new[4] = number as u8;
        ensure_eq!(a.control(CLASS_MAC, MAC_ADDR_SET, &[&new])?, OK);
        ensure_eq!(a.vhost.config(0, 6)?, new.to_vec());
    }
    exchange(&mut a, &mut b, 5)
}

fn fresh_memory(context: &Context) -> Outcome {
    context.require_switch()?;
    let device = context.device(0)?;
    let mut port = Port::start(
        &device,
        Plan {
            size: 128,
            ..plan(false, uapi::NET_F_CTRL_MAC_ADDR | uapi::F_INDIRECT_DESC)
        },
    )?;
    require!(port.queues.len() > CTRL, "the device has no control queue");
    const PAGE: u64 = 4096;
    const ROUNDS: u64 = 30;
    const COMMANDS: u64 = 60;
    // A command that takes its time, being in pieces, and room for answers
    // after it.
    let mut command = vec![CLASS_MAC, MAC_TABLE_SET];
    command.extend(table(200, &[STRANGER; 200]));
    command.extend(table(0, &[]));
    let more = Region::new(port.region.end() + PAGE, ((ROUNDS + 1) * PAGE) as usize);
    let post = |port: &mut Port, page: u64, answer: u64| -> Outcome {
        let at = more.base() + page * PAGE;
        let piece = command.len().div_ceil(7);
        let starts = (0..command.len()).step_by(piece);
        let out: Vec<_> = starts
            .map(|start| Buffer {
                addr: at + start as u64,
                len: piece.min(command.len() - start) as u32,
            })
            .collect();
        let into = [Buffer {
            addr: at + 2048 + answer,
            len: 1,
        }];
        let ring = &mut port.queues[CTRL].ring;
        Ok(ring.add(&out, &into, Shape::Indirect, answer)?)
    };
    for page in 0..=ROUNDS {
        more.write(more.base() + page * PAGE, &command);
        more.write(more.base() + page * PAGE + 2048, &[0xaa]);
        let map = |port: &Port| {
            let at = page * PAGE;
            let memory = more.as_ptr() as u64 + at;
            port.vhost.map(0, more.base() + at, PAGE, memory, uapi::RW)
        };
        if page == 0 {
            map(&port)?;
            continue;
        }
        for answer in 0..COMMANDS {
            post(&mut port, 0, answer)?;
        }
        port.queues[CTRL].publish()?;
        let start = Instant::now();
        while port.queues[CTRL].ring.used()?.is_none() {
            ensure!(start.elapsed() < PATIENCE, "no command is served");
        }
        // The device is at the others, and knows the memory of before.
        map(&port)?;
        post(&mut port, page, 0)?;
        port.queues[CTRL].publish()?;
        for _ in 0..COMMANDS {
            ensure!(
                port.queues[CTRL].used(PATIENCE)?.is_some(),
                "a command is not answered, status {:#x}",
                port.vhost.status()?
            );
        }
        ensure_eq!(more.get(more.base() + page * PAGE + 2048, 1), vec![OK]);
    }
    ensure_eq!(port.vhost.status()? & NEEDS_RESET, 0);
    Ok(())
}
