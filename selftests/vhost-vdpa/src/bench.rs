// SPDX-License-Identifier: GPL-2.0
//! How many frames a second a device moves from ring to ring, between
//! drivers that do as little as a driver can.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use driver::{Buffer, Options, Region, Shape};

use crate::device::{maker, Device, Event, Vhost};
use crate::ktap::{ensure, Stop};
use crate::rig::{frame, make_tcp, FRAME, TCP_HEADERS};
use crate::uapi::{self, VringAddr};

mod ring;

use ring::Ring;

/// What is measured.
pub(crate) struct Job {
    pairs: u16,
    size: usize,
    seconds: u64,
    /// One device that gives its driver back what it sends to itself.
    loopback: bool,
}

/// Entries of each ring, as the C simulator has.
const ENTRIES: u16 = 256;
/// Bytes of the header before each frame.
const HEADER: usize = 12;
/// Bytes of a receive buffer where frames are merged from several.
const MERGED: u64 = 4096;
/// Bytes of any other buffer.
const PLAIN: u64 = 2048;
/// Payload bytes of each segment of a large frame.
const SEGMENT: u16 = 1448;
/// Frames that a sender adds before it makes them available.
const BATCH: usize = 32;
/// Rings lie below, buffers above this address of a queue's memory.
const BUFFERS: u64 = 64 << 10;
/// IO virtual address of the first queue.
const BASE: u64 = 0x100_0000;
/// Features any driver here takes if they are offered.  Merged receive buffers
/// are taken for large frames only: they are more work for the driver, which
/// is to be the same on either device.
const USUAL: u64 = uapi::F_VERSION_1
    | uapi::F_ACCESS_PLATFORM
    | uapi::F_EVENT_IDX
    | uapi::NET_F_MAC
    | uapi::NET_F_CTRL_VQ;

impl Job {
    /// Reads the words after `bench`.
    pub(crate) fn parse(words: &[String]) -> Option<Job> {
        let (loopback, words) = match words {
            [first, rest @ ..] if first == "--loopback" => (true, rest),
            _ => (false, words),
        };
        let [pairs, size, seconds] = words else {
            return None;
        };
        let job = Job {
            pairs: pairs.parse().ok()?,
            size: size.parse().ok()?,
            seconds: seconds.parse().ok()?,
            loopback,
        };
        let sizes = 60..=65_535;
        (job.pairs > 0 && sizes.contains(&job.size)).then_some(job)
    }

    fn large(&self) -> bool {
        self.size > FRAME
    }
}

/// One virtqueue for frames.
struct Queue {
    ring: Ring,
    region: Region,
    kick: Event,
    call: Event,
    /// Bytes of each buffer.
    buffers: u64,
    /// How many buffers there are.
    count: u16,
}

/// A started device.
struct Port {
    vhost: Vhost,
    queues: Vec<Queue>,
    merged: bool,
}

impl Port {
    fn start(device: &Device, job: &Job) -> Result<Port, Stop> {
        let vhost = device.open()?;
        let offered = vhost.features()?;
        let mut wanted = USUAL;
        if job.pairs > 1 {
            wanted |= uapi::NET_F_MQ;
        }
        if job.large() {
            wanted |= uapi::NET_F_CSUM
                | uapi::NET_F_GUEST_CSUM
                | uapi::NET_F_HOST_TSO4
                | uapi::NET_F_GUEST_TSO4
                | uapi::NET_F_MRG_RXBUF;
            ensure!(wanted & !offered == 0, "the device takes no large frames");
        }
        let features = wanted & offered;
        let merged = features & uapi::NET_F_MRG_RXBUF != 0;
        vhost.set_backend_features(uapi::F_MSG_V2)?;
        vhost.set_owner()?;
        vhost.add_status(uapi::ACKNOWLEDGE | uapi::DRIVER)?;
        vhost.set_features(features)?;
        vhost.add_status(uapi::FEATURES_OK)?;
        ensure!(
            vhost.status()? & uapi::FEATURES_OK != 0,
            "FEATURES_OK was refused"
        );

        let mut port = Port {
            vhost,
            queues: Vec::new(),
            merged,
        };
        for index in 0..2 * u32::from(job.pairs) {
            let queue = port.queue(job, index, features)?;
            port.queues.push(queue);
        }
        let control = port.control()?;
        port.vhost.add_status(uapi::DRIVER_OK)?;
        if job.pairs > 1 {
            control.use_pairs(job.pairs)?;
        }
        Ok(port)
    }

    /// Makes and enables virtqueue `index`, in memory of its own.
    fn queue(&self, job: &Job, index: u32, features: u64) -> Result<Queue, Stop> {
        let receives = index % 2 == 0;
        let frame = (job.size + HEADER) as u64;
        let (buffers, len) = match receives {
            true if self.merged => (MERGED, MERGED),
            true => (frame.max(PLAIN), frame.max(PLAIN)),
            false => (frame.max(PLAIN), frame),
        };
        // A large frame takes much memory; few of them fill any device.
        let count = if buffers > MERGED { 64 } else { ENTRIES };
        let region = self.memory(index, BUFFERS + u64::from(count) * buffers)?;
        let first = region.base() + BUFFERS;
        let ring = Ring::new(
            &region,
            ENTRIES,
            features & uapi::F_EVENT_IDX != 0,
            receives,
            (0..u64::from(count)).map(|number| (first + number * buffers, len as u32)),
        );
        let (kick, call) = self.enable(index, ring.desc, ring.driver, ring.device)?;
        Ok(Queue {
            ring,
            region,
            kick,
            call,
            buffers,
            count,
        })
    }

    /// Makes and enables the control queue.
    fn control(&self) -> Result<Control, Stop> {
        let index = self.vhost.queues()? - 1;
        let region = self.memory(index, BUFFERS + PLAIN)?;
        let ring = driver::Ring::new(&region, region.base(), ENTRIES, Options::default());
        let layout = ring.layout();
        let (kick, call) = self.enable(index, layout.desc, layout.driver, layout.device)?;
        Ok(Control {
            ring,
            region,
            kick,
            call,
        })
    }

    /// Maps memory for queue `index`.
    fn memory(&self, index: u32, bytes: u64) -> Result<Region, Stop> {
        let at = BASE + u64::from(index) * (64 << 20);
        let region = Region::new(at, bytes as usize);
        self.vhost
            .map(0, at, region.len() as u64, region.as_ptr() as u64, uapi::RW)?;
        Ok(region)
    }

    /// Sets queue `index` up and enables it; its kick and call.
    fn enable(&self, index: u32, desc: u64, avail: u64, used: u64) -> Result<(Event, Event), Stop> {
        let (kick, call) = (Event::new()?, Event::new()?);
        let vhost = &self.vhost;
        vhost.vring(uapi::SET_VRING_NUM, index, u32::from(ENTRIES))?;
        vhost.vring(uapi::SET_VRING_BASE, index, 0)?;
        vhost.set_vring_addr(VringAddr {
            index,
            desc,
            avail,
            used,
            ..VringAddr::default()
        })?;
        vhost.vring_file(uapi::SET_VRING_KICK, index, kick.fd())?;
        vhost.vring_file(uapi::SET_VRING_CALL, index, call.fd())?;
        vhost.vring(uapi::SET_VRING_ENABLE, index, 1)?;
        Ok((kick, call))
    }

    fn mac(&self) -> Result<[u8; 6], Stop> {
        let bytes = self.vhost.config(0, 6)?;
        Ok(std::array::from_fn(|at| bytes[at]))
    }
}

/// The control queue.
struct Control {
    ring: driver::Ring,
    region: Region,
    kick: Event,
    call: Event,
}

impl Control {
    /// The command that sets the number of queue pairs.
    fn use_pairs(mut self, pairs: u16) -> Result<(), Stop> {
        let at = self.region.base() + BUFFERS;
        let [low, high] = pairs.to_le_bytes();
        self.region.write(at, &[4, 0, low, high, 0xff]);
        let command = [Buffer { addr: at, len: 4 }];
        let answer = [Buffer {
            addr: at + 4,
            len: 1,
        }];
        self.ring.add(&command, &answer, Shape::Direct, 0)?;
        self.ring.enable_interrupts(1);
        if self.ring.publish() {
            self.kick.signal()?;
        }
        ensure!(
            self.call.wait(Duration::from_secs(10)),
            "no answer to a control command"
        );
        ensure!(
            self.region.get(at + 4, 1) == [0],
            "the device refuses {pairs} queue pairs"
        );
        Ok(())
    }
}

impl Queue {
    /// Waits until the device has used something.
    fn wait(&mut self, patience: Duration) {
        if !self.ring.enable_interrupts() {
            self.call.wait(patience);
        }
        self.ring.disable_interrupts();
    }

    fn publish(&mut self) -> Result<(), Stop> {
        if self.ring.publish() {
            self.kick.signal()?;
        }
        Ok(())
    }

    fn buffer(&self, id: u16) -> u64 {
        self.region.base() + BUFFERS + u64::from(id) * self.buffers
    }

    /// Receives until told to stop, counting frames.
    fn receive(&mut self, merged: bool, frames: &AtomicU64, stop: &AtomicBool) -> Result<(), Stop> {
        (0..self.count).for_each(|id| self.ring.add(id));
        self.publish()?;
        // Buffers of the frame under way that are still to come.
        let mut more = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut taken = 0;
            let mut done = 0;
            while taken < BATCH {
                let Some(id) = self.ring.used() else { break };
                ensure!(id < self.count, "buffer {id} was used");
                if more == 0 {
                    more = 1;
                    if merged {
                        more = u16::from_le(self.region.load_u16(self.buffer(id) + 10));
                        ensure!(more > 0, "num_buffers is 0");
                    }
                    done += 1;
                }
                more -= 1;
                self.ring.add(id);
                taken += 1;
            }
            frames.fetch_add(done, Ordering::Relaxed);
            if taken > 0 {
                self.publish()?;
            } else {
                self.wait(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Sends the same frame until told to stop.
    fn send(&mut self, bytes: &[u8], stop: &AtomicBool) -> Result<(), Stop> {
        let mut free: Vec<u16> = (0..self.count).collect();
        for &id in &free {
            self.region.write(self.buffer(id), bytes);
        }
        while !stop.load(Ordering::Relaxed) {
            while let Some(id) = self.ring.used() {
                free.push(id);
            }
            for _ in 0..BATCH {
                let Some(id) = free.pop() else { break };
                self.ring.add(id);
            }
            self.publish()?;
            if free.is_empty() {
                self.wait(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}

/// Header and frame of flow `number`.
fn packet(job: &Job, to: [u8; 6], from: [u8; 6], number: u16) -> Vec<u8> {
    let mut header = vec![0u8; HEADER];
    let mut bytes = frame(to, from, job.size, u32::from(number));
    if job.large() {
        // One TCP frame over IPv4, to be segmented by whoever must.
        make_tcp(&mut bytes, 5000 + number);
        header[0] = 1; // NEEDS_CSUM
        header[1] = 1; // GSO_TCPV4
        header[2..4].copy_from_slice(&(TCP_HEADERS as u16).to_le_bytes());
        header[4..6].copy_from_slice(&SEGMENT.to_le_bytes());
        header[6..8].copy_from_slice(&34u16.to_le_bytes());
        header[8..10].copy_from_slice(&16u16.to_le_bytes());
    }
    header.extend_from_slice(&bytes);
    header
}

/// Measures; prints frames a second and bits a second.
pub(crate) fn run(mgmtdev: &str, job: &Job) -> Result<(), Stop> {
    let pairs = job.pairs.to_string();
    let mut attributes = vec!["mac", "02:00:00:00:be:01"];
    if job.pairs > 1 {
        attributes.extend(["max_vqp", &pairs]);
    }
    let first = Device::new(maker(mgmtdev, 0), "bench0", &attributes)?;
    attributes[1] = "02:00:00:00:be:02";
    let second = match job.loopback {
        true => None,
        false => Some(Device::new(maker(mgmtdev, 1), "bench1", &attributes)?),
    };
    let mut from = Port::start(&first, job)?;
    let mut to = match &second {
        Some(device) => Some(Port::start(device, job)?),
        None => None,
    };
    let source = from.mac()?;
    let target = match &to {
        Some(port) => port.mac()?,
        None => source,
    };

    let (frames, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let merged = to.as_ref().unwrap_or(&from).merged;
    // Even queues receive, odd ones send.
    let (mut receivers, mut senders) = (Vec::new(), Vec::new());
    for (index, queue) in from.queues.iter_mut().enumerate() {
        match index % 2 {
            0 if job.loopback => receivers.push(queue),
            0 => {}
            _ => senders.push(queue),
        }
    }
    if let Some(port) = &mut to {
        receivers.extend(port.queues.iter_mut().step_by(2));
    }
    let (moved, elapsed) = thread::scope(|scope| {
        let (frames, stop) = (&frames, &stop);
        let mut threads = Vec::new();
        for queue in receivers {
            threads.push(scope.spawn(move || queue.receive(merged, frames, stop)));
        }
        for (number, queue) in senders.into_iter().enumerate() {
            let bytes = packet(job, target, source, number as u16);
            threads.push(scope.spawn(move || queue.send(&bytes, stop)));
        }
        // The first half second warms up.
        thread::sleep(Duration::from_millis(500));
        let (begun, before) = (Instant::now(), frames.load(Ordering::Relaxed));
        thread::sleep(Duration::from_secs(job.seconds));
        let moved = frames.load(Ordering::Relaxed) - before;
        let elapsed = begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => return Err(Stop::Fail("a thread died".into())),
            }
        }
        Ok((moved as f64, elapsed))
    })?;
    from.vhost.reset()?;
    if let Some(port) = &to {
        port.vhost.reset()?;
    }
    println!(
        "{:.0} {:.0}",
        moved / elapsed,
        moved * 8.0 * job.size as f64 / elapsed
    );
    Ok(())
}
