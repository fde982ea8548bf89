// SPDX-License-Identifier: GPL-2.0

//! One memory key: bounds, rights, and where its addresses lead.

use prm::{
    mkey::{
        AccessMode,
        CreateMkeyIn,
        Klm,
        MkeyContext,
        QueryMkeyOut, //
    },
    Layout, //
};
use virtio::memory::Access;

use crate::{
    buffer::{
        addresses,
        PAGE_SHIFT, //
    },
    object::Handle,
    pd::Pd,
    refusal::Refusal, //
};

/// Any queue pair may use the key.
const ANY_QP: u32 = 0xff_ffff;

/// The bits of a page's address that say something else.
const PAGE_FLAGS: u64 = 0xff;

/// A page of a list may be read.
const PAGE_READ: u64 = 1 << 0;

/// A page of a list may be written.
const PAGE_WRITE: u64 = 1 << 1;

/// The size of a unit of lists in bytes.
const OCTWORD: u64 = 16;

/// What may be done to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Rights {
    const ALL: Self = Self {
        read: true,
        write: true,
    };

    /// What both allow.
    fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
        }
    }

    /// Whether `access` is allowed.
    pub(crate) fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
        }
    }
}

/// Where an address leads, and how far around it everything leads the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The bus address.
    pub(crate) bus: u64,
    /// So many bytes before the address belong to the run.
    pub(crate) before: u64,
    /// So many bytes after the one at the address belong to the run.
    pub(crate) after: u64,
    /// What may be done to them.
    pub(crate) rights: Rights,
}

impl Run {
    /// The part of the run that is also allowed by somebody else.
    fn within(self, before: u64, after: u64, rights: Rights) -> Self {
        Self {
            before: self.before.min(before),
            after: self.after.min(after),
            rights: self.rights.and(rights),
            ..self
        }
    }
}

/// Pages that follow each other on the bus as they do in the key, with the same rights.
#[derive(Debug)]
struct Pages {
    /// The distance from the beginning of the key's first page.
    offset: u64,
    /// The bus address of the first one.
    bus: u64,
    rights: Rights,
}

/// A piece of another key.
#[derive(Debug)]
struct Piece {
    /// The distance from the key's first address.
    offset: u64,
    len: u64,
    key: u32,
    /// Its first address in the other key.
    addr: u64,
}

#[derive(Debug)]
enum List {
    /// Addresses are bus addresses.
    Bus,
    /// Pages without a gap, and how many bytes they are.
    Pages(Vec<Pages>, u64),
    /// Pieces without a gap; some may be empty.
    Pieces(Vec<Piece>),
    /// Nothing yet.
    Free,
}

/// A memory key.
#[derive(Debug)]
pub struct Key {
    context: MkeyContext,
    /// The beginning of the list, as the driver gave it.
    sample: [u8; 2 * OCTWORD as usize],
    pd: Handle<Pd>,
    /// The first address.
    start: u64,
    /// The distance from the first address to the last; nothing if there is no address at all.
    reach: Option<u64>,
    /// What the distances of the list are from: the first address, or the beginning of its page.
    base: u64,
    rights: Rights,
    list: List,
}

impl Key {
    /// Makes a key of what CREATE_MKEY says.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that the driver is told.
    pub(super) fn new(input: &CreateMkeyIn, list: &[u8], pd: Handle<Pd>) -> Result<Self, Refusal> {
        let context = input.memory_key_mkey_entry();
        let mode = (context.access_mode_4_2() << 2) | context.access_mode_1_0();
        let mode = AccessMode::try_from(mode).map_err(|_| Refusal::UnknownAccessMode)?;
        if input.mkey_umem_valid() || context.bsf_en() {
            return Err(Refusal::UnknownAccessMode);
        }
        let (start, reach) = if context.length64() {
            (0, Some(u64::MAX))
        } else {
            (context.start_addr(), context.len().checked_sub(1))
        };
        if start.checked_add(reach.unwrap_or(0)).is_none() {
            return Err(Refusal::BadBounds);
        }
        let list = sized(input, list)?;
        let paged = matches!(mode, AccessMode::MTT | AccessMode::KSM);
        let shift = u32::from(context.log_page_size());
        if paged && shift < PAGE_SHIFT {
            return Err(Refusal::BadPageSize);
        }
        let base = if paged {
            (start >> shift) << shift
        } else {
            start
        };
        let used = reach.map(|reach| u128::from(start - base) + u128::from(reach) + 1);
        let mut sample = [0; 2 * OCTWORD as usize];
        for (to, from) in sample.iter_mut().zip(list) {
            *to = *from;
        }
        Ok(Self {
            context: context.clone(),
            sample,
            pd,
            start,
            reach,
            base,
            rights: Rights {
                // Queues that are no queue pairs can only use what is for any.
                read: context.lr() && context.qpn() == ANY_QP,
                write: context.lw() && context.qpn() == ANY_QP,
            },
            list: match mode {
                _ if context.free() => List::Free,
                AccessMode::PA => List::Bus,
                AccessMode::MTT => pages(list, shift, used.unwrap_or(0), input.pg_access())?,
                AccessMode::KLMS => pieces(list, None)?,
                AccessMode::KSM => pieces(list, Some(1 << shift))?,
            },
        })
    }

    /// Whether an object of `pd` means this key by `number`, whose upper bits it was found by.
    pub(super) fn is(&self, number: u32, pd: u32) -> bool {
        number & 0xff == u32::from(self.context.mkey_7_0()) && self.pd.id() == pd
    }

    /// Looks up where `addr` leads: nothing if it leads nowhere. `other` looks up where an address
    /// of another key leads.
    pub(super) fn find(
        &self,
        addr: u64,
        other: impl FnOnce(u32, u64) -> Option<Run>,
    ) -> Option<Run> {
        let before = addr.checked_sub(self.start)?;
        let after = self.reach?.checked_sub(before)?;
        let offset = addr - self.base;
        let run = match &self.list {
            List::Bus => Run {
                bus: addr,
                before,
                after,
                rights: Rights::ALL,
            },
            List::Pages(pages, len) => {
                let next = pages.partition_point(|pages| pages.offset <= offset);
                let found = pages.get(next.checked_sub(1)?)?;
                let end = pages.get(next).map_or(*len, |next| next.offset);
                let before = offset - found.offset;
                Run {
                    bus: found.bus.checked_add(before)?,
                    before,
                    after: end.checked_sub(offset)?.checked_sub(1)?,
                    rights: found.rights,
                }
            }
            List::Pieces(pieces) => {
                let next = pieces.partition_point(|piece| piece.offset <= offset);
                let piece = pieces.get(next.checked_sub(1)?)?;
                let before = offset - piece.offset;
                let after = piece.len.checked_sub(before)?.checked_sub(1)?;
                other(piece.key, piece.addr.checked_add(before)?)?.within(
                    before,
                    after,
                    Rights::ALL,
                )
            }
            List::Free => return None,
        };
        Some(run.within(before, after, self.rights))
    }

    /// What QUERY_MKEY answers.
    pub(super) fn query(&self) -> QueryMkeyOut {
        let mut output = QueryMkeyOut::new();
        *output.memory_key_mkey_entry_mut() = self.context.clone();
        let (first, second) = self.sample.split_at(OCTWORD as usize);
        output.bsf0_klm0_pas_mtt0_1_mut().copy_from_slice(first);
        output.bsf1_klm1_pas_mtt2_3_mut().copy_from_slice(second);
        output
    }
}

/// The part of what follows a command that is the list.
fn sized<'a>(input: &CreateMkeyIn, list: &'a [u8]) -> Result<&'a [u8], Refusal> {
    let size = input.translations_octword_actual_size();
    if size > input.memory_key_mkey_entry().translations_octword_size() {
        return Err(Refusal::ListTooLong);
    }
    usize::try_from(OCTWORD * u64::from(size))
        .ok()
        .and_then(|size| list.get(..size))
        .ok_or(Refusal::ListTooShort)
}

/// A list of pages of `1 << shift` bytes, of which `used` bytes are used.
fn pages(list: &[u8], shift: u32, used: u128, with_rights: bool) -> Result<List, Refusal> {
    let size = 1u64 << shift;
    let count = usize::try_from(used.div_ceil(size.into())).map_err(|_| Refusal::ListTooShort)?;
    if list.len() / 8 < count {
        return Err(Refusal::ListTooShort);
    }
    let mut pages: Vec<Pages> = Vec::new();
    let mut offset = 0u64;
    for page in addresses(list).take(count) {
        // A page need not begin at a multiple of its size: its address is added to, not joined.
        let bus = page & !PAGE_FLAGS;
        if bus.checked_add(size - 1).is_none() {
            return Err(Refusal::BadBounds);
        }
        let rights = Rights {
            read: !with_rights || page & PAGE_READ != 0,
            write: !with_rights || page & PAGE_WRITE != 0,
        };
        let follows = pages.last().is_some_and(|last| {
            last.rights == rights && last.bus.checked_add(offset - last.offset) == Some(bus)
        });
        if !follows {
            pages.push(Pages {
                offset,
                bus,
                rights,
            });
        }
        offset = offset.checked_add(size).ok_or(Refusal::BadBounds)?;
    }
    Ok(List::Pages(pages, offset))
}

/// A list of pieces, all of `size` bytes if it says so.
fn pieces(list: &[u8], size: Option<u64>) -> Result<List, Refusal> {
    let mut pieces = Vec::new();
    let mut offset = 0u64;
    let mut rest = list;
    while let Some((klm, after)) = Klm::split(rest) {
        let len = size.unwrap_or(klm.bcount().into());
        pieces.push(Piece {
            offset,
            len,
            key: klm.key(),
            addr: klm.va(),
        });
        offset = offset.checked_add(len).ok_or(Refusal::BadBounds)?;
        rest = after;
    }
    Ok(List::Pieces(pieces))
}
