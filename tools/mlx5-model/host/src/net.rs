// SPDX-License-Identifier: GPL-2.0

//! A network device made of virtqueue objects, and the driver of its rings.

use driver::{
    Options as RingOptions,
    Region,
    Ring,
    Shape,
    Used, //
};
use prm::{
    cap::virtio_feature,
    pd::{
        AllocPd,
        AllocTransportDomain,
        DeallocPd,
        DeallocTransportDomain, //
    },
    rqt::DestroyRqt,
    tir::DestroyTir,
    tis::{
        CreateTis,
        DestroyTis, //
    },
    virtq::{
        CreateVirtioNetQ,
        CreateVirtioQCounters,
        DestroyVirtioNetQ,
        DestroyVirtioQCounters,
        EventMode,
        ModifyVirtioNetQ,
        QueryVirtioNetQ,
        QueryVirtioQCounters,
        QueueType,
        State,
        VirtioNetQObject,
        VirtioQCounters, //
    },
    ObjectType, //
};

use crate::{
    channel::Channel,
    memory::{
        Buffer,
        BASE, //
    },
    objects::{
        Access,
        Match,
        Rule, //
    },
    Failure,
    Host, //
};

/// The logarithm of the pages of the memory key that covers a host's memory.
const LOG_KEY_PAGE: u8 = 21;

/// The vector of virtqueue 0; the others follow.
pub const FIRST_VECTOR: u16 = 1;

/// What a network device is made of.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Pairs of queues.
    pub pairs: u16,
    /// Entries of each ring, a power of two.
    pub size: u16,
    /// Whether the driver is a modern one.
    pub version_1: bool,
    /// The queue features, bits as in [`virtio_feature`].
    pub features: u16,
    /// The bytes of each buffer.
    pub buffer: u64,
    /// How many descriptors an indirect table has; 0 for none.
    pub table: u16,
    /// Whether the driver is told of used buffers through a [`Channel`], instead of by a vector of
    /// the queue itself.
    pub channels: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pairs: 1,
            size: 256,
            version_1: true,
            features: (1 << virtio_feature::CSUM) | (1 << virtio_feature::GUEST_CSUM),
            buffer: 2048,
            table: 0,
            channels: false,
        }
    }
}

impl Options {
    /// The bytes of a header (virtio 1.3, 5.1.6.1).
    pub fn header(&self) -> usize {
        if self.version_1 || (self.features >> virtio_feature::MRG_RXBUF) & 1 != 0 {
            12
        } else {
            10
        }
    }
}

/// What stands before a frame in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 1: a checksum is to be filled in; 2: checksums were found right.
    pub flags: u8,
    /// 0: one frame; 1 and 4: TCP over IPv4 and IPv6 to be cut into segments.
    pub gso_type: u8,
    /// The bytes of all headers.
    pub hdr_len: u16,
    /// The bytes of payload in a segment.
    pub gso_size: u16,
    /// Where the checksummed part begins.
    pub csum_start: u16,
    /// Where in it the checksum is.
    pub csum_offset: u16,
    /// How many buffers a received frame is in.
    pub num_buffers: u16,
}

impl Header {
    /// As it stands in memory, cut to the length that was negotiated.
    fn bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.gso_type];
        for field in [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn parse(bytes: &[u8]) -> Self {
        let field = |at: usize| match bytes.get(at..at + 2) {
            Some(pair) => u16::from_le_bytes([pair[0], pair[1]]),
            None => 0,
        };
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: field(2),
            gso_size: field(4),
            csum_start: field(6),
            csum_offset: field(8),
            num_buffers: field(10),
        }
    }
}

/// A virtqueue object and its ring.
pub struct Virtq {
    /// The number of the object.
    pub id: u32,
    /// Its place among the queues of the device.
    pub index: u16,
    /// Its counters' number; 0 if the firmware has none.
    pub counters: u32,
    /// The driver's side of the ring.
    pub ring: Ring,
    /// The buffers.
    pub data: Buffer,
    /// Buffers the ring has not.
    idle: Vec<u64>,
    umems: Vec<(u32, Buffer)>,
    channel: Option<Channel>,
    _memory: Buffer,
}

impl Virtq {
    /// The vector it interrupts by.
    pub fn vector(&self) -> u16 {
        FIRST_VECTOR + self.index
    }
}

/// A network device.
pub struct Net {
    /// What it is made of.
    pub options: Options,
    /// The queues: receive and transmit in turn.
    pub queues: Vec<Virtq>,
    /// The protection domain.
    pub pd: u32,
    /// The transport domain.
    pub transport_domain: u32,
    /// The memory key of the queues.
    pub mkey: u32,
    /// The transmit interface.
    pub tisn: u32,
    /// The table of receive queues.
    pub rqtn: u32,
    /// The receive interface.
    pub tirn: u32,
    rules: Vec<Rule>,
    region: Region,
}

impl Net {
    /// Makes a device whose queues are not started, and steers what is for `mac` and to groups to
    /// it.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn new(host: &mut Host, options: Options, mac: [u8; 6]) -> Result<Self, Failure> {
        let mut net = Self::without_rules(host, options)?;
        net.steer(
            host,
            Match {
                dmac: Some(([0xff; 6], mac)),
                vlan: None,
            },
        )?;
        net.steer(
            host,
            Match {
                dmac: Some(([1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0])),
                vlan: None,
            },
        )?;
        Ok(net)
    }

    /// Makes a device whose queues are not started, and to which nothing is steered.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn without_rules(host: &mut Host, options: Options) -> Result<Self, Failure> {
        let region = host.memory.region().clone();
        let pd = host.call::<AllocPd>(|_| {})?.pd();
        let transport_domain = host
            .call::<AllocTransportDomain>(|_| {})?
            .transport_domain();
        let tisn = host
            .call::<CreateTis>(|input| {
                input.ctx_mut().set_transport_domain(transport_domain);
            })?
            .tisn();
        let len = region.len() as u64;
        let pages: Vec<u64> = (BASE..BASE + len).step_by(1 << LOG_KEY_PAGE).collect();
        let mkey = host.create_mtt_mkey(pd, Access::Write, (BASE, len), LOG_KEY_PAGE, &pages)?;
        let mut net = Self {
            options,
            queues: Vec::new(),
            pd,
            transport_domain,
            mkey,
            tisn,
            rqtn: 0,
            tirn: 0,
            rules: Vec::new(),
            region,
        };
        for index in 0..2 * options.pairs {
            let queue = net.create_queue(host, index)?;
            net.queues.push(queue);
        }
        let receivers: Vec<u32> = net.queues.iter().step_by(2).map(|queue| queue.id).collect();
        net.rqtn = host.create_rqt(options.pairs.next_power_of_two(), &receivers)?;
        net.tirn = host.create_tir(transport_domain, net.rqtn)?;
        Ok(net)
    }

    /// Memory for a ring and its buffers.
    fn ring(&self, host: &Host, start: Option<u16>) -> (Ring, Buffer, Buffer) {
        let options = RingOptions {
            table_entries: self.options.table,
            start,
            ..RingOptions::default()
        };
        let layout = driver::Layout::new(0, self.options.size, &options);
        let memory = host.memory.alloc(layout.end);
        let data = host
            .memory
            .alloc(u64::from(self.options.size) * self.options.buffer);
        let ring = Ring::new(&self.region, memory.addr(), self.options.size, options);
        (ring, memory, data)
    }

    fn create_queue(&self, host: &mut Host, index: u16) -> Result<Virtq, Failure> {
        let (ring, memory, data) = self.ring(host, None);
        // Without them in the firmware, a queue counts for nobody.
        let counters = match host.has_object(ObjectType::VIRTIO_Q_COUNTERS)? {
            true => host.call::<CreateVirtioQCounters>(|_| {})?.obj_id(),
            false => 0,
        };
        let mut umems = Vec::new();
        for size in host.umem_sizes(self.options.size)? {
            let buffer = host.memory.alloc(size.into());
            umems.push((host.create_umem(&buffer)?, buffer));
        }
        let options = self.options;
        let channel = match options.channels {
            true => Some(host.create_channel(self.pd, FIRST_VECTOR + index)?),
            false => None,
        };
        let count = u64::from(self.options.size);
        let idle = (0..count)
            .map(|n| data.addr() + n * options.buffer)
            .collect();
        let mut queue = Virtq {
            id: 0,
            index,
            counters,
            ring,
            data,
            idle,
            umems,
            channel,
            _memory: memory,
        };
        queue.id = self.create_object(host, &queue, 0)?;
        Ok(queue)
    }

    /// Makes the object of a virtqueue whose ring continues at `start`.
    fn create_object(&self, host: &mut Host, queue: &Virtq, start: u16) -> Result<u32, Failure> {
        let (mode, told) = match &queue.channel {
            Some(channel) => (EventMode::QP_MODE, channel.firmware_qpn()),
            None => (EventMode::MSIX_MODE, queue.vector().into()),
        };
        let layout = queue.ring.layout();
        let umem = |n: usize| (queue.umems[n].0, queue.umems[n].1.bytes() as u32);
        let output = host.call::<CreateVirtioNetQ>(|input| {
            let object = input.obj_context_mut();
            object
                .set_queue_features(self.options.features)
                .set_hw_available_index(start)
                .set_hw_used_index(start);
            if queue.index % 2 == 1 {
                object.set_tisn_or_qpn(self.tisn);
            }
            object
                .virtio_q_context_mut()
                .set_virtio_q_type(QueueType::SPLIT)
                .set_event_mode(mode)
                .set_queue_index(queue.index)
                .set_virtio_version_1_0(self.options.version_1)
                .set_event_qpn_or_msix(told)
                .set_queue_size(self.options.size)
                .set_desc_addr(layout.desc)
                .set_available_addr(layout.driver)
                .set_used_addr(layout.device)
                .set_virtio_q_mkey(self.mkey)
                .set_umem_1_id(umem(0).0)
                .set_umem_1_size(umem(0).1)
                .set_umem_2_id(umem(1).0)
                .set_umem_2_size(umem(1).1)
                .set_umem_3_id(umem(2).0)
                .set_umem_3_size(umem(2).1)
                .set_counter_set_id(queue.counters)
                .set_pd(self.pd);
        })?;
        Ok(output.obj_id())
    }

    /// Puts another object in the place of a transmit queue's, whose ring continues at `start`.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn replace(&mut self, host: &mut Host, index: usize, start: u16) -> Result<(), Failure> {
        let id = self.queues[index].id;
        host.call::<DestroyVirtioNetQ>(|input| {
            input.set_obj_id(id);
        })?;
        self.queues[index].id = self.create_object(host, &self.queues[index], start)?;
        Ok(())
    }

    /// Steers what matches to the device.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn steer(&mut self, host: &mut Host, what: Match) -> Result<(), Failure> {
        let table = host.root_table();
        let rule = host.add_rule(table, self.rules.len() as u32, what, self.tirn)?;
        self.rules.push(rule);
        Ok(())
    }

    /// Changes fields of a virtqueue: those `select` names, as `fill` says.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn modify(
        &self,
        host: &mut Host,
        index: usize,
        select: u64,
        fill: impl FnOnce(&mut VirtioNetQObject),
    ) -> Result<(), Failure> {
        let id = self.queues[index].id;
        host.call::<ModifyVirtioNetQ>(|input| {
            input.general_obj_in_cmd_hdr_mut().set_obj_id(id);
            let object = input.obj_context_mut();
            object.set_modify_field_select(select);
            fill(object);
        })
        .map(drop)
    }

    /// Sets the state of a virtqueue.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn set_state(&self, host: &mut Host, index: usize, state: State) -> Result<(), Failure> {
        self.modify(host, index, prm::virtq::modify::STATE, |object| {
            object.set_state(state);
        })
    }

    /// Starts every virtqueue, and gives the receive queues their buffers.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn start(&mut self, host: &mut Host) -> Result<(), Failure> {
        for index in 0..self.queues.len() {
            self.set_state(host, index, State::RDY)?;
        }
        for index in (0..self.queues.len()).step_by(2) {
            self.fill(host, index);
        }
        Ok(())
    }

    /// Reads what the firmware says of a virtqueue.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn query(&self, host: &mut Host, index: usize) -> Result<VirtioNetQObject, Failure> {
        let id = self.queues[index].id;
        let output = host.call::<QueryVirtioNetQ>(|input| {
            input.set_obj_id(id);
        })?;
        Ok(output.obj_context().clone())
    }

    /// Reads the counters of a virtqueue.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn counters(&self, host: &mut Host, index: usize) -> Result<VirtioQCounters, Failure> {
        let id = self.queues[index].counters;
        let output = host.call::<QueryVirtioQCounters>(|input| {
            input.set_obj_id(id);
        })?;
        Ok(output.counters().clone())
    }

    /// Gives a receive queue every buffer it has not.
    pub fn fill(&mut self, host: &Host, index: usize) {
        let len = self.options.buffer as u32;
        let queue = &mut self.queues[index];
        while let Some(addr) = queue.idle.pop() {
            let piece = driver::Buffer { addr, len };
            if queue.ring.add(&[], &[piece], Shape::Direct, addr).is_err() {
                queue.idle.push(addr);
                break;
            }
        }
        if queue.ring.publish() {
            host.kick(queue.index);
        }
    }

    /// Puts a frame into a transmit queue, cut into pieces of up to `piece` bytes behind the
    /// header; it is sent with the next [`Net::publish`]. Returns whether there was room.
    pub fn put(
        &mut self,
        index: usize,
        header: &Header,
        frame: &[u8],
        piece: usize,
        shape: Shape,
    ) -> bool {
        let len = self.options.header();
        let queue = &mut self.queues[index];
        let Some(addr) = queue.idle.pop() else {
            return false;
        };
        self.region.write(addr, &header.bytes(len));
        self.region.write(addr + len as u64, frame);
        let mut pieces = vec![driver::Buffer {
            addr,
            len: len as u32,
        }];
        let mut at = addr + len as u64;
        for part in frame.chunks(piece) {
            let len = part.len() as u32;
            pieces.push(driver::Buffer { addr: at, len });
            at += u64::from(len);
        }
        if queue.ring.add(&pieces, &[], shape, addr).is_err() {
            queue.idle.push(addr);
            return false;
        }
        true
    }

    /// Writes a frame and its header into every buffer of a queue, and returns the bytes of both.
    pub fn write_all(&self, index: usize, header: &Header, frame: &[u8]) -> u32 {
        let mut bytes = header.bytes(self.options.header());
        bytes.extend_from_slice(frame);
        for n in 0..u64::from(self.options.size) {
            let data = &self.queues[index].data;
            data.set(n * self.options.buffer, &bytes);
        }
        bytes.len() as u32
    }

    /// Shows the device what was put into a queue.
    pub fn publish(&mut self, host: &Host, index: usize) {
        let queue = &mut self.queues[index];
        if queue.ring.publish() {
            host.kick(queue.index);
        }
    }

    /// Sends a frame.
    ///
    /// # Panics
    ///
    /// If there is no room.
    pub fn send(&mut self, host: &Host, index: usize, header: &Header, frame: &[u8]) {
        let room = self.put(index, header, frame, frame.len().max(1), Shape::Direct);
        assert!(room, "the transmit ring is full");
        self.publish(host, index);
    }

    /// Takes back what the device has sent. Returns how many frames.
    ///
    /// # Panics
    ///
    /// If the device broke the ring.
    pub fn reap(&mut self, index: usize) -> usize {
        let queue = &mut self.queues[index];
        let mut count = 0;
        while let Some(used) = queue.ring.used().expect("the device keeps the rules") {
            queue.idle.push(used.token);
            count += 1;
        }
        count
    }

    /// Waits for a buffer that the device used in a queue.
    ///
    /// # Panics
    ///
    /// If the device broke the ring, or no interrupt comes for a used buffer.
    pub fn wait_used(&mut self, host: &mut Host, index: usize) -> Option<Used> {
        let queue = &mut self.queues[index];
        let vector = queue.vector();
        loop {
            let seen = host.vectors.count(vector);
            if let Some(channel) = &mut queue.channel {
                host.acknowledge(channel);
            }
            if let Some(used) = queue.ring.used().expect("the device keeps the rules") {
                return Some(used);
            }
            if queue.ring.enable_interrupts(1) {
                continue;
            }
            if host.vectors.wait(vector, seen).is_none() {
                let late = queue.ring.used().expect("the device keeps the rules");
                assert_eq!(late, None, "a used buffer without an interrupt");
                return None;
            }
        }
    }

    /// Keeps a buffer that the device used, to be used again.
    pub fn give_back(&mut self, index: usize, used: &Used) {
        self.queues[index].idle.push(used.token);
    }

    fn bytes_of(&self, used: &Used) -> Vec<u8> {
        let len = used.written.expect("the device writes every used entry");
        self.region.get(used.token, len as usize)
    }

    /// Receives a frame: waits for it, puts its buffers together and gives them back.
    ///
    /// # Panics
    ///
    /// If the device broke the ring, or what it wrote is no frame.
    pub fn receive(&mut self, host: &mut Host, index: usize) -> Option<(Header, Vec<u8>)> {
        let first = self.wait_used(host, index)?;
        let mut bytes = self.bytes_of(&first);
        self.queues[index].idle.push(first.token);
        let len = self.options.header();
        assert!(bytes.len() > len, "{} bytes are no frame", bytes.len());
        let header = Header::parse(&bytes[..len]);
        let buffers = match len {
            10 => 1,
            _ => header.num_buffers,
        };
        for _ in 1..buffers {
            let next = self.wait_used(host, index)?;
            bytes.extend(self.bytes_of(&next));
            self.queues[index].idle.push(next.token);
        }
        self.fill(host, index);
        bytes.drain(..len);
        Some((header, bytes))
    }

    /// Takes every object away.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn destroy(mut self, host: &mut Host) -> Result<(), Failure> {
        for rule in self.rules.drain(..) {
            host.remove_rule(rule)?;
        }
        host.call::<DestroyTir>(|input| {
            input.set_tirn(self.tirn);
        })?;
        host.call::<DestroyRqt>(|input| {
            input.set_rqtn(self.rqtn);
        })?;
        for queue in self.queues.drain(..) {
            host.call::<DestroyVirtioNetQ>(|input| {
                input.set_obj_id(queue.id);
            })?;
            if let Some(channel) = queue.channel {
                host.destroy_channel(channel)?;
            }
            for (umem, _) in &queue.umems {
                host.destroy_umem(*umem)?;
            }
            if queue.counters != 0 {
                host.call::<DestroyVirtioQCounters>(|input| {
                    input.set_obj_id(queue.counters);
                })?;
            }
        }
        host.destroy_mkey(self.mkey)?;
        host.call::<DestroyTis>(|input| {
            input.set_tisn(self.tisn);
        })?;
        host.call::<DeallocTransportDomain>(|input| {
            input.set_transport_domain(self.transport_domain);
        })?;
        host.call::<DeallocPd>(|input| {
            input.set_pd(self.pd);
        })
        .map(drop)
    }
}
