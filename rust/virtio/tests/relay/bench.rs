// SPDX-License-Identifier: GPL-2.0
//! A guest's ring, a shadow, a relay between them and hardware behind it.
//!
//! Each of them acts only when it was called, as in life: the relay when the guest kicks or the
//! hardware interrupts, the hardware when the relay kicks, the guest when it is interrupted. Nothing
//! is looked at just in case.

use driver::{
    Buffer,
    Endian,
    Region,
    Ring,
    Shape, //
};
use virtio::{
    byte_order::ByteOrder,
    memory::{
        Fault,
        Memory, //
    },
    net::{
        header::Header,
        relay::{
            Config,
            Direction,
            Entry,
            Layout,
            Relay,
            RelayError,
            Stopped,
            Storage, //
        },
    },
    ring::{
        self,
        Chain,
        Options,
        Queue,
        Segment,
        Slot,
        State, //
    },
};

/// Where the guest's ring lies.
pub(crate) const RING: u64 = 0x10000;
/// Where the guest's buffers lie.
pub(crate) const DATA: u64 = 0x20000;
/// The bytes of them.
pub(crate) const DATA_LEN: u64 = 0x60000;
/// Where the shadow lies, for the hardware.
pub(crate) const SHADOW: u64 = 0x7000_0000;

/// One region, as somebody may access it.
pub(crate) struct View<'a>(pub(crate) &'a [&'a Region]);

impl View<'_> {
    fn find(&self, addr: u64, len: usize) -> Option<&Region> {
        let mut regions = self.0.iter().copied();
        regions.find(|region| region.contains(addr, len as u64))
    }
}

impl Memory for View<'_> {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        let region = self.find(addr, to.len()).ok_or(Fault::read(addr))?;
        region.read(addr, to);
        Ok(())
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        let region = self.find(addr, from.len()).ok_or(Fault::write(addr))?;
        region.write(addr, from);
        Ok(())
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        let region = self.find(addr, 2).filter(|_| addr % 2 == 0);
        Ok(region.ok_or(Fault::read(addr))?.load_u16(addr))
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        let region = self.find(addr, 2).filter(|_| addr % 2 == 0);
        region.ok_or(Fault::write(addr))?.store_u16(addr, value);
        Ok(())
    }
}

/// What a queue is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shaped {
    pub(crate) direction: Direction,
    /// Entries of the guest's ring, and of the shadow.
    pub(crate) size: u16,
    pub(crate) shadow: u16,
    /// Bytes of a header.
    pub(crate) header: usize,
    pub(crate) event_index: bool,
    /// Entries of the guest's indirect tables; 0 for none.
    pub(crate) table_entries: u16,
    pub(crate) endian: Endian,
    /// Where the rings begin.
    pub(crate) start: u16,
}

impl Shaped {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            direction,
            size: 8,
            shadow: 16,
            header: 10,
            event_index: false,
            table_entries: 0,
            endian: Endian::Big,
            start: 0,
        }
    }

    pub(crate) fn order(&self) -> ByteOrder {
        match self.endian {
            Endian::Little => ByteOrder::Little,
            Endian::Big => ByteOrder::Big,
        }
    }
}

pub(crate) type Vectors = Relay<Vec<Slot>, Vec<Entry>, Vec<Segment>>;

/// Makes a relay for the guest's ring at `layout`.
pub(crate) fn relay(shaped: &Shaped, layout: &driver::Layout, index: u16) -> Vectors {
    let shadow = Layout::new(SHADOW, shaped.shadow).unwrap();
    let config = Config {
        guest: ring::Config {
            size: shaped.size,
            desc: layout.desc,
            driver: layout.driver,
            device: layout.device,
            byte_order: shaped.order(),
            options: Options {
                event_index: shaped.event_index,
                indirect: shaped.table_entries != 0,
                ..Options::default()
            },
        },
        direction: shaped.direction,
        header: shaped.header,
        shadow,
        order: ByteOrder::Little,
        event_index: shaped.event_index,
        window: SHADOW..SHADOW + Layout::bytes(shaped.shadow),
    };
    let storage = Storage {
        slots: vec![Slot::default(); shaped.size.into()],
        entries: vec![Entry::default(); shaped.shadow.into()],
        pieces: vec![Segment::default(); shaped.shadow.into()],
    };
    Relay::new(config, index, storage).unwrap()
}

/// What hardware takes for its own: a ring that it knows, in memory that it can reach.
pub(crate) fn hardware(shaped: &Shaped, index: u16) -> Queue<Vec<Slot>> {
    let layout = Layout::new(SHADOW, shaped.shadow).unwrap();
    let config = ring::Config {
        size: shaped.shadow,
        desc: layout.desc(),
        driver: layout.driver(),
        device: layout.device(),
        byte_order: ByteOrder::Little,
        options: Options {
            event_index: shaped.event_index,
            ..Options::default()
        },
    };
    let slots = vec![Slot::default(); shaped.shadow.into()];
    Queue::new(config, State::split(index), slots).unwrap()
}

/// A chain that the hardware has taken.
pub(crate) struct Taken {
    pub(crate) chain: Chain,
    pub(crate) segments: Vec<Segment>,
}

/// All of it.
pub(crate) struct Bench {
    pub(crate) shaped: Shaped,
    pub(crate) guest: Region,
    pub(crate) shadow: Region,
    pub(crate) ring: Ring,
    pub(crate) relay: Vectors,
    pub(crate) nic: Queue<Vec<Slot>>,
    /// What the hardware works on, oldest first.
    pub(crate) taken: Vec<Taken>,
    pub(crate) relay_called: bool,
    pub(crate) nic_called: bool,
    pub(crate) guest_called: bool,
}

impl Bench {
    pub(crate) fn new(shaped: Shaped) -> Self {
        let guest = Region::new(RING, (DATA + DATA_LEN - RING) as usize);
        let shadow = Region::new(SHADOW, Layout::bytes(shaped.shadow) as usize);
        // Whatever was there before.
        shadow.write(SHADOW, &vec![0xa5; shadow.len()]);
        let options = driver::Options {
            event_index: shaped.event_index,
            endian: shaped.endian,
            table_entries: shaped.table_entries,
            start: Some(shaped.start),
            ..Default::default()
        };
        let ring = Ring::new(&guest, RING, shaped.size, options);
        assert!(ring.layout().end <= DATA);
        let mut relay = relay(&shaped, &ring.layout(), shaped.start);
        relay.start(&View(&[&shadow])).unwrap();
        Self {
            nic: hardware(&shaped, shaped.start),
            shaped,
            guest,
            shadow,
            ring,
            relay,
            taken: Vec::new(),
            relay_called: true,
            nic_called: true,
            guest_called: false,
        }
    }

    /// The guest adds a buffer, and is done with it for now.
    pub(crate) fn add(&mut self, pieces: &[Buffer], shape: Shape, token: u64) -> bool {
        let (out, into): (&[Buffer], &[Buffer]) = match self.shaped.direction {
            Direction::Receive => (&[], pieces),
            Direction::Transmit => (pieces, &[]),
        };
        self.ring.add(out, into, shape, token).is_ok()
    }

    /// The guest shows what it added.
    pub(crate) fn publish(&mut self) {
        self.relay_called |= self.ring.publish();
    }

    /// The relay has a turn, if somebody called.
    pub(crate) fn turn(&mut self, budget: u16) -> Result<(), RelayError> {
        if !std::mem::take(&mut self.relay_called) {
            return Ok(());
        }
        let turn = self.relay.turn(
            &View(&[&self.guest]),
            &View(&[&self.shadow]),
            budget, //
        )?;
        self.nic_called |= turn.kick;
        self.guest_called |= turn.notify;
        self.relay_called |= turn.again;
        Ok(())
    }

    /// The hardware takes up to `count` chains, if it was called. If there are no more it wants to
    /// be called for the next.
    pub(crate) fn nic_take(&mut self, count: usize) {
        if !self.nic_called {
            return;
        }
        let mem = [&self.guest, &self.shadow];
        let mem = View(&mem);
        let mut segments = [Segment::default(); 256];
        for _ in 0..count {
            match self.nic.pop(&mem, &mut segments).unwrap() {
                Some(chain) => self.taken.push(Taken {
                    chain,
                    segments: segments[..chain.segments()].to_vec(),
                }),
                None => {
                    self.nic_called = self.nic.enable_kicks(&mem).unwrap();
                    return;
                }
            }
        }
    }

    /// The hardware has used the `at`th chain it has.
    pub(crate) fn nic_use(&mut self, at: usize, written: u32) {
        let mem = [&self.guest, &self.shadow];
        let Taken { chain, .. } = self.taken.remove(at);
        self.nic.complete(&View(&mem), chain, written).unwrap();
    }

    /// The hardware shows what it used.
    pub(crate) fn nic_publish(&mut self) {
        let mem = [&self.guest, &self.shadow];
        let mem = View(&mem);
        self.nic.publish(&mem).unwrap();
        self.relay_called |= self.nic.should_notify(&mem).unwrap();
    }

    /// What the hardware reads.
    pub(crate) fn nic_bytes(&self, segments: &[Segment]) -> Vec<u8> {
        let mem = [&self.guest, &self.shadow];
        let mem = View(&mem);
        let mut bytes = Vec::new();
        for segment in segments {
            assert!(!segment.writable);
            let start = bytes.len();
            bytes.resize(start + segment.len as usize, 0);
            mem.read(segment.addr, &mut bytes[start..]).unwrap();
        }
        bytes
    }

    /// What the hardware writes to a chain.
    pub(crate) fn nic_write(&self, segments: &[Segment], mut bytes: &[u8]) {
        let mem = [&self.guest, &self.shadow];
        let mem = View(&mem);
        for segment in segments {
            assert!(segment.writable);
            let (now, then) = bytes.split_at(bytes.len().min(segment.len as usize));
            mem.write(segment.addr, now).unwrap();
            bytes = then;
        }
        assert!(bytes.is_empty());
    }

    /// The hardware stops, and the relay. The hardware uses none of what it works on.
    pub(crate) fn stop(&mut self) -> Result<Stopped, RelayError> {
        self.nic_publish();
        self.taken.clear();
        self.nic.rewind().unwrap();
        let State::Split { avail, used } = self.nic.state() else {
            unreachable!()
        };
        assert_eq!(avail, used);
        let stopped = self
            .relay
            .stop(&View(&[&self.guest]), &View(&[&self.shadow]))?;
        assert_eq!(stopped.index, used, "the rings have one index");
        assert_eq!(self.relay.index(), used);
        assert_eq!(self.relay.in_flight(), 0);
        self.guest_called |= stopped.notify;
        (self.relay_called, self.nic_called) = (false, false);
        Ok(stopped)
    }

    /// The hardware goes on behind [`Self::stop`], and with `anew` everything but the guest.
    pub(crate) fn go_on(&mut self, index: u16, anew: bool) {
        if anew {
            self.shadow.write(SHADOW, &vec![0x5a; self.shadow.len()]);
            self.relay = relay(&self.shaped, &self.ring.layout(), index);
            self.relay.start(&View(&[&self.shadow])).unwrap();
        }
        self.nic = hardware(&self.shaped, index);
        (self.relay_called, self.nic_called) = (true, true);
    }

    /// The header in the guest's order.
    pub(crate) fn guest_header(&self, header: &Header) -> Vec<u8> {
        header.to_bytes(self.shaped.order())[..self.shaped.header].to_vec()
    }

    /// The header as the hardware has it.
    pub(crate) fn nic_header(&self, header: &Header) -> Vec<u8> {
        header.to_bytes(ByteOrder::Little)[..self.shaped.header].to_vec()
    }
}
