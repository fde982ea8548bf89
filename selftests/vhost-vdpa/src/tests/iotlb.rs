// SPDX-License-Identifier: GPL-2.0
//! Messages about the IOTLB.

use super::{Context, Tests};
use crate::ktap::{ensure, ensure_eq, ensure_errno, require, Outcome};
use crate::memory::{Pages, PAGE};
use crate::rig::{exchange, Plan, Port};
use crate::uapi::{self, Message, RO, RW, WO};

pub(super) const TESTS: Tests = &[
    ("IOTLB: update and invalidate", update),
    ("IOTLB: messages of the first version", first_version),
    ("IOTLB: bad ranges", bad_ranges),
    ("IOTLB: bad memory", bad_memory),
    ("IOTLB: bad messages", bad_messages),
    ("IOTLB: batches", batches),
    ("IOTLB: address spaces", spaces),
    ("IOTLB: as many maps as there may be", many),
    (
        "IOTLB: maps come and go while the device runs",
        while_running,
    ),
    ("IOTLB: maps over a reset", over_reset),
    (
        "IOTLB: queues in an address space of their own",
        other_space,
    ),
    ("IOTLB: memory mapped page by page", page_by_page),
];

/// An address well inside every range.
const IOVA: u64 = 0x4000_0000;

fn update(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let pages = Pages::new(16 * PAGE)?;
    let (length, uaddr) = (pages.length() as u64, pages.address());
    for perm in [RW, RO, WO] {
        vhost.map(0, IOVA, length, uaddr, perm)?;
        // It is there already, as a whole and in part.
        ensure_errno!(vhost.map(0, IOVA, length, uaddr, perm), EFAULT);
        ensure_errno!(
            vhost.map(0, IOVA + length - PAGE as u64, length, uaddr, perm),
            EFAULT
        );
        vhost.iotlb(0, uapi::INVALIDATE, IOVA, length)?;
        // Nothing is there any more, which is no error.
        vhost.iotlb(0, uapi::INVALIDATE, IOVA, length)?;
    }
    // The same memory at two addresses, taken back at once.
    vhost.map(0, IOVA, length, uaddr, RW)?;
    vhost.map(0, IOVA + length, length, uaddr, RO)?;
    vhost.iotlb(0, uapi::INVALIDATE, 0, u64::MAX)?;
    vhost.map(0, IOVA, length, uaddr, RW)?;
    // The rest is taken back by closing.
    Ok(())
}

fn first_version(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let pages = Pages::new(PAGE)?;
    let mut message = Message {
        version: uapi::MSG_V1,
        asid: 0,
        iova: IOVA,
        size: PAGE as u64,
        uaddr: pages.address(),
        perm: RW,
        kind: uapi::UPDATE,
        padding: [0; 38],
    };
    vhost.message(&message)?;
    ensure_errno!(vhost.message(&message), EFAULT);
    message.kind = uapi::INVALIDATE;
    vhost.message(&message)?;
    Ok(())
}

fn bad_ranges(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let pages = Pages::new(4 * PAGE)?;
    let range = vhost.iova_range()?;
    let page = PAGE as u64;
    ensure_errno!(vhost.map(0, IOVA, 0, pages.address(), RW), EINVAL);
    // Around the end of everything.
    ensure_errno!(
        vhost.map(0, u64::MAX - page + 1, 2 * page, pages.address(), RW),
        EFAULT
    );
    ensure_errno!(vhost.map(0, page, u64::MAX, pages.address(), RW), EFAULT);
    if range.last != u64::MAX {
        ensure_errno!(vhost.map(0, range.last, page, pages.address(), RW), EFAULT);
        ensure_errno!(
            vhost.map(0, range.last + 1, page, pages.address(), RW),
            EFAULT
        );
    }
    if range.first >= page {
        ensure_errno!(
            vhost.map(0, range.first - page, page, pages.address(), RW),
            EFAULT
        );
    }
    Ok(())
}

fn bad_memory(context: &Context) -> Outcome {
    require!(
        !context.simulated(),
        "the simulator is given addresses of the process, which are not looked at"
    );
    let (_device, vhost) = context.open_owned()?;
    let page = PAGE as u64;
    // Nothing is mapped there.
    ensure_errno!(vhost.map(0, IOVA, page, page, RW), EFAULT);
    ensure_errno!(vhost.map(0, IOVA, page, u64::MAX - page + 1, RW), EFAULT);
    // The second half of it is missing.
    let pages = Pages::new(8 * PAGE)?;
    let hole = pages.address() + 4 * page;
    // SAFETY: The pages are the test's own and not used.
    unsafe { libc::munmap(hole as *mut libc::c_void, 4 * PAGE) };
    ensure_errno!(vhost.map(0, IOVA, 8 * page, pages.address(), RW), EFAULT);
    vhost.map(0, IOVA, 4 * page, pages.address(), RW)?;
    vhost.iotlb(0, uapi::INVALIDATE, IOVA, 4 * page)?;
    // What this process must not write, the device must not either.
    let pages = Pages::read_only(PAGE)?;
    ensure_errno!(vhost.map(0, IOVA, page, pages.address(), RW), EFAULT);
    ensure_errno!(vhost.map(0, IOVA, page, pages.address(), WO), EFAULT);
    Ok(())
}

fn bad_messages(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    for length in [1, 3, 4, 8, 16, 33] {
        let mut bytes = vec![0; length];
        bytes[0] = uapi::MSG_V2 as u8;
        ensure_errno!(vhost.write(&bytes), EINVAL);
    }
    for version in [0, 3, u32::MAX] {
        let mut bytes = vec![0; 72];
        bytes[..4].copy_from_slice(&version.to_ne_bytes());
        ensure_errno!(vhost.write(&bytes), EINVAL);
    }
    for kind in [0, 1, 4, 7, 255] {
        ensure_errno!(vhost.iotlb(0, kind, IOVA, PAGE as u64), EFAULT);
    }
    Ok(())
}

fn batches(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let spaces = vhost.half(uapi::GET_AS_NUM, 0)?;
    let pages = Pages::new(4 * PAGE)?;
    let page = PAGE as u64;
    vhost.iotlb(0, uapi::BATCH_BEGIN, 0, 0)?;
    for number in 0..4 {
        let uaddr = pages.address() + number * page;
        vhost.map(0, IOVA + number * page, page, uaddr, RW)?;
    }
    // A batch is of one address space.
    if spaces > 1 {
        ensure_errno!(vhost.map(1, IOVA, page, pages.address(), RW), EFAULT);
        ensure_errno!(vhost.iotlb(1, uapi::BATCH_END, 0, 0), EFAULT);
    }
    vhost.iotlb(0, uapi::BATCH_END, 0, 0)?;
    vhost.iotlb(0, uapi::BATCH_BEGIN, 0, 0)?;
    vhost.iotlb(0, uapi::INVALIDATE, IOVA, 4 * page)?;
    vhost.iotlb(0, uapi::BATCH_END, 0, 0)?;
    vhost.iotlb(0, uapi::BATCH_END, 0, 0)?;
    // One that never ends goes with the file.
    vhost.iotlb(0, uapi::BATCH_BEGIN, 0, 0)?;
    vhost.map(0, IOVA, page, pages.address(), RW)?;
    Ok(())
}

fn spaces(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let spaces = vhost.half(uapi::GET_AS_NUM, 0)?;
    let pages = Pages::new(PAGE)?;
    let page = PAGE as u64;
    for space in 0..spaces {
        vhost.map(space, IOVA, page, pages.address(), RW)?;
    }
    for space in [spaces, u32::MAX] {
        ensure_errno!(vhost.map(space, IOVA, page, pages.address(), RW), EFAULT);
        ensure_errno!(vhost.iotlb(space, uapi::INVALIDATE, IOVA, page), EFAULT);
        ensure_errno!(vhost.iotlb(space, uapi::BATCH_BEGIN, 0, 0), EFAULT);
    }
    // They are apart from each other.
    if spaces > 1 {
        vhost.iotlb(1, uapi::INVALIDATE, IOVA, page)?;
        ensure_errno!(vhost.map(0, IOVA, page, pages.address(), RW), EFAULT);
        vhost.map(1, IOVA, page, pages.address(), RW)?;
    }
    Ok(())
}

fn many(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let pages = Pages::new(PAGE)?;
    let page = PAGE as u64;
    let limit = std::fs::read_to_string("/sys/module/vhost_vdpa/parameters/max_iotlb_entries")?;
    let limit: u64 = limit.trim().parse()?;
    // Apart, so that none can be joined.
    let mut maps = 0;
    for number in 0..4096 {
        if let Err(error) = vhost.map(0, IOVA + 2 * number * page, page, pages.address(), RW) {
            ensure_eq!(error.raw_os_error(), Some(libc::EFAULT));
            break;
        }
        maps += 1;
    }
    ensure_eq!(maps, limit.min(4096));
    vhost.iotlb(0, uapi::INVALIDATE, IOVA, 8192 * page)?;
    vhost.map(0, IOVA, page, pages.address(), RW)?;
    Ok(())
}

fn while_running(context: &Context) -> Outcome {
    let device = context.device(0)?;
    let port = Port::start(&device, Plan::MODERN)?;
    let pages = Pages::new(16 * PAGE)?;
    for _ in 0..50 {
        port.vhost
            .map(0, IOVA, pages.length() as u64, pages.address(), RW)?;
        port.vhost
            .iotlb(0, uapi::INVALIDATE, IOVA, pages.length() as u64)?;
    }
    ensure_eq!(port.vhost.status()? & uapi::NEEDS_RESET, 0);
    Ok(())
}

fn over_reset(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let offered = vhost.backend_features()?;
    let pages = Pages::new(PAGE)?;
    let page = PAGE as u64;
    vhost.map(0, IOVA, page, pages.address(), RW)?;
    vhost.reset()?;
    // vhost-vdpa itself never forgets a map: only INVALIDATE takes it back.
    ensure_errno!(vhost.map(0, IOVA, page, pages.address(), RW), EFAULT);
    vhost.iotlb(0, uapi::INVALIDATE, IOVA, page)?;
    if offered & uapi::F_PERSIST != 0 {
        vhost.set_backend_features(uapi::F_MSG_V2 | uapi::F_ASID | uapi::F_PERSIST)?;
        vhost.map(0, IOVA, page, pages.address(), RW)?;
        vhost.reset()?;
        vhost.iotlb(0, uapi::INVALIDATE, IOVA, page)?;
        ensure!(vhost.status()? == 0, "status after reset");
    }
    Ok(())
}

fn other_space(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    let mut a = Port::prepare(&a, Plan::MODERN)?;
    require!(
        a.vhost.half(uapi::GET_AS_NUM, 0)? > 1,
        "the device has one address space"
    );
    let (base, length) = (a.region.base(), a.region.len() as u64);
    a.vhost.iotlb(0, uapi::INVALIDATE, base, length)?;
    a.vhost.map(1, base, length, a.region.as_ptr() as u64, RW)?;
    for group in 0..a.vhost.half(uapi::GET_GROUP_NUM, 0)? {
        a.vhost.vring(uapi::SET_GROUP_ASID, group, 1)?;
    }
    a.run()?;
    exchange(&mut a, &mut b, 20)?;
    exchange(&mut b, &mut a, 20)?;
    // What goes on in the other one is nothing to it.
    for _ in 0..20 {
        a.vhost.map(0, base, length, a.region.as_ptr() as u64, RW)?;
        a.vhost.iotlb(0, uapi::INVALIDATE, 0, u64::MAX)?;
    }
    exchange(&mut a, &mut b, 20)?;
    ensure_eq!(a.vhost.status()? & uapi::NEEDS_RESET, 0);
    // A reset brings every group back into the first.
    a.vhost.iotlb(1, uapi::INVALIDATE, base, length)?;
    a.restart(None)?;
    exchange(&mut a, &mut b, 20)
}

fn page_by_page(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    let mut a = Port::prepare(&a, Plan::MODERN)?;
    let (base, length) = (a.region.base(), a.region.len() as u64);
    let (page, uaddr) = (PAGE as u64, a.region.as_ptr() as u64);
    let pages = length / page;
    a.vhost.iotlb(0, uapi::INVALIDATE, base, length)?;
    // Every page once, since 7 and their number have no common factor.
    ensure!(pages % 7 != 0, "{pages} pages");
    for number in 0..pages {
        let at = number * 7 % pages * page;
        a.vhost.map(0, base + at, page, uaddr + at, RW)?;
    }
    a.run()?;
    // Buffers lie across pages, and frames across buffers.
    exchange(&mut a, &mut b, 200)?;
    exchange(&mut b, &mut a, 200)?;
    // A hole in the middle, then all of it.
    a.vhost.plain(uapi::SUSPEND)?;
    a.vhost
        .iotlb(0, uapi::INVALIDATE, base + 5 * page, 3 * page)?;
    a.vhost
        .map(0, base + 5 * page, 3 * page, uaddr + 5 * page, RW)?;
    a.vhost.plain(uapi::RESUME)?;
    exchange(&mut a, &mut b, 20)
}
