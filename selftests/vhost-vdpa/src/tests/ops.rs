// SPDX-License-Identifier: GPL-2.0
//! What arrives at a parent of the calls of vhost-vdpa: with the test parent,
//! which has the operations that a device in software does without.

use std::io;
use std::time::Duration;

use super::{Context, Tests};
use crate::device::{Event, Vhost};
use crate::ktap::{ensure, ensure_eq, ensure_errno, Outcome, Stop};
use crate::memory::{Pages, PAGE};
use crate::notes::wire::{command, Op, QUEUES, SPACES};
use crate::notes::{record, Noted, Record, BARE, NAME, WHOLE};
use crate::rig::{frame, Plan, Port, TX};
use crate::uapi::{self, VringAddr, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, RO, RW, WO};

pub(super) const TESTS: Tests = &[
    ("operations: virtqueues", queues),
    ("operations: packed virtqueues", packed),
    ("operations: status, suspend and reset", status),
    ("operations: configuration", config),
    ("operations: numbers, groups and ranges", shape),
    ("operations: set_map gets the whole address space", set_map),
    ("operations: maps of user addresses", user_addresses),
    ("operations: a doorbell page is mapped", doorbell),
    ("operations: interrupts for KVM to pass on", interrupts),
    ("operations: errors come out", errors),
    ("operations: those that are not implemented", absent),
    ("operations: one eventfd is call and kick", one_eventfd),
    (
        "operations: one eventfd is call and kick of a running device",
        one_eventfd_running,
    ),
];

/// `ENOTSUPP`, which has no name in user space.
const ENOTSUPP: i32 = 524;

/// An address within every range.
const IOVA: u64 = 0x10_0000;

fn queues(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let (vhost, event) = (&noted.vhost, Event::new()?);
    vhost.vring(uapi::SET_VRING_NUM, 1, 64)?;
    vhost.vring(uapi::SET_VRING_BASE, 1, 7)?;
    vhost.set_vring_addr(VringAddr {
        index: 1,
        desc: 0x1_0000,
        avail: 0x2_0000,
        used: 0x3_0000,
        ..VringAddr::default()
    })?;
    vhost.vring_file(uapi::SET_VRING_CALL, 1, event.fd())?;
    vhost.vring_file(uapi::SET_VRING_CALL, 1, -1)?;
    vhost.vring(uapi::SET_VRING_ENABLE, 1, 1)?;
    vhost.vring_file(uapi::SET_VRING_KICK, 2, event.fd())?;
    event.signal()?;
    vhost.vring(uapi::SET_VRING_ENABLE, 1, 0)?;
    ensure_eq!(
        noted.take()?,
        [
            record(Op::SetVqNum, 1, &[64]),
            record(Op::SetVqState, 1, &[7, 0]),
            record(Op::SetVqAddress, 1, &[0x1_0000, 0x2_0000, 0x3_0000]),
            record(Op::SetVqCb, 1, &[1]),
            record(Op::SetVqCb, 1, &[0]),
            record(Op::SetVqReady, 1, &[1]),
            record(Op::KickVq, 2, &[]),
            record(Op::SetVqReady, 1, &[0]),
        ]
    );
    ensure_eq!(vhost.vring(uapi::GET_VRING_BASE, 1, 0)?, 7);
    // What the core refuses does not arrive.
    ensure_errno!(vhost.vring(uapi::SET_VRING_NUM, 1, 512), EINVAL);
    ensure_errno!(vhost.vring(uapi::SET_VRING_NUM, 1, 48), EINVAL);
    let index = u32::from(QUEUES);
    ensure_errno!(vhost.vring(uapi::SET_VRING_ENABLE, index, 1), ENOBUFS);
    ensure_eq!(noted.take()?, []);
    Ok(())
}

fn packed(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let vhost = &noted.vhost;
    let features = uapi::F_VERSION_1 | uapi::F_ACCESS_PLATFORM | uapi::F_RING_PACKED;
    vhost.set_features(features)?;
    vhost.vring(uapi::SET_VRING_BASE, 0, 0x0003_8005)?;
    ensure_eq!(
        noted.take()?,
        [
            record(Op::SetDriverFeatures, 0, &[features]),
            record(Op::SetVqState, 0, &[0x8005, 0x0003]),
        ]
    );
    ensure_eq!(vhost.vring(uapi::GET_VRING_BASE, 0, 0)?, 0x0003_8005);
    Ok(())
}

fn status(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let vhost = &noted.vhost;
    let status = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
    // Nothing is there to be suspended.
    vhost.plain(uapi::SUSPEND)?;
    vhost.plain(uapi::RESUME)?;
    for bit in status {
        vhost.add_status(bit)?;
    }
    ensure_errno!(vhost.vring(uapi::SET_VRING_BASE, 0, 1), EINVAL);
    vhost.plain(uapi::SUSPEND)?;
    vhost.vring(uapi::SET_VRING_BASE, 0, 1)?;
    vhost.plain(uapi::RESUME)?;
    vhost.reset()?;
    ensure_eq!(vhost.status()?, 0);
    vhost.set_backend_features(uapi::F_MSG_V2 | uapi::F_ASID | uapi::F_PERSIST)?;
    vhost.reset()?;
    let mut expected = vec![
        record(Op::SetStatus, 0, &[1]),
        record(Op::SetStatus, 0, &[3]),
        record(Op::SetStatus, 0, &[11]),
        record(Op::SetStatus, 0, &[15]),
    ];
    // Those of DRIVER_OK.
    expected.extend((0..u32::from(QUEUES)).map(|index| record(Op::GetVqIrq, index, &[])));
    expected.extend([
        record(Op::Suspend, 0, &[]),
        record(Op::SetVqState, 0, &[1, 0]),
        record(Op::Resume, 0, &[]),
        // A user that does not know that maps stay.
        record(Op::CompatReset, 0, &[1]),
        record(Op::Reset, 0, &[]),
    ]);
    ensure_eq!(noted.take()?, expected);
    Ok(())
}

fn config(context: &Context) -> Outcome {
    let noted = Noted::new(context, WHOLE)?;
    let vhost = &noted.vhost;
    vhost.set_config(20, &[0x5a, 2, 3])?;
    // Before it first shows the configuration, the core sets features.
    let features = record(Op::SetDriverFeatures, 0, &[0]);
    let written = record(Op::SetConfig, 0, &[20, 3, 0x5a]);
    ensure_eq!(noted.records()?, [written, features]);
    ensure_eq!(noted.records()?, [written, features]);
    let size = vhost.config_size()?;
    ensure_errno!(vhost.set_config(size - 1, &[0; 2]), EINVAL);
    ensure_errno!(vhost.config_call(size, 1), EINVAL);
    ensure_eq!(noted.records()?.len(), 2);
    Ok(())
}

fn shape(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let vhost = &noted.vhost;
    let queues = u32::from(QUEUES);
    ensure_eq!(vhost.queues()?, queues);
    ensure_eq!(vhost.half(uapi::GET_GROUP_NUM, 0)?, queues);
    ensure_eq!(vhost.half(uapi::GET_AS_NUM, 0)?, SPACES);
    ensure_eq!(vhost.queue_max()?, 256);
    for index in 0..queues {
        ensure_eq!(vhost.vring(uapi::GET_VRING_GROUP, index, 0)?, index);
        let descriptors = vhost.vring(uapi::GET_VRING_DESC_GROUP, index, 0)?;
        ensure_eq!(descriptors, (index + 1) % queues);
        ensure_eq!(vhost.vring(uapi::GET_VRING_SIZE, index, 0)?, 32 << index);
    }
    let backend = uapi::F_SUSPEND | uapi::F_RESUME | uapi::F_DESC_ASID | uapi::F_PERSIST | (1 << 6);
    ensure_eq!(vhost.backend_features()? & backend, backend);
    let range = vhost.iova_range()?;
    ensure_eq!((range.first, range.last), (0x1000, 0xffff_ffff));
    vhost.vring(uapi::SET_GROUP_ASID, 2, 1)?;
    ensure_errno!(vhost.vring(uapi::SET_GROUP_ASID, queues, 0), ENOBUFS);
    ensure_errno!(vhost.vring(uapi::SET_GROUP_ASID, 0, SPACES), EINVAL);
    // Outside of the range, nothing is mapped.
    let pages = Pages::new(PAGE)?;
    let page = PAGE as u64;
    for iova in [0, 0x1_0000_0000] {
        ensure_errno!(vhost.map(0, iova, page, pages.address(), RW), EFAULT);
    }
    ensure_eq!(noted.take()?, [record(Op::SetGroupAsid, 2, &[1])]);
    let output = std::process::Command::new("vdpa")
        .args(["-j", "dev", "show", NAME])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains("\"max_vq_size\":256"),
        "vdpa dev show: {text}"
    );
    Ok(())
}

/// How often `set_map` came, the address space it was last for, and what of
/// that was mapped: begin, end and permissions, neighbours joined.
type Mapped = (usize, u32, Vec<(u64, u64, u8)>);

fn mapped(records: &[Record]) -> Result<Mapped, Stop> {
    let mut result: Mapped = (0, 0, Vec::new());
    for &(op, about, [iova, size, _]) in records {
        if op == Op::SetMap as u32 {
            result = (result.0 + 1, about, Vec::new());
            continue;
        }
        ensure_eq!(op, Op::Extent as u32);
        // Extents come in order, and one for each piece of physical memory.
        match result.2.last_mut() {
            Some((_, end, permissions)) if *end == iova && u32::from(*permissions) == about => {
                *end += size;
            }
            _ => result.2.push((iova, iova + size, about as u8)),
        }
    }
    Ok(result)
}

fn set_map(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let vhost = &noted.vhost;
    let pages = Pages::new(8 * PAGE)?;
    let (page, at) = (PAGE as u64, pages.address());
    let (a, b, c) = (IOVA, IOVA + 16 * page, IOVA + 32 * page);
    let (of_a, of_b, of_c) = (
        (a, a + 4 * page, RW),
        (b, b + 2 * page, RO),
        (c, c + 2 * page, WO),
    );

    // One after the other: each time all of it.
    vhost.map(0, a, 4 * page, at, RW)?;
    ensure_eq!(mapped(&noted.take()?)?.2, [of_a]);
    vhost.map(0, b, 2 * page, at + 4 * page, RO)?;
    ensure_eq!(mapped(&noted.take()?)?.2, [of_a, of_b]);
    vhost.map(0, c, 2 * page, at + 6 * page, WO)?;
    ensure_eq!(mapped(&noted.take()?)?.2, [of_a, of_b, of_c]);
    vhost.iotlb(0, uapi::INVALIDATE, b, 2 * page)?;
    ensure_eq!(mapped(&noted.take()?)?, (1, 0, vec![of_a, of_c]));

    // In a batch: once.
    vhost.iotlb(0, uapi::BATCH_BEGIN, 0, 0)?;
    vhost.iotlb(0, uapi::INVALIDATE, c, 2 * page)?;
    vhost.map(0, b, 2 * page, at + 4 * page, RO)?;
    ensure_eq!(noted.take()?, []);
    vhost.iotlb(0, uapi::BATCH_END, 0, 0)?;
    ensure_eq!(mapped(&noted.take()?)?, (1, 0, vec![of_a, of_b]));

    // The other address space is apart.
    vhost.map(1, b, 2 * page, at, RW)?;
    let (_, space, extents) = mapped(&noted.take()?)?;
    ensure_eq!((space, extents), (1, vec![(b, b + 2 * page, RW)]));

    // What is left goes with the file.
    let noted = noted.reopen()?;
    ensure_eq!(
        noted.take()?,
        [
            record(Op::CompatReset, 0, &[1]),
            record(Op::ResetMap, 0, &[]),
            record(Op::ResetMap, 1, &[]),
            record(Op::Reset, 0, &[]),
        ]
    );
    Ok(())
}

fn user_addresses(context: &Context) -> Outcome {
    let noted = Noted::new(context, BARE)?;
    let vhost = &noted.vhost;
    vhost.set_backend_features(uapi::F_MSG_V2 | uapi::F_BATCH | uapi::F_ASID)?;
    vhost.set_owner()?;
    ensure_eq!(noted.take()?, [record(Op::BindMm, 0, &[])]);
    let pages = Pages::new(4 * PAGE)?;
    let (size, at) = (pages.length() as u64, pages.address());
    for (space, permissions) in [(0, RW), (0, RO), (1, WO)] {
        vhost.map(space, IOVA, size, at, permissions)?;
        vhost.iotlb(space, uapi::INVALIDATE, IOVA, size)?;
        ensure_eq!(
            noted.take()?,
            [
                record(Op::DmaMap, space, &[]),
                record(Op::Extent, u32::from(permissions), &[IOVA, size, at]),
                record(Op::DmaUnmap, space, &[IOVA, size]),
            ]
        );
    }
    vhost.map(1, IOVA, size, at, RW)?;
    noted.take()?;
    let noted = noted.reopen()?;
    ensure_eq!(
        noted.take()?,
        [
            record(Op::Reset, 0, &[]),
            record(Op::UnbindMm, 0, &[]),
            record(Op::DmaUnmap, 1, &[IOVA, size]),
            record(Op::Reset, 0, &[]),
        ]
    );
    Ok(())
}

/// A doorbell page of a device, mapped.
struct Doorbell(*mut u32);

impl Doorbell {
    fn map(noted: &Noted, queue: u16, length: usize, protection: i32) -> io::Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                noted.vhost.fd(),
                (usize::from(queue) * PAGE) as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Doorbell(address.cast()))
    }

    fn ring(&self, word: u32) {
        // SAFETY: A page that may be written to is mapped there.
        unsafe { self.0.write_volatile(word) };
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // SAFETY: The page was mapped by this value, and goes with it.
        unsafe { libc::munmap(self.0.cast(), PAGE) };
    }
}

fn doorbell(context: &Context) -> Outcome {
    let noted = Noted::new(context, WHOLE)?;
    let write = libc::PROT_WRITE;
    ensure_eq!(noted.counts()?.doorbell, 0);
    for (queue, word) in [(0, 0x1234_5678), (1, 0x9abc_def0)] {
        let doorbell = Doorbell::map(&noted, queue, PAGE, write)?;
        doorbell.ring(word);
        ensure_eq!(noted.counts()?.doorbell, word);
    }
    // One that has none, and one that is none.
    match Doorbell::map(&noted, QUEUES - 1, PAGE, write) {
        Err(error) => ensure_eq!(error.raw_os_error(), Some(ENOTSUPP)),
        Ok(_) => {
            return Err(Stop::Fail(
                "a virtqueue without a doorbell has a page".into(),
            ))
        }
    }
    ensure_errno!(Doorbell::map(&noted, QUEUES, PAGE, write), EINVAL);
    ensure_errno!(Doorbell::map(&noted, 0, 2 * PAGE, write), EINVAL);
    let read_write = write | libc::PROT_READ;
    ensure_errno!(Doorbell::map(&noted, 0, PAGE, read_write), EINVAL);
    // As long as it is mapped, the file is open.
    let doorbell = Doorbell::map(&noted, 0, PAGE, write)?;
    let Noted {
        module,
        device,
        vhost,
    } = noted;
    drop(vhost);
    let path = device.path()?;
    ensure_errno!(Vhost::open(&path), EBUSY);
    doorbell.ring(1);
    drop(doorbell);
    drop(Vhost::open(&path)?);
    drop(device);
    drop(module);
    Ok(())
}

fn interrupts(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let vhost = &noted.vhost;
    let events = [Event::new()?, Event::new()?, Event::new()?];
    for (index, event) in (0..).zip(&events) {
        vhost.vring_file(uapi::SET_VRING_CALL, index, event.fd())?;
    }
    vhost.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)?;
    noted.take()?;
    vhost.add_status(DRIVER_OK)?;
    let mut expected = vec![record(Op::SetStatus, 0, &[15])];
    expected.extend((0..u32::from(QUEUES)).map(|index| record(Op::GetVqIrq, index, &[])));
    ensure_eq!(noted.take()?, expected);
    // Another eventfd, while the device runs.
    let event = Event::new()?;
    vhost.vring_file(uapi::SET_VRING_CALL, 0, event.fd())?;
    ensure_eq!(
        noted.take()?,
        [record(Op::GetVqIrq, 0, &[]), record(Op::SetVqCb, 0, &[1]),]
    );
    vhost.vring_file(uapi::SET_VRING_CALL, 1, -1)?;
    ensure_eq!(noted.take()?, [record(Op::SetVqCb, 1, &[0])]);
    Ok(())
}

fn errors(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let vhost = &noted.vhost;
    let address = VringAddr::default();
    noted.fail(Op::SetVqAddress, libc::EIO)?;
    ensure_errno!(vhost.set_vring_addr(address), EINVAL);
    noted.fail(Op::SetVqState, libc::EIO)?;
    ensure_errno!(vhost.vring(uapi::SET_VRING_BASE, 0, 1), EIO);
    noted.fail(Op::SetGroupAsid, libc::ENOSPC)?;
    ensure_errno!(vhost.vring(uapi::SET_GROUP_ASID, 0, 1), ENOSPC);
    noted.fail(Op::SetDriverFeatures, libc::EIO)?;
    ensure_errno!(vhost.set_features(uapi::F_VERSION_1), EINVAL);

    // A map that was refused is not there.
    let pages = Pages::new(PAGE)?;
    let page = PAGE as u64;
    noted.fail(Op::SetMap, libc::ENOMEM)?;
    ensure_errno!(vhost.map(0, IOVA, page, pages.address(), RW), EFAULT);
    noted.fail_none()?;
    vhost.map(0, IOVA, page, pages.address(), RW)?;

    vhost.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)?;
    noted.fail(Op::Suspend, libc::EBUSY)?;
    ensure_errno!(vhost.plain(uapi::SUSPEND), EBUSY);
    ensure_errno!(vhost.vring(uapi::SET_VRING_BASE, 0, 1), EINVAL);
    noted.fail(Op::Resume, libc::ETIMEDOUT)?;
    vhost.plain(uapi::SUSPEND)?;
    ensure_errno!(vhost.plain(uapi::RESUME), ETIMEDOUT);
    noted.fail(Op::CompatReset, libc::EIO)?;
    ensure_errno!(vhost.reset(), EIO);
    ensure_eq!(vhost.status()? & DRIVER_OK, DRIVER_OK);

    // A device that does not reset cannot be opened, but deleted.
    noted.fail(Op::Reset, libc::EIO)?;
    match noted.reopen() {
        Err(Stop::Fail(text)) => ensure!(text.contains("os error 5"), "{text}"),
        _ => return Err(Stop::Fail("a device that does not reset was opened".into())),
    }

    let noted = Noted::new(context, BARE)?;
    noted.vhost.set_backend_features(uapi::F_MSG_V2)?;
    noted.fail(Op::BindMm, libc::EPERM)?;
    ensure_errno!(noted.vhost.set_owner(), EPERM);
    noted.fail(Op::DmaMap, libc::ENOMEM)?;
    noted.vhost.set_owner()?;
    let map = || noted.vhost.map(0, IOVA, page, pages.address(), RW);
    ensure_errno!(map(), EFAULT);
    noted.fail_none()?;
    map()?;
    Ok(())
}

fn absent(context: &Context) -> Outcome {
    let noted = Noted::owned(context, BARE)?;
    let vhost = &noted.vhost;
    let calls = [
        uapi::GET_VRING_GROUP,
        uapi::GET_VRING_DESC_GROUP,
        uapi::SET_GROUP_ASID,
        uapi::GET_VRING_SIZE,
    ];
    for call in calls {
        ensure_errno!(vhost.vring(call, 0, 0), EOPNOTSUPP);
    }
    let absent = uapi::F_SUSPEND | uapi::F_RESUME | uapi::F_DESC_ASID | uapi::F_PERSIST | (1 << 6);
    ensure_eq!(vhost.backend_features()? & absent, 0);
    for feature in [uapi::F_SUSPEND, uapi::F_RESUME, uapi::F_PERSIST] {
        ensure_errno!(vhost.set_backend_features(feature), EOPNOTSUPP);
    }
    let range = vhost.iova_range()?;
    ensure_eq!((range.first, range.last), (0, u64::MAX));
    match Doorbell::map(&noted, 0, PAGE, libc::PROT_WRITE) {
        Err(error) => ensure_eq!(error.raw_os_error(), Some(ENOTSUPP)),
        Ok(_) => return Err(Stop::Fail("a device without doorbells has a page".into())),
    }
    let event = Event::new()?;
    vhost.vring_file(uapi::SET_VRING_CALL, 0, event.fd())?;
    vhost.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)?;
    ensure_errno!(vhost.plain(uapi::SUSPEND), EOPNOTSUPP);
    ensure_errno!(vhost.plain(uapi::RESUME), EOPNOTSUPP);
    // A reset that says what becomes of maps is one that does not.
    vhost.reset()?;
    ensure_eq!(
        noted.take()?,
        [record(Op::SetStatus, 0, &[15]), record(Op::Reset, 0, &[]),]
    );
    // The callback is the bus's, whether or not the device wants to know.
    vhost.vring_file(uapi::SET_VRING_CALL, 0, event.fd())?;
    vhost.vring(uapi::SET_VRING_ENABLE, 0, 1)?;
    noted.tell(command::FIRE, 0, 0)?;
    ensure!(event.wait(Duration::ZERO), "the callback did not come");
    Ok(())
}

fn one_eventfd(context: &Context) -> Outcome {
    let noted = Noted::owned(context, WHOLE)?;
    let vhost = &noted.vhost;
    let event = Event::new()?;
    vhost.vring_file(uapi::SET_VRING_CALL, 0, event.fd())?;
    for index in 0..2 {
        vhost.vring_file(uapi::SET_VRING_KICK, index, event.fd())?;
    }
    vhost.vring(uapi::SET_VRING_ENABLE, 0, 1)?;
    noted.take()?;
    // Each interrupt is a kick of both.
    for _ in 0..3 {
        noted.tell(command::FIRE, 0, 0)?;
        let mut kicks = noted.take()?;
        kicks.sort_unstable();
        ensure_eq!(
            kicks,
            [record(Op::KickVq, 0, &[]), record(Op::KickVq, 1, &[]),]
        );
    }
    ensure!(event.wait(Duration::ZERO), "the callback did not come");
    Ok(())
}

fn one_eventfd_running(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    let mut a = Port::start(&a, Plan::MODERN)?;
    let call = a.queues[TX].call.fd();
    a.vhost.vring_file(uapi::SET_VRING_KICK, TX as u32, call)?;
    let (source, target) = (a.mac()?, b.mac()?);
    let header = vec![0; a.header()];
    for number in 0..50 {
        let frame = frame(target, source, 100, number);
        a.queue_frame(&header, &frame)?;
        // An interrupt for the frame kicks again, and so may not make another.
        a.queues[TX].ring.publish();
        a.queues[TX].ring.enable_interrupts(1);
        a.queues[TX].call.signal()?;
        b.expect(&frame)?;
    }
    a.drain()?;
    ensure_eq!(a.vhost.status()? & uapi::NEEDS_RESET, 0);
    Ok(())
}
