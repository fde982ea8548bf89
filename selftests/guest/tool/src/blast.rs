// SPDX-License-Identifier: GPL-2.0
//! Frames as fast as an interface takes them, for benchmarks.
//!
//! A packet socket with virtio-net headers gives the driver frames as they
//! are, without a network stack above: UDP up to what fits on the wire, and
//! above that one large TCP frame with a segment size, as the stack hands it
//! to a card that segments.

use std::ffi::CString;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of `struct virtio_net_hdr`, which a packet socket takes.
const NET_HEADER: usize = 10;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of the longest frame that is sent as it is.
const WIRE: usize = 1514;
/// Payload bytes of each segment of a larger one.
const SEGMENT: u16 = 1448;
/// Frames given to the kernel by one system call.
const BATCH: usize = 32;

/// What to send.
pub(crate) struct Job {
    device: String,
    to: [u8; 6],
    size: usize,
    seconds: u64,
    threads: usize,
}

impl Job {
    /// Reads the arguments of `blast`.
    pub(crate) fn parse(words: &[&str]) -> Option<Job> {
        let [device, to, size, seconds, threads] = words else {
            return None;
        };
        let mut mac = [0; 6];
        let mut bytes = to.split(':');
        for byte in &mut mac {
            *byte = u8::from_str_radix(bytes.next()?, 16).ok()?;
        }
        let job = Job {
            device: (*device).to_owned(),
            to: mac,
            size: size.parse().ok()?,
            seconds: seconds.parse().ok()?,
            threads: threads.parse().ok()?,
        };
        // An Ethernet frame at least, and one that IPv4 can describe.
        ((60..=65_535 + ETHERNET).contains(&job.size) && bytes.next().is_none()).then_some(job)
    }
}

/// Sends for as long as the job says; prints frames and seconds.
pub(crate) fn run(job: &Job) -> io::Result<()> {
    let start = Instant::now();
    let end = start + Duration::from_secs(job.seconds);
    let sent: io::Result<Vec<u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..job.threads)
            .map(|flow| scope.spawn(move || one_flow(job, flow, end)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::other("thread died")))
            })
            .collect()
    });
    let frames: u64 = sent?.iter().sum();
    println!("{frames} {:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

/// The address of the interface itself.
fn own_address(device: &str) -> io::Result<[u8; 6]> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/address"))?;
    let mut mac = [0; 6];
    for (byte, word) in mac.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(word, 16).map_err(Error::other)?;
    }
    Ok(mac)
}

/// The sum of big-endian 16-bit words, folded.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The virtio-net header and the frame behind it.
fn frame(job: &Job, from: [u8; 6], flow: usize) -> Vec<u8> {
    let large = job.size > WIRE;
    let mut frame = vec![0u8; NET_HEADER + job.size];
    let (header, packet) = frame.split_at_mut(NET_HEADER);
    packet[..6].copy_from_slice(&job.to);
    packet[6..12].copy_from_slice(&from);
    packet[12..14].copy_from_slice(&[0x08, 0x00]);

    let ip = &mut packet[ETHERNET..];
    let length = ip.len() as u16;
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[8] = 64;
    ip[9] = if large { 6 } else { 17 };
    ip[12..16].copy_from_slice(&[192, 0, 2, 1]);
    ip[16..20].copy_from_slice(&[192, 0, 2, 2]);
    let check = !sum(&ip[..20]);
    ip[10..12].copy_from_slice(&check.to_be_bytes());

    let port = (5000 + flow as u16).to_be_bytes();
    if large {
        // The checksum field holds that of the pseudo header.
        let mut pseudo = ip[12..20].to_vec();
        pseudo.extend([0, 6]);
        pseudo.extend((length - 20).to_be_bytes());
        let check = sum(&pseudo);
        let tcp = &mut ip[20..];
        tcp[..2].copy_from_slice(&port);
        tcp[2..4].copy_from_slice(&port);
        tcp[12] = 5 << 4;
        tcp[13] = 0x10;
        tcp[16..18].copy_from_slice(&check.to_be_bytes());
        header[0] = 1; // NEEDS_CSUM
        header[1] = 1; // GSO_TCPV4
        header[2..4].copy_from_slice(&(ETHERNET as u16 + 40).to_ne_bytes());
        header[4..6].copy_from_slice(&SEGMENT.to_ne_bytes());
        header[6..8].copy_from_slice(&(ETHERNET as u16 + 20).to_ne_bytes());
        header[8..10].copy_from_slice(&16u16.to_ne_bytes());
    } else {
        let udp = &mut ip[20..];
        udp[..2].copy_from_slice(&port);
        udp[2..4].copy_from_slice(&port);
        udp[4..6].copy_from_slice(&(length - 20).to_be_bytes());
    }
    frame
}

/// Opens the packet socket.
fn socket(device: &str) -> io::Result<OwnedFd> {
    let name = CString::new(device)?;
    // SAFETY: The name is a string with an end.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: No memory is passed. Protocol 0 receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: The call has just returned it, nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    for option in [libc::PACKET_VNET_HDR, libc::PACKET_QDISC_BYPASS] {
        let one: libc::c_int = 1;
        // SAFETY: The option is an int, which is passed with its size.
        let result = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const one).cast(),
                size_of_val(&one) as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(Error::last_os_error());
        }
    }
    // SAFETY: All-zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    // SAFETY: A valid address is passed with its size.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(fd)
}

/// Sends one flow until `end`; the number of frames the kernel took.
fn one_flow(job: &Job, flow: usize, end: Instant) -> io::Result<u64> {
    let fd = socket(&job.device)?;
    let mut frame = frame(job, own_address(&job.device)?, flow);
    let mut part = libc::iovec {
        iov_base: frame.as_mut_ptr().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: All-zero is a valid `mmsghdr`: no address, no parts.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = &raw mut part;
    message.msg_hdr.msg_iovlen = 1;
    let mut messages = [message; BATCH];
    let mut sent = 0;
    while Instant::now() < end {
        // SAFETY: The messages name `part`, which names `frame`; all three live on.
        let result =
            unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
        if let Ok(number) = u64::try_from(result) {
            sent += number;
            continue;
        }
        match Error::last_os_error() {
            // The ring is full: the device is what is being measured.
            error if error.raw_os_error() == Some(libc::ENOBUFS) => thread::yield_now(),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
    Ok(sent)
}
