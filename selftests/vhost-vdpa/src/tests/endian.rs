// SPDX-License-Identifier: GPL-2.0
//! Drivers of guests of either byte order: rings, headers, configuration and
//! control commands.

use driver::{Endian, Shape};

use super::{mac, Context, Tests};
use crate::device::Device;
use crate::ktap::{ensure_eq, Outcome, Stop};
use crate::rig::{exchange, frame, tagged, Plan, Port, PATIENCE, TX};
use crate::uapi;

pub(super) const TESTS: Tests = &[
    ("byte order: legacy driver of a little-endian guest", little),
    ("byte order: legacy driver of a big-endian guest", big),
    (
        "byte order: modern driver where legacy ones are big-endian",
        modern,
    ),
    (
        "byte order: segments and checksums of every driver",
        segments,
    ),
    (
        "byte order: drivers of both, split and packed, in turn on one device",
        in_turn,
    ),
    (
        "byte order: RING_PACKED means nothing to a big-endian legacy driver",
        not_packed,
    ),
    (
        "byte order: a big-endian legacy driver is stopped and goes on",
        goes_on,
    ),
    (
        "byte order: a driver of the other one than was set",
        mismatch,
    ),
];

const BIG: Plan = Plan {
    endian: Endian::Big,
    ..Plan::LEGACY
};

/// Devices whose legacy drivers are taken to be of this byte order.
#[derive(Clone, Copy)]
struct Host<'a> {
    context: &'a Context,
    endian: Endian,
}

impl<'a> Host<'a> {
    fn new(context: &'a Context, endian: Endian) -> Result<Self, Stop> {
        context.require_switch()?;
        Ok(Host { context, endian })
    }

    fn device(&self, number: u8) -> Result<Device, Stop> {
        self.device_with(number, &[])
    }

    fn device_with(&self, number: u8, more: &[&str]) -> Result<Device, Stop> {
        let mut device = self.context.device_with(number, more)?;
        if self.endian == Endian::Big {
            make(&mut device, Endian::Big)?;
        }
        Ok(device)
    }
}

/// Has legacy drivers of a device be taken to be of this byte order.
fn make(device: &mut Device, endian: Endian) -> Outcome {
    let word = match endian {
        Endian::Little => "little",
        Endian::Big => "big",
    };
    match device.set_attribute("legacy_byte_order", word) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(Stop::Skip(
            "the device serves no drivers of big-endian guests".into(),
        )),
        result => Ok(result?),
    }
}

fn little(context: &Context) -> Outcome {
    everything(Host::new(context, Endian::Little)?, Plan::LEGACY)
}

fn big(context: &Context) -> Outcome {
    let host = Host::new(context, Endian::Big)?;
    everything(host, BIG)?;
    // And with each other.
    let (a, b) = (host.device(0)?, host.device(1)?);
    let (mut a, mut b) = (Port::start(&a, BIG)?, Port::start(&b, BIG)?);
    exchange(&mut a, &mut b, 50)?;
    exchange(&mut b, &mut a, 50)
}

fn modern(context: &Context) -> Outcome {
    everything(Host::new(context, Endian::Big)?, Plan::MODERN)
}

/// What a device in software does: it leaves a segment as it is to who takes it so. A NIC cuts it.
fn segments(context: &Context) -> Outcome {
    offloads(Host::new(context, Endian::Little)?, Plan::LEGACY)?;
    offloads(Host::new(context, Endian::Big)?, BIG)?;
    offloads(Host::new(context, Endian::Big)?, Plan::MODERN)
}

const PACKED: Plan = Plan {
    features: uapi::F_RING_PACKED,
    ..Plan::MODERN
};

/// One device, with drivers of every kind one after the other: the attribute
/// says what a legacy one is, and nothing about a modern one.
fn in_turn(context: &Context) -> Outcome {
    let _host = Host::new(context, Endian::Little)?;
    let [mut a, b] = two(context)?;
    let mut b = Port::start(&b, Plan::MODERN)?;
    for (endian, plan) in [
        (Endian::Big, BIG),
        (Endian::Big, PACKED),
        (Endian::Big, Plan::MODERN),
        (Endian::Little, Plan::LEGACY),
        (Endian::Little, PACKED),
        (Endian::Big, BIG),
        (Endian::Little, Plan::MODERN),
    ] {
        make(&mut a, endian)?;
        let mut a = Port::start(&a, plan)?;
        let status = a.vhost.config(6, 2)?;
        ensure_eq!(status, plan.bytes(1).to_vec());
        exchange(&mut a, &mut b, 10)?;
        exchange(&mut b, &mut a, 10)?;
    }
    Ok(())
}

/// Two devices that can have packed rings.
fn two(context: &Context) -> Result<[Device; 2], Stop> {
    let devices = context.provisioned(uapi::F_RING_PACKED, 2)?;
    devices
        .try_into()
        .map_err(|_| Stop::Fail("there are not two devices".into()))
}

/// Bits above 31 mean nothing of a legacy driver, RING_PACKED among them.
fn not_packed(context: &Context) -> Outcome {
    let _host = Host::new(context, Endian::Big)?;
    let [mut a, b] = two(context)?;
    make(&mut a, Endian::Big)?;
    let mut b = Port::start(&b, Plan::MODERN)?;
    let mut a = Port::prepare(&a, BIG)?;
    a.vhost.set_features(a.features | uapi::F_RING_PACKED)?;
    a.run()?;
    exchange(&mut a, &mut b, 20)?;
    exchange(&mut b, &mut a, 20)
}

/// Stopped, resumed, and started anew where it was.
fn goes_on(context: &Context) -> Outcome {
    let host = Host::new(context, Endian::Big)?;
    let (a, b) = (host.device(0)?, host.device(1)?);
    let (mut a, mut b) = (Port::start(&a, BIG)?, Port::start(&b, Plan::MODERN)?);
    exchange(&mut a, &mut b, 30)?;
    a.vhost.plain(uapi::SUSPEND)?;
    // The index is a number, whatever the order of the ring.
    ensure_eq!(a.base(TX)?, 30);
    // What waits meanwhile is seen at once.
    let waiting = frame(mac(1), mac(0), 200, 1);
    a.send(&waiting)?;
    a.vhost.plain(uapi::RESUME)?;
    b.expect(&waiting)?;
    a.drain()?;
    exchange(&mut b, &mut a, 30)?;
    // A reset leaves the byte order as it was set.
    a.restart(Some(0x7fff))?;
    exchange(&mut a, &mut b, 30)?;
    exchange(&mut b, &mut a, 30)?;
    ensure_eq!(a.base(TX)?, 0x7fff + 30);
    Ok(())
}

/// A driver whose byte order is not what the device was told cannot be served,
/// and does no harm.
fn mismatch(context: &Context) -> Outcome {
    let host = Host::new(context, Endian::Big)?;
    let (a, b) = (host.device(0)?, host.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    {
        let mut a = Port::prepare(&a, Plan::LEGACY)?;
        a.run()?;
        a.send(&frame(mac(1), mac(0), 200, 1))?;
        b.expect_nothing()?;
    }
    let mut a = Port::start(&a, BIG)?;
    exchange(&mut a, &mut b, 20)?;
    exchange(&mut b, &mut a, 20)
}

/// All that has a byte order, for a driver of this kind.
fn everything(host: Host<'_>, plan: Plan) -> Outcome {
    rings(host, plan)?;
    configuration(host, plan)?;
    commands(host, plan)
}

fn rings(host: Host<'_>, plan: Plan) -> Outcome {
    let (a, b) = (host.device(0)?, host.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    let merged = Plan {
        features: uapi::NET_F_MRG_RXBUF,
        receive: 300,
        ..plan
    };
    let indirect = Plan {
        features: uapi::F_EVENT_IDX | uapi::F_INDIRECT_DESC,
        shape: Shape::Indirect,
        pieces: 3,
        ..plan
    };
    // Not all hardware knows that.
    let offered = a.open()?.features()?;
    let more = (indirect.features & !offered == 0).then_some(indirect);
    for plan in [plan, merged].into_iter().chain(more) {
        let mut a = Port::start(&a, plan)?;
        exchange(&mut a, &mut b, 100)?;
        exchange(&mut b, &mut a, 100)?;
        // Where the ring stands is a number, whose order nobody sees.
        ensure_eq!(a.base(TX)?, 100);
    }
    Ok(())
}

fn configuration(host: Host<'_>, plan: Plan) -> Outcome {
    let device = host.device_with(0, &["mtu", "1400", "max_vqp", "2"])?;
    let plan = Plan {
        features: uapi::NET_F_CTRL_VQ | uapi::NET_F_MQ | uapi::NET_F_MTU,
        ..plan
    };
    let mut port = Port::start(&device, plan)?;
    ensure_eq!(port.queues.len(), 5);
    ensure_eq!(port.vhost.config(0, 6)?, mac(0).to_vec());
    let fields = [(6, 1), (8, 2), (10, 1400)];
    for (offset, value) in fields {
        let bytes = plan.bytes(value);
        ensure_eq!(port.vhost.config(offset, 2)?, bytes.to_vec());
        for (at, byte) in (offset..).zip(bytes) {
            ensure_eq!(port.vhost.config(at, 1)?, vec![byte]);
        }
    }
    // As many pairs as there are, one more, and one in the wrong order.
    ensure_eq!(port.control(4, 0, &[&plan.bytes(2)])?, 0);
    ensure_eq!(port.control(4, 0, &[&plan.bytes(3)])?, 1);
    ensure_eq!(port.control(4, 0, &[&plan.bytes(0x0100)])?, 1);
    ensure_eq!(port.control(4, 0, &[&plan.bytes(1)])?, 0);
    Ok(())
}

fn commands(host: Host<'_>, plan: Plan) -> Outcome {
    let (a, b) = (host.device(0)?, host.device(1)?);
    let plan = Plan {
        features: uapi::NET_F_CTRL_VLAN | uapi::NET_F_CTRL_RX | uapi::NET_F_CTRL_MAC_ADDR,
        ..plan
    };
    let (mut a, mut b) = (Port::start(&a, plan)?, Port::start(&b, Plan::MODERN)?);
    a.filter()?;
    // VLAN 100 is 25600 in the other order, which is none.
    ensure_eq!(a.control(2, 0, &[&plan.bytes(100)])?, 0);
    ensure_eq!(a.control(2, 0, &[&plan.bytes(25600)])?, 1);
    let plain = frame(mac(0), mac(1), 200, 1);
    b.send(&tagged(&plain, 100))?;
    a.expect(&tagged(&plain, 100))?;
    b.send(&tagged(&plain, 101))?;
    a.expect_nothing()?;
    // One address, and none.
    let address = [0x02, 0, 0, 0, 0, 0x77];
    let count = |entries: u8| match plan.endian {
        Endian::Little => [entries, 0, 0, 0],
        Endian::Big => [0, 0, 0, entries],
    };
    let one = [&count(1)[..], &address].concat();
    ensure_eq!(a.control(1, 0, &[&one, &count(0)])?, 0);
    let stranger = frame(address, mac(1), 200, 2);
    b.send(&stranger)?;
    a.expect(&stranger)?;
    Ok(())
}

/// Lengths of the headers of a TCP segment, and where its checksum is.
const ETHERNET: usize = 14;
const HEADERS: usize = ETHERNET + 20 + 20;
const CHECKSUM: usize = 16;
/// Payload of the pieces that it is to be cut into.
const PIECE: usize = 500;

/// A TCP segment whose checksum is left to do and which is to be cut.
fn tcp(to: [u8; 6], from: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let length = 40 + payload.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let header = fold(&ip);
    ip[10..12].copy_from_slice(&(!header).to_be_bytes());
    // The pseudo header's sum is what a driver leaves in the checksum.
    let mut pseudo = ip[12..20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend((length - 20).to_be_bytes());
    let mut tcp = vec![
        0x13, 0x88, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 0,
    ];
    tcp.extend(fold(&pseudo).to_be_bytes());
    tcp.extend([0, 0]);
    [&to[..], &from, &[0x08, 0x00], &ip, &tcp, payload].concat()
}

/// The ones' complement sum.
fn fold(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| (u32::from(word[0]) << 8) | u32::from(*word.get(1).unwrap_or(&0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The header of such a segment, as the driver of `port` has it.
fn offload(port: &Port, buffers: u16) -> Vec<u8> {
    let plan = port.plan;
    // Flags: the checksum is to be done. Type: TCP over IPv4.
    let mut bytes = vec![1, 1];
    for field in [HEADERS, PIECE, ETHERNET + 20, CHECKSUM] {
        bytes.extend(plan.bytes(field as u16));
    }
    bytes.extend(plan.bytes(buffers));
    bytes.truncate(port.header());
    bytes
}

fn offloads(host: Host<'_>, plan: Plan) -> Outcome {
    let (a, b) = (host.device(0)?, host.device(1)?);
    let features =
        uapi::NET_F_CSUM | uapi::NET_F_GUEST_CSUM | uapi::NET_F_HOST_TSO4 | uapi::NET_F_GUEST_TSO4;
    let offloading = Plan { features, ..plan };
    let modern = Plan {
        features,
        ..Plan::MODERN
    };
    let payload: Vec<u8> = (0..1300u32).map(|n| ((n * 7) >> 3) as u8).collect();
    {
        let (mut a, mut b) = (Port::start(&a, offloading)?, Port::start(&b, modern)?);
        passes(&mut a, &mut b, &tcp(mac(1), mac(0), &payload))?;
        passes(&mut b, &mut a, &tcp(mac(0), mac(1), &payload))?;
    }
    {
        let (mut a, mut b) = (Port::start(&a, offloading)?, Port::start(&b, Plan::MODERN)?);
        is_cut(&mut a, &mut b, &tcp(mac(1), mac(0), &payload))?;
    }
    let (mut a, mut b) = (Port::start(&a, plan)?, Port::start(&b, modern)?);
    is_cut(&mut b, &mut a, &tcp(mac(0), mac(1), &payload))
}

/// Sends a segment to a driver that takes it as it is.
fn passes(from: &mut Port, to: &mut Port, segment: &[u8]) -> Outcome {
    from.send_with(&offload(from, 0), segment)?;
    let Some(got) = to.receive_raw(PATIENCE)? else {
        return Err(Stop::Fail("a segment did not arrive".into()));
    };
    let (header, frame) = got.split_at(to.header());
    ensure_eq!(header, &offload(to, 1)[..]);
    ensure_eq!(frame, segment);
    from.drain()
}

/// Sends a segment to a driver that has it cut and its checksum done.
fn is_cut(from: &mut Port, to: &mut Port, segment: &[u8]) -> Outcome {
    from.send_with(&offload(from, 0), segment)?;
    for (at, piece) in segment[HEADERS..].chunks(PIECE).enumerate() {
        let Some(got) = to.receive_raw(PATIENCE)? else {
            return Err(Stop::Fail(format!("piece {at} did not arrive")));
        };
        let (header, frame) = got.split_at(to.header());
        ensure_eq!(header[..10], [0; 10]);
        ensure_eq!(frame[HEADERS..], *piece);
        let sequence = (at * PIECE) as u32;
        ensure_eq!(frame[ETHERNET + 24..ETHERNET + 28], sequence.to_be_bytes());
        // Sums over what they cover, the checksum included, are all ones.
        ensure_eq!(fold(&frame[ETHERNET..ETHERNET + 20]), 0xffff);
        let length = (frame.len() - ETHERNET - 20) as u16;
        let mut covered = frame[ETHERNET + 12..].to_vec();
        covered.extend([0, 0][..covered.len() % 2].iter());
        covered.extend([0, 6]);
        covered.extend(length.to_be_bytes());
        ensure_eq!(fold(&covered), 0xffff);
    }
    from.drain()
}
