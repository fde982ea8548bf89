// SPDX-License-Identifier: GPL-2.0

//! How an input or an output lies in an entry of the command queue and a chain of mailboxes.
//!
//! The first 16 bytes are in the entry; 512 are in each mailbox. The mailboxes of one chain are
//! beside each other in memory, [`STRIDE`] bytes apart.

use prm::{
    command::{
        Entry,
        Mailbox, //
    },
    Layout, //
};

/// The bytes of an input or output that are in the entry.
pub(crate) const INLINE: usize = 16;

/// The bytes of an input or output in a mailbox.
pub(crate) const PAYLOAD: usize = 512;

/// From mailbox to mailbox: a power of two, so that none crosses a page.
pub(crate) const STRIDE: usize = 1024;

const _: () = assert!(STRIDE >= Mailbox::INFO.bytes);

/// How many mailboxes `bytes` bytes of input or output take.
pub(crate) fn count(bytes: usize) -> usize {
    bytes.saturating_sub(INLINE).div_ceil(PAYLOAD)
}

/// Splits an input in what is in the entry and what is in mailboxes: for each of those, its offset
/// in the chain's memory and its payload.
pub(crate) fn split(input: &[u8]) -> (&[u8], impl Iterator<Item = (usize, &[u8])>) {
    let (head, rest) = input.split_at(input.len().min(INLINE));
    let blocks = rest.chunks(PAYLOAD);
    (head, (0..).step_by(STRIDE).zip(blocks))
}

/// The same for an output that is to be filled.
pub(crate) fn split_mut(
    output: &mut [u8],
) -> (&mut [u8], impl Iterator<Item = (usize, &mut [u8])>) {
    let (head, rest) = output.split_at_mut(output.len().min(INLINE));
    let blocks = rest.chunks_mut(PAYLOAD);
    (head, (0..).step_by(STRIDE).zip(blocks))
}

/// What of mailbox `number` of `count` is not payload: the offset in the chain's memory, and the
/// mailbox, of which all behind [`PAYLOAD`] counts. `addr` is where the chain's memory is.
pub(crate) fn link(addr: u64, number: usize, count: usize, token: u8) -> (usize, Mailbox) {
    let mut mailbox = Mailbox::new();
    // A chain is no longer than its memory, of which both are offsets.
    mailbox.set_block_num(number as u32).set_token(token);
    if number + 1 < count {
        mailbox.set_next(addr + ((number + 1) * STRIDE) as u64);
    }
    (number * STRIDE, mailbox)
}

/// The entry of a command, owned by the firmware.
pub(crate) fn entry(
    head: &[u8],
    (inlen, in_ptr): (u32, u64),
    (outlen, out_ptr): (u32, u64),
    token: u8,
) -> Entry {
    let mut entry = Entry::new();
    entry
        .set_transport(prm::command::PCI_TRANSPORT)
        .set_inlen(inlen)
        .set_in_ptr(in_ptr)
        .set_outlen(outlen)
        .set_out_ptr(out_ptr)
        .set_token(token)
        .set_status_own(prm::command::OWNED_BY_FIRMWARE);
    for (to, from) in entry.input_mut().iter_mut().zip(head) {
        *to = *from;
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_the_entry_takes_no_mailbox() {
        assert_eq!([0, 1, 16, 17, 528, 529].map(count), [0, 0, 0, 1, 1, 2]);
        let (head, mut blocks) = split(&[7; 16]);
        assert_eq!((head, blocks.next()), (&[7; 16][..], None));
        assert_eq!(split(&[7; 3]).0, [7; 3]);
    }

    #[test]
    fn a_chain_carries_all_of_it() {
        for len in [17, 528, 529, 0x1010, 5000] {
            let input: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut memory = vec![0; count(len) * STRIDE];
            let (head, blocks) = split(&input);
            for (at, block) in blocks {
                memory[at..at + block.len()].copy_from_slice(block);
            }
            let mut output = vec![0; len];
            let (start, blocks) = split_mut(&mut output);
            start.copy_from_slice(head);
            for (at, block) in blocks {
                block.copy_from_slice(&memory[at..at + block.len()]);
            }
            assert_eq!(input, output);
        }
    }

    #[test]
    fn mailboxes_are_chained() {
        let (at, first) = link(0x10_0000, 0, 2, 9);
        assert_eq!((at, first.next(), first.block_num()), (0, 0x10_0400, 0));
        let (at, last) = link(0x10_0000, 1, 2, 9);
        assert_eq!((at, last.next(), last.block_num()), (0x400, 0, 1));
        assert_eq!((first.token(), last.token()), (9, 9));
    }

    #[test]
    fn an_entry_belongs_to_the_firmware() {
        let entry = entry(&[1, 2], (18, 0x1000), (16, 0), 3);
        assert_eq!((entry.inlen(), entry.in_ptr()), (18, 0x1000));
        assert_eq!((entry.outlen(), entry.out_ptr()), (16, 0));
        assert_eq!((entry.token(), entry.status_own()), (3, 1));
        assert_eq!(entry.input()[..3], [1, 2, 0]);
    }
}
