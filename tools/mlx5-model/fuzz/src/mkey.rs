// SPDX-License-Identifier: GPL-2.0

//! Memory keys: keys of every kind that refer to each other, and accesses through them.
//!
//! A second opinion (`Keys`) says for each byte where it leads, slowly and without remembering
//! anything. An access must give what that says, and memory that was not granted must stay as it
//! is: the driver's, that of a range that is only read, and the part of the file that the function
//! does not see at all.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::Arc, //
};

use mlx5_model::{
    memory::DmaSpace,
    mkey::Mkeys,
    object::Table,
    pd::Pd, //
};
use prm::{
    mkey::{
        AccessMode,
        CreateMkeyIn,
        Klm, //
    },
    Layout, //
};
use virtio::memory::Memory;
use vm_memory::Permissions;
use vmm_sys_util::tempfile::TempFile;
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

use crate::input::Input;

/// The file, and what of it is where on the bus: the first bytes twice the same length, the second
/// only to read. What lies behind is a guard.
const FILE: usize = 0x6000;
const RANGES: [(u64, usize, usize, bool); 3] = [
    (0x1_0000, 0x0000, 0x2000, true),
    (0x1_2000, 0x2000, 0x1000, true),
    (0x2_0000, 0x3000, 0x1000, false),
];

/// How many keys and accesses one input has at most.
const STEPS: usize = 64;

/// How many bytes an access has at most.
const LONGEST: usize = 0x1800;

/// How many keys an address may lead through after the first.
const DEPTH: usize = 4;

/// What is known of a key.
struct Key {
    index: u32,
    input: CreateMkeyIn,
    list: Vec<u8>,
}

/// Where a byte is in the file, and what may be done to it.
#[derive(Clone, Copy)]
struct Byte {
    offset: usize,
    read: bool,
    write: bool,
}

/// The second opinion.
#[derive(Default)]
struct Keys(Vec<Key>);

impl Keys {
    /// Where a byte on the bus is.
    fn bus(addr: u64) -> Option<Byte> {
        RANGES.iter().find_map(|&(start, offset, len, write)| {
            let distance = addr.checked_sub(start)?;
            (distance < len as u64).then_some(Byte {
                offset: offset + distance as usize,
                read: true,
                write,
            })
        })
    }

    /// Where a byte of a key is, for an object of a domain.
    fn byte(&self, number: u32, pd: u32, addr: u64, depth: usize) -> Option<Byte> {
        let key = self.0.iter().find(|key| key.index == number >> 8)?;
        let context = key.input.memory_key_mkey_entry();
        if context.free() || u32::from(context.mkey_7_0()) != number & 0xff || context.pd() != pd {
            return None;
        }
        let (start, len) = match context.length64() {
            true => (0, 1 << 64),
            false => (context.start_addr(), u128::from(context.len())),
        };
        if u128::from(addr.checked_sub(start)?) >= len {
            return None;
        }
        let size = 1u64 << context.log_page_size();
        let mode = (context.access_mode_4_2() << 2) | context.access_mode_1_0();
        let octwords = key.input.translations_octword_actual_size() as usize;
        let list = &key.list[..16 * octwords];
        let mut byte = match AccessMode::try_from(mode).ok()? {
            AccessMode::PA => Self::bus(addr)?,
            AccessMode::MTT => {
                let offset = addr - start / size * size;
                let page = list.chunks_exact(8).nth((offset / size) as usize)?;
                let page = u64::from_be_bytes(page.try_into().ok()?);
                let mut byte = Self::bus((page & !0xff).checked_add(offset % size)?)?;
                if key.input.pg_access() {
                    byte.read &= page & 1 != 0;
                    byte.write &= page & 2 != 0;
                }
                byte
            }
            mode => {
                let fixed = mode == AccessMode::KSM;
                let base = if fixed { start / size * size } else { start };
                let mut offset = addr - base;
                let mut pieces = list
                    .chunks_exact(16)
                    .filter_map(|klm| Klm::read_from_bytes(klm).ok());
                let piece = pieces.find(|piece| {
                    let len = if fixed { size } else { piece.bcount().into() };
                    let here = offset < len;
                    if !here {
                        offset -= len;
                    }
                    here
                })?;
                let depth = depth.checked_sub(1)?;
                self.byte(piece.key(), pd, piece.va().checked_add(offset)?, depth)?
            }
        };
        let any = context.qpn() == 0xff_ffff;
        byte.read &= any && context.lr();
        byte.write &= any && context.lw();
        Some(byte)
    }

    /// Where the bytes of an access are, if it is allowed as a whole.
    fn bytes(
        &self,
        number: u32,
        pd: u32,
        addr: u64,
        len: usize,
        write: bool,
    ) -> Option<Vec<usize>> {
        (0..len as u64)
            .map(|at| {
                let byte = self.byte(number, pd, addr.checked_add(at)?, DEPTH)?;
                let allowed = if write { byte.write } else { byte.read };
                allowed.then_some(byte.offset)
            })
            .collect()
    }
}

/// An address that has a chance to lead somewhere.
fn address(input: &mut Input<'_>) -> u64 {
    match input.below(4) {
        0 => input.u64(),
        1 => RANGES[input.below(RANGES.len())].0 + u64::from(input.u16() % 0x2000),
        2 => RANGES[input.below(RANGES.len())].0,
        _ => u64::from(input.u16()),
    }
}

/// A key that has a chance to be one.
fn number(input: &mut Input<'_>) -> u32 {
    match input.below(8) {
        0 => input.u32(),
        _ => u32::from(2 + input.u8() % 16) << 8,
    }
}

/// A command that has a chance to be accepted, and its list.
fn create(input: &mut Input<'_>) -> (CreateMkeyIn, Vec<u8>) {
    if input.below(8) == 0 {
        let mut bytes = input.bytes(CreateMkeyIn::INFO.bytes).to_vec();
        bytes.resize(CreateMkeyIn::INFO.bytes, 0);
        let create = CreateMkeyIn::read_from_bytes(&bytes).expect("the size is right");
        return (create, input.block(512).to_vec());
    }
    let mut create = CreateMkeyIn::new();
    let mode = input.below(4) as u8;
    let flags = input.u8();
    let entries = input.below(12);
    let mut list = Vec::new();
    for _ in 0..entries {
        if mode == AccessMode::MTT as u8 {
            list.extend((address(input) | u64::from(input.u8() & 3)).to_be_bytes());
        } else {
            let mut klm = Klm::new();
            klm.set_bcount(input.u16().into())
                .set_key(number(input))
                .set_va(address(input));
            list.extend_from_slice(klm.as_bytes());
        }
    }
    list.resize(list.len().next_multiple_of(16), 0);
    let octwords = (list.len() / 16) as u32;
    create
        .set_pg_access(flags & 1 != 0)
        .set_translations_octword_actual_size(octwords);
    create
        .memory_key_mkey_entry_mut()
        .set_access_mode_1_0(mode)
        .set_lr(flags & 2 == 0)
        .set_lw(flags & 4 == 0)
        .set_length64(flags & 0xc0 == 0xc0)
        .set_free(flags & 0x38 == 0x38)
        .set_qpn(if flags & 0x30 == 0x30 { 5 } else { 0xff_ffff })
        .set_pd(u32::from(1 + ((flags >> 3) & 7) / 7))
        .set_start_addr(address(input))
        .set_len(u64::from(input.u16()))
        .set_translations_octword_size(octwords)
        .set_log_page_size(match flags & 0x18 {
            0x18 => input.u8(),
            _ => 12,
        });
    (create, list)
}

fn memory(file: &File) -> Arc<DmaSpace> {
    let space = DmaSpace::default();
    for (addr, offset, len, write) in RANGES {
        let permissions = match write {
            true => Permissions::ReadWrite,
            false => Permissions::Read,
        };
        let file = file.try_clone().expect("descriptors are left");
        space
            .map(addr, len as u64, file, offset as u64, permissions)
            .expect("the ranges are apart and in the file");
    }
    Arc::new(space)
}

/// Makes, uses and destroys memory keys.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let file = TempFile::new().expect("there is room").into_file();
    let mut flat: Vec<u8> = (0..FILE).map(|at| (at % 251) as u8).collect();
    file.write_all_at(&flat, 0).expect("there is room");
    let mkeys = Arc::new(Mkeys::new(memory(&file), 20));
    let mut pds = Table::new("protection domain", 1, 4);
    for _ in 0..2 {
        pds.add(Pd).expect("there are four");
    }
    let mut keys = Keys::default();
    // Who opened a key keeps it open: what is remembered of it must not outlive it.
    let mut spaces = Vec::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=2 => {
                let (create, list) = create(&mut input);
                let Ok(pd) = pds.hold(create.memory_key_mkey_entry().pd()) else {
                    continue;
                };
                if let Ok(index) = mkeys.create(&create, &list, pd) {
                    let input = create;
                    keys.0.push(Key { index, input, list });
                }
            }
            3 => {
                let number = number(&mut input);
                let known = keys.0.iter().position(|key| key.index == number >> 8);
                let gone = mkeys.destroy(number >> 8).is_ok();
                assert_eq!(gone, known.is_some());
                if let Some(known) = known {
                    keys.0.remove(known);
                }
            }
            4 => {
                let (number, pd) = (number(&mut input), 1 + u32::from(input.u8() & 1));
                spaces.push((mkeys.open(number, pd), pd));
            }
            step => {
                if spaces.is_empty() {
                    continue;
                }
                let (space, pd) = &spaces[input.below(spaces.len())];
                let addr = address(&mut input);
                let bytes = |len, write| keys.bytes(space.key(), *pd, addr, len, write);
                match step {
                    5 => {
                        let len = 1 + input.below(LONGEST);
                        let mut got = vec![0; len];
                        let expected = bytes(len, false)
                            .map(|at| at.into_iter().map(|at| flat[at]).collect::<Vec<_>>());
                        let read = space.read(addr, &mut got).ok().map(|()| got);
                        assert!(read == expected, "read of {len} bytes at {addr:#x}");
                    }
                    6 => {
                        let len = 1 + input.below(LONGEST);
                        let fill = vec![input.u8(); len];
                        let expected = bytes(len, true);
                        assert_eq!(
                            space.write(addr, &fill).is_ok(),
                            expected.is_some(),
                            "write of {len} bytes at {addr:#x}"
                        );
                        for at in expected.into_iter().flatten() {
                            flat[at] = fill[0];
                        }
                    }
                    _ if input.u8() & 1 == 0 => {
                        // A value that lies in two pieces is not one access, and may be refused.
                        if let Ok(value) = space.load_u16(addr) {
                            let at = bytes(2, false).expect("what was read is there");
                            assert_eq!(value, u16::from_ne_bytes([flat[at[0]], flat[at[1]]]));
                        }
                    }
                    _ => {
                        if space.store_u16(addr, 0xbeef).is_ok() {
                            let at = bytes(2, true).expect("what was written is there");
                            for (at, byte) in at.into_iter().zip(0xbeef_u16.to_ne_bytes()) {
                                flat[at] = byte;
                            }
                        }
                    }
                }
            }
        }
    }
    let mut found = vec![0; FILE];
    file.read_exact_at(&mut found, 0).expect("it is that long");
    assert!(found == flat, "memory changed that was not written to");
}
