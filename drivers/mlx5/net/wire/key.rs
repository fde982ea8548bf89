// SPDX-License-Identifier: GPL-2.0

//! Commands that make memory keys, and their lists.

use prm::{
    mkey::{
        AccessMode,
        CreateMkeyIn,
        Klm,
        MkeyContext, //
    },
    Layout, //
};

use crate::net::map::extent::Rights;

/// Any queue may use a key that says so.
const ANY_QP: u32 = 0xff_ffff;

/// The bytes of an address in a list of pages.
pub(crate) const PAGE_ENTRY: usize = 8;

/// The bytes of an entry in a list of parts of other keys.
pub(crate) const PART_ENTRY: usize = 16;

/// What lists are padded to a multiple of, in bytes.
const LIST_ALIGN: usize = 64;

/// The unit in which the length of lists is given, in bytes.
const OCTWORD: usize = 16;

/// The bytes of a list of `entries` that have `each` bytes, padding included.
pub(crate) fn list_bytes(entries: usize, each: usize) -> usize {
    (entries * each).next_multiple_of(LIST_ALIGN)
}

/// Fills in what keys have in common, with a list of `bytes`.
fn key(
    input: &mut CreateMkeyIn,
    pd: u32,
    mode: AccessMode,
    rights: Rights,
    bytes: usize,
) -> &mut MkeyContext {
    // CAST: A list is much shorter than a command can be.
    let octwords = (bytes / OCTWORD) as u32;
    input.set_translations_octword_actual_size(octwords);
    input
        .memory_key_mkey_entry_mut()
        .set_access_mode_1_0(mode as u8)
        .set_lr(rights.read)
        .set_lw(rights.write)
        .set_qpn(ANY_QP)
        .set_pd(pd)
        .set_translations_octword_size(octwords)
}

/// Fills in CREATE_MKEY of a key for `size` bytes from `iova` on, with a list of pages of
/// `1 << log_page` bytes, from the one on that `iova` is in; see [`page`]. The list, padded, has
/// `bytes`.
pub(crate) fn of_pages(
    input: &mut CreateMkeyIn,
    pd: u32,
    (iova, size): (u64, u64),
    rights: Rights,
    log_page: u8,
    bytes: usize,
) {
    key(input, pd, AccessMode::MTT, rights, bytes)
        .set_start_addr(iova)
        .set_len(size)
        .set_log_page_size(log_page);
}

/// The entry of a page at `bus`.
pub(crate) fn page(bus: u64) -> [u8; PAGE_ENTRY] {
    // What the key allows is allowed for its pages: their own rights are not looked at.
    bus.to_be_bytes()
}

/// Fills in CREATE_MKEY of a key with a list of parts of other keys, from `iova` on and `size` bytes
/// long. What is allowed, the other keys say. The list, padded, has `bytes`.
pub(crate) fn of_parts(input: &mut CreateMkeyIn, pd: u32, (iova, size): (u64, u64), bytes: usize) {
    let rights = Rights {
        read: true,
        write: true,
    };
    key(input, pd, AccessMode::KLMS, rights, bytes)
        .set_start_addr(iova)
        .set_len(size);
}

/// The entry of `size` bytes of another key from its address `iova` on.
pub(crate) fn part(key: u32, iova: u64, size: u32) -> Klm {
    let mut klm = Klm::new();
    klm.set_bcount(size).set_key(key).set_va(iova);
    klm
}

/// Fills in CREATE_MKEY of a key for all bus addresses.
pub(crate) fn of_everything(input: &mut CreateMkeyIn, pd: u32) {
    let rights = Rights {
        read: true,
        write: true,
    };
    key(input, pd, AccessMode::PA, rights, 0).set_length64(true);
}

/// The number by which a key is used, of the one by which it is destroyed. The lower bits are the
/// driver's to choose, which chooses 0.
pub(crate) fn number(index: u32) -> u32 {
    index << 8
}
