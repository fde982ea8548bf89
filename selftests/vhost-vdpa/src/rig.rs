// SPDX-License-Identifier: GPL-2.0
//! A network driver on one vhost-vdpa device: rings, buffers, frames.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use driver::{Buffer, Endian, Options, Region, Ring, Shape, Used};

use crate::device::{Device, Event, Vhost};
use crate::ktap::{ensure, ensure_eq, require, Stop};
use crate::uapi::{self, VringAddr};

/// Time in which a device that answers at all has answered, even where
/// everything is emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Time in which a device that must not answer is given the chance.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// The virtqueues of a device with one pair in use.
pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;
pub(crate) const CTRL: usize = 2;

/// IO virtual address of the memory of the first queue.
const BASE: u64 = 0x10_0000;
/// What each queue has of memory: the ring first, then the slots.
const QUEUE_BYTES: u64 = 1 << 20;
const SLOTS: u64 = 256 << 10;
/// A slot holds one buffer.
pub(crate) const SLOT: u64 = 2048;

/// Longest frame without segmentation offload.
pub(crate) const FRAME: usize = 1514;

/// How a driver behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Acknowledge no VERSION_1, leave out FEATURES_OK, frame as of old.
    pub(crate) legacy: bool,
    /// The byte order of the guest; little unless it is legacy.
    pub(crate) endian: Endian,
    /// Features wanted besides those every driver here takes.
    pub(crate) features: u64,
    /// Entries of each ring.
    pub(crate) size: u16,
    /// Pieces that a sent frame is cut into, after its header.
    pub(crate) pieces: u32,
    /// How buffers go into descriptors.
    pub(crate) shape: Shape,
    /// Bytes of a receive buffer.
    pub(crate) receive: u32,
    /// Where the rings start: as `VHOST_SET_VRING_BASE` takes it for split
    /// rings; the same position for available and used for packed ones.
    pub(crate) start: Option<u16>,
}

impl Plan {
    pub(crate) const LEGACY: Plan = Plan {
        legacy: true,
        endian: Endian::Little,
        features: 0,
        size: 64,
        pieces: 1,
        shape: Shape::Direct,
        receive: 12 + FRAME as u32,
        start: None,
    };

    pub(crate) const MODERN: Plan = Plan {
        legacy: false,
        ..Plan::LEGACY
    };

    pub(crate) fn packed(&self) -> bool {
        self.features & uapi::F_RING_PACKED != 0
    }

    /// A number as the driver has it in headers, commands and configuration.
    pub(crate) fn bytes(&self, number: u16) -> [u8; 2] {
        match self.endian {
            Endian::Little => number.to_le_bytes(),
            Endian::Big => number.to_be_bytes(),
        }
    }

    /// The features to acknowledge of those `offered`.
    fn acknowledge(&self, offered: u64) -> Result<u64, Stop> {
        let mut wanted = self.features;
        // QEMU acknowledges this one for every guest.
        wanted |= uapi::F_ACCESS_PLATFORM;
        if !self.legacy {
            wanted |= uapi::F_VERSION_1;
        }
        require!(
            wanted & !offered == 0,
            "the device does not offer features {:#x}",
            wanted & !offered
        );
        let mut usual = uapi::NET_F_MAC | uapi::NET_F_STATUS;
        usual |= uapi::NET_F_CTRL_VQ | uapi::NET_F_CTRL_RX;
        Ok(wanted | offered & usual)
    }
}

/// One virtqueue.
pub(crate) struct Queue {
    pub(crate) ring: Ring,
    pub(crate) kick: Event,
    pub(crate) call: Event,
    /// Slots not in use.
    free: VecDeque<u64>,
}

impl Queue {
    /// Makes available what was added, and kicks if the device wants it.
    pub(crate) fn publish(&mut self) -> Result<(), Stop> {
        if self.ring.publish() {
            self.kick.signal()?;
        }
        Ok(())
    }

    /// The next used buffer, waited for through the device's notification.
    pub(crate) fn used(&mut self, patience: Duration) -> Result<Option<Used>, Stop> {
        let end = Instant::now() + patience;
        loop {
            if let Some(used) = self.ring.used()? {
                return Ok(Some(used));
            }
            if self.ring.enable_interrupts(1) {
                continue;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.call.wait(left) {
                // A notification that was lost shows as a used buffer now.
                ensure!(
                    self.ring.used()?.is_none(),
                    "a buffer was used, but no notification came"
                );
                return Ok(None);
            }
        }
    }
}

/// A device with a driver on it.
pub(crate) struct Port {
    pub(crate) vhost: Vhost,
    pub(crate) region: Region,
    pub(crate) queues: Vec<Queue>,
    pub(crate) config_call: Event,
    pub(crate) features: u64,
    pub(crate) plan: Plan,
}

impl Port {
    /// Opens the device and does everything but to start it.
    pub(crate) fn prepare(device: &Device, plan: Plan) -> Result<Self, Stop> {
        Self::prepare_on(device.open()?, plan)
    }

    /// Does everything but to start the device.
    pub(crate) fn prepare_on(vhost: Vhost, plan: Plan) -> Result<Self, Stop> {
        let features = plan.acknowledge(vhost.features()?)?;
        let pairs = if features & uapi::NET_F_MQ != 0 {
            usize::from(vhost.config(8, 1)?[0])
        } else {
            1
        };
        let count = 2 * pairs + usize::from(features & uapi::NET_F_CTRL_VQ != 0);
        let region = Region::new(BASE, count * QUEUE_BYTES as usize);
        let backend = vhost.backend_features()?;
        let known = uapi::F_MSG_V2 | uapi::F_BATCH | uapi::F_ASID;
        vhost.set_backend_features(backend & (known | uapi::F_SUSPEND | uapi::F_RESUME))?;
        vhost.set_owner()?;
        let mut port = Port {
            vhost,
            region,
            queues: Vec::new(),
            config_call: Event::new()?,
            features,
            plan,
        };
        port.negotiate()?;
        port.map()?;
        port.make_queues(count)?;
        Ok(port)
    }

    /// Prepares and starts a device.
    pub(crate) fn start(device: &Device, plan: Plan) -> Result<Self, Stop> {
        let mut port = Self::prepare(device, plan)?;
        port.run()?;
        Ok(port)
    }

    /// Acknowledges the features.
    pub(crate) fn negotiate(&self) -> Result<(), Stop> {
        let vhost = &self.vhost;
        if self.plan.legacy {
            vhost.set_features(self.features)?;
        } else {
            vhost.add_status(uapi::ACKNOWLEDGE)?;
            vhost.add_status(uapi::DRIVER)?;
            vhost.set_features(self.features)?;
            vhost.add_status(uapi::FEATURES_OK)?;
            ensure!(
                vhost.status()? & uapi::FEATURES_OK != 0,
                "FEATURES_OK was refused for {:#x}",
                self.features
            );
        }
        Ok(())
    }

    /// Maps the memory.
    pub(crate) fn map(&self) -> Result<(), Stop> {
        self.vhost.map(
            0,
            self.region.base(),
            self.region.len() as u64,
            self.region.as_ptr() as u64,
            uapi::RW,
        )?;
        Ok(())
    }

    /// Makes the rings anew and tells the device of them.
    pub(crate) fn make_queues(&mut self, count: usize) -> Result<(), Stop> {
        self.queues.clear();
        for index in 0..count {
            let at = BASE + index as u64 * QUEUE_BYTES;
            let size = self.plan.size;
            let options = Options {
                packed: self.plan.packed(),
                event_index: self.features & uapi::F_EVENT_IDX != 0,
                endian: self.plan.endian,
                table_entries: 8,
                start: self.plan.start,
                ..Options::default()
            };
            let queue = Queue {
                ring: Ring::new(&self.region, at, size, options),
                kick: Event::new()?,
                call: Event::new()?,
                free: (0..u64::from(size))
                    .map(|n| at + SLOTS + n * SLOT)
                    .collect(),
            };
            self.queues.push(queue);
            self.tell(index)?;
        }
        self.vhost
            .half(uapi::SET_CONFIG_CALL, self.config_call.fd() as u32)?;
        Ok(())
    }

    /// Tells the device of a ring.
    pub(crate) fn tell(&self, index: usize) -> Result<(), Stop> {
        let (vhost, queue, number) = (&self.vhost, &self.queues[index], index as u32);
        let layout = queue.ring.layout();
        vhost.vring(uapi::SET_VRING_NUM, number, u32::from(self.plan.size))?;
        let start = u32::from(self.plan.start.unwrap_or(match self.plan.packed() {
            true => 0x8000,
            false => 0,
        }));
        let base = if self.plan.packed() {
            start | (start << 16)
        } else {
            start
        };
        vhost.vring(uapi::SET_VRING_BASE, number, base)?;
        vhost.set_vring_addr(VringAddr {
            index: number,
            desc: layout.desc,
            avail: layout.driver,
            used: layout.device,
            ..VringAddr::default()
        })?;
        vhost.vring_file(uapi::SET_VRING_KICK, number, queue.kick.fd())?;
        vhost.vring_file(uapi::SET_VRING_CALL, number, queue.call.fd())?;
        Ok(())
    }

    /// Enables the queues.
    pub(crate) fn enable(&self) -> Result<(), Stop> {
        for index in 0..self.queues.len() {
            self.vhost.vring(uapi::SET_VRING_ENABLE, index as u32, 1)?;
        }
        Ok(())
    }

    /// Starts the device and gives it buffers to receive into.
    pub(crate) fn run(&mut self) -> Result<(), Stop> {
        self.enable()?;
        self.vhost.add_status(uapi::DRIVER_OK)?;
        ensure!(
            self.vhost.status()? & uapi::DRIVER_OK != 0,
            "DRIVER_OK was refused"
        );
        self.fill()
    }

    /// Resets the device and starts it again, rings from `start`.
    pub(crate) fn restart(&mut self, start: Option<u16>) -> Result<(), Stop> {
        self.vhost.reset()?;
        self.plan.start = start;
        self.negotiate()?;
        // The map may have gone with the reset, or not.
        let _ = self.vhost.iotlb(
            0,
            uapi::INVALIDATE,
            self.region.base(),
            self.region.len() as u64,
        );
        self.map()?;
        self.make_queues(self.queues.len())?;
        self.run()
    }

    /// Length of the header before each frame, in bytes.
    pub(crate) fn header(&self) -> usize {
        match self.features & (uapi::NET_F_MRG_RXBUF | uapi::F_VERSION_1) {
            0 => 10,
            _ => 12,
        }
    }

    /// The address that the device was given.
    pub(crate) fn mac(&self) -> Result<[u8; 6], Stop> {
        let bytes = self.vhost.config(0, 6)?;
        Ok(std::array::from_fn(|at| bytes[at]))
    }

    /// Adds every free slot to the receive queue.
    pub(crate) fn fill(&mut self) -> Result<(), Stop> {
        let header = self.header() as u32;
        let (legacy, length) = (self.plan.legacy, self.plan.receive);
        let shape = self.plan.shape;
        let merge = self.features & uapi::NET_F_MRG_RXBUF != 0;
        let queue = &mut self.queues[RX];
        while let Some(&slot) = queue.free.front() {
            // Without ANY_LAYOUT the header has a descriptor of its own.
            let pieces: &[Buffer] = if legacy && !merge {
                &[
                    Buffer {
                        addr: slot,
                        len: header,
                    },
                    Buffer {
                        addr: slot + u64::from(header),
                        len: length - header,
                    },
                ]
            } else {
                &[Buffer {
                    addr: slot,
                    len: length,
                }]
            };
            if queue.ring.add(&[], pieces, shape, slot).is_err() {
                break;
            }
            queue.free.pop_front();
        }
        queue.publish()
    }

    /// Sends a frame, header all zero.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let header = vec![0; self.header()];
        self.send_with(&header, frame)
    }

    /// Sends a frame with that header.
    pub(crate) fn send_with(&mut self, header: &[u8], frame: &[u8]) -> Result<(), Stop> {
        self.queue_frame(header, frame)?;
        self.queues[TX].publish()
    }

    /// Adds a frame to the transmit queue, to be published.
    pub(crate) fn queue_frame(&mut self, header: &[u8], frame: &[u8]) -> Result<(), Stop> {
        let plan = self.plan;
        let slot = loop {
            self.reap()?;
            if let Some(slot) = self.queues[TX].free.pop_front() {
                break slot;
            }
            self.queues[TX].publish()?;
            let Some(used) = self.queues[TX].used(PATIENCE)? else {
                return Err(Stop::Fail("no sent buffer comes back".into()));
            };
            self.queues[TX].free.push_back(used.token);
        };
        self.region.write(slot, header);
        self.region.write(slot + header.len() as u64, frame);
        let mut pieces = Vec::new();
        let mut at = slot;
        let mut left = frame.len() as u32;
        if plan.legacy || plan.pieces > 1 {
            pieces.push(Buffer {
                addr: at,
                len: header.len() as u32,
            });
            at += header.len() as u64;
        } else {
            left += header.len() as u32;
        }
        let each = left.div_ceil(plan.pieces);
        while left > 0 {
            let len = each.min(left);
            pieces.push(Buffer { addr: at, len });
            at += u64::from(len);
            left -= len;
        }
        while self.queues[TX]
            .ring
            .add(&pieces, &[], plan.shape, slot)
            .is_err()
        {
            self.queues[TX].publish()?;
            let Some(used) = self.queues[TX].used(PATIENCE)? else {
                return Err(Stop::Fail("no sent buffer comes back".into()));
            };
            self.queues[TX].free.push_back(used.token);
        }
        Ok(())
    }

    /// Takes back what was sent.
    pub(crate) fn reap(&mut self) -> Result<usize, Stop> {
        let mut count = 0;
        while let Some(used) = self.queues[TX].ring.used()? {
            self.queues[TX].free.push_back(used.token);
            count += 1;
        }
        Ok(count)
    }

    /// Waits until everything that was sent is back.
    pub(crate) fn drain(&mut self) -> Result<(), Stop> {
        while self.queues[TX].free.len() < usize::from(self.plan.size) {
            let Some(used) = self.queues[TX].used(PATIENCE)? else {
                return Err(Stop::Fail("no sent buffer comes back".into()));
            };
            self.queues[TX].free.push_back(used.token);
        }
        Ok(())
    }

    /// The next frame received: header and frame, or nothing in that time.
    /// The buffers go back to the device.
    pub(crate) fn receive_raw(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, Stop> {
        let header = self.header();
        let Some(first) = self.queues[RX].used(patience)? else {
            return Ok(None);
        };
        let mut bytes = self.take(first)?;
        ensure!(
            bytes.len() >= header,
            "a receive buffer of {} bytes has no room for the header",
            bytes.len()
        );
        if self.features & uapi::NET_F_MRG_RXBUF != 0 {
            let buffers = match self.plan.endian {
                Endian::Little => u16::from_le_bytes([bytes[10], bytes[11]]),
                Endian::Big => u16::from_be_bytes([bytes[10], bytes[11]]),
            };
            ensure!(buffers > 0, "num_buffers is 0");
            for _ in 1..buffers {
                let Some(next) = self.queues[RX].used(PATIENCE)? else {
                    return Err(Stop::Fail("not all buffers of a frame came".into()));
                };
                let more = self.take(next)?;
                bytes.extend_from_slice(&more);
            }
        } else if header == 12 {
            // Only the one that has merged buffers may say otherwise.
            ensure_eq!(u16::from_le_bytes([bytes[10], bytes[11]]), 1);
        }
        self.fill()?;
        Ok(Some(bytes))
    }

    /// The bytes of a used receive buffer, whose slot is free then.
    fn take(&mut self, used: Used) -> Result<Vec<u8>, Stop> {
        let Some(written) = used.written else {
            return Err(Stop::Fail("a receive buffer without a length".into()));
        };
        self.queues[RX].free.push_back(used.token);
        Ok(self.region.get(used.token, written as usize))
    }

    /// The next frame received that is a test's own.
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, Stop> {
        let header = self.header();
        loop {
            match self.receive_raw(patience)? {
                Some(bytes) if is_ours(&bytes[header..]) => {
                    return Ok(Some(bytes[header..].into()))
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Fails unless `frame` is what is received next.
    pub(crate) fn expect(&mut self, frame: &[u8]) -> Result<(), Stop> {
        match self.receive(PATIENCE)? {
            None => Err(Stop::Fail(format!(
                "a frame of {} bytes did not arrive",
                frame.len()
            ))),
            Some(got) => {
                ensure_eq!(got.len(), frame.len());
                ensure!(
                    got == frame,
                    "a frame of {} bytes arrived changed",
                    frame.len()
                );
                Ok(())
            }
        }
    }

    /// Fails if something of a test is received.
    pub(crate) fn expect_nothing(&mut self) -> Result<(), Stop> {
        match self.receive(QUIET)? {
            None => Ok(()),
            Some(frame) => Err(Stop::Fail(format!(
                "a frame of {} bytes arrived that must not",
                frame.len()
            ))),
        }
    }

    /// Waits until the status holds `bit`.
    pub(crate) fn wait_status(&self, bit: u8) -> Result<(), Stop> {
        let end = Instant::now() + PATIENCE;
        while self.vhost.status()? & bit == 0 {
            ensure!(Instant::now() < end, "status bit {bit:#x} did not come");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// `VHOST_GET_VRING_BASE`.
    pub(crate) fn base(&self, index: usize) -> Result<u32, Stop> {
        Ok(self.vhost.vring(uapi::GET_VRING_BASE, index as u32, 0)?)
    }

    /// Runs a control command: its acknowledgement byte.
    pub(crate) fn control(&mut self, class: u8, command: u8, data: &[&[u8]]) -> Result<u8, Stop> {
        let mut out: Vec<&[u8]> = vec![];
        let head = [class, command];
        out.push(&head);
        out.extend_from_slice(data);
        self.control_raw(&out, 1)?
            .ok_or_else(|| Stop::Fail("no answer to a control command".into()))
    }

    /// Has the device filter what it receives, which it need not do before it
    /// is told to.
    pub(crate) fn filter(&mut self) -> Result<(), Stop> {
        require!(
            self.features & uapi::NET_F_CTRL_RX != 0,
            "the device does not filter"
        );
        ensure_eq!(self.control(0, 0, &[&[0]])?, 0);
        Ok(())
    }

    /// Puts pieces into the control queue and waits for the answer: the first
    /// of `room` bytes.
    pub(crate) fn control_raw(&mut self, out: &[&[u8]], room: u32) -> Result<Option<u8>, Stop> {
        require!(self.queues.len() > CTRL, "the device has no control queue");
        let shape = self.plan.shape;
        let queue = self.queues.last_mut().expect("there are queues");
        let Some(slot) = queue.free.pop_front() else {
            return Err(Stop::Fail("the control queue is full".into()));
        };
        let mut at = slot;
        let mut pieces = Vec::new();
        for bytes in out {
            self.region.write(at, bytes);
            pieces.push(Buffer {
                addr: at,
                len: bytes.len() as u32,
            });
            at += bytes.len() as u64;
        }
        let answer = slot + SLOT - 8;
        self.region.write(answer, &[0xaa]);
        let into = [Buffer {
            addr: answer,
            len: room,
        }];
        let into = if room > 0 { &into[..] } else { &[] };
        queue.ring.add(&pieces, into, shape, slot)?;
        queue.publish()?;
        // A device that is given no room for an answer may give up instead.
        let patience = if room > 0 { PATIENCE } else { PATIENCE / 10 };
        match queue.used(patience)? {
            None => Ok(None),
            Some(used) => {
                queue.free.push_back(used.token);
                Ok(Some(self.region.get(answer, 1)[0]))
            }
        }
    }
}

/// EtherType for local experiments: no kernel sends it by itself.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// EtherType of a VLAN tag.
const VLAN: [u8; 2] = [0x81, 0x00];

fn is_ours(frame: &[u8]) -> bool {
    let kind = |at: usize| frame.get(at..at + 2);
    kind(12) == Some(&ETHERTYPE) || kind(12) == Some(&VLAN) && kind(16) == Some(&ETHERTYPE)
}

/// The frame with the tag of a VLAN.
pub(crate) fn tagged(frame: &[u8], id: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend_from_slice(&VLAN);
    tagged.extend_from_slice(&id.to_be_bytes());
    tagged.extend_from_slice(&frame[12..]);
    tagged
}

/// A frame of `length` bytes (at least 60) whose content tells `number`.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], length: usize, number: u32) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&ETHERTYPE);
    frame.extend_from_slice(&number.to_be_bytes());
    let mut state = number.wrapping_mul(2_654_435_761) | 1;
    while frame.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        frame.push(state as u8);
    }
    frame.truncate(length);
    frame
}

/// Bytes of the headers of a TCP frame: Ethernet, IPv4 and TCP without options.
pub(crate) const TCP_HEADERS: usize = 54;

/// Makes a frame one of TCP over IPv4, from `port`, with no checksums yet.
pub(crate) fn make_tcp(frame: &mut [u8], port: u16) {
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut frame[14..];
    let length = (ip.len() as u16).to_be_bytes();
    ip[..40].fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length);
    ip[8] = 64;
    ip[9] = 6;
    ip[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    ip[20..22].copy_from_slice(&port.to_be_bytes());
    ip[32] = 5 << 4;
}

/// Sends `count` frames of various lengths from one port to another.
pub(crate) fn exchange(from: &mut Port, to: &mut Port, count: u32) -> Result<(), Stop> {
    let (source, target) = (from.mac()?, to.mac()?);
    // As many under way as the receiver has buffers for, whatever their length.
    let window = u32::from(to.plan.size) / (FRAME as u32 / to.plan.receive + 2) / 2;
    let mut number = 0;
    while number < count {
        let until = count.min(number + window.clamp(1, 16));
        let frames: Vec<_> = (number..until)
            .map(|number| {
                let length = 60 + (number as usize * 389) % (FRAME - 59);
                frame(target, source, length, number)
            })
            .collect();
        let header = vec![0; from.header()];
        for frame in &frames {
            from.queue_frame(&header, frame)?;
        }
        from.queues[TX].publish()?;
        for frame in &frames {
            to.expect(frame)?;
        }
        number = until;
    }
    from.drain()
}
