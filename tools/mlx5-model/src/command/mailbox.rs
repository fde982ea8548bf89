// SPDX-License-Identifier: GPL-2.0

//! The transport of commands: entries of the command queue, and chains of mailboxes.
//!
//! ```text
//!   entry    ┌──────┬─────────┬──────────┬─────────┬─────────┬───────┬────────────┐
//!   64 bytes │ type │ in_ptr  │ in  (16) │ out(16) │ out_ptr │ token │ status_own │
//!            └──────┴────┬────┴──────────┴─────────┴────┬────┴───────┴────────────┘
//!                        ▼                              ▼
//!                 ┌─────────────┐  next  ┌────────┐    the same for the output
//!   mailbox       │ data   (512)│ ─────> │        │
//!                 │ number token│        └────────┘
//!                 └─────────────┘
//! ```
//!
//! An input or output begins in the entry and goes on in as many mailboxes as its length needs.
//! Everything here was written by the driver: it is read once, and checked. Signatures are not
//! used, as drivers turn them off.

use std::sync::atomic::{
    fence,
    Ordering, //
};

use prm::{
    command::{
        Delivery,
        Entry,
        Mailbox,
        OWNED_BY_FIRMWARE,
        PCI_TRANSPORT, //
    },
    Layout, //
};
use zerocopy::IntoBytes;

use crate::memory::Dma;

/// The longest input or output in bytes: the largest memory key fits well.
const LONGEST: usize = 16 << 20;

/// The shortest input or output in bytes: the status of a command and why.
const SHORTEST: usize = 8;

/// The part of an input or output that is in the entry, in bytes.
const INLINE: usize = 16;

/// The part of an input or output that is in one mailbox, in bytes.
const BLOCK: usize = 512;

/// Where `status_own` is in an entry.
const STATUS_OWN: u64 = 0x3f;

/// A command as the driver put it.
#[derive(Debug)]
pub struct Request {
    /// The address of the entry.
    entry: u64,
    /// The entry's token.
    token: u8,
    /// The whole input.
    pub input: Vec<u8>,
    /// The room for the output in bytes.
    pub outlen: usize,
    /// The addresses of the output's mailboxes.
    blocks: Vec<u64>,
}

/// What an entry turned out to be.
#[derive(Debug)]
pub enum Fetched {
    /// A command.
    Request(Request),
    /// A command that is not to be executed: how delivery went is to be told with [`release`].
    Undelivered(Delivery),
    /// Nothing: the entry cannot be read, or is not the firmware's.
    Nothing,
}

/// Reads the command whose entry is at `entry`.
pub fn fetch(memory: &Dma, entry: u64) -> Fetched {
    let mut bytes = Entry::new();
    if memory.read(entry, bytes.as_mut_bytes()).is_err()
        || bytes.status_own() & OWNED_BY_FIRMWARE == 0
    {
        return Fetched::Nothing;
    }
    match read(memory, entry, &bytes) {
        Ok(request) => Fetched::Request(request),
        Err(delivery) => Fetched::Undelivered(delivery),
    }
}

fn read(memory: &Dma, address: u64, entry: &Entry) -> Result<Request, Delivery> {
    if entry.transport() != PCI_TRANSPORT {
        return Err(Delivery::CMD_DESCR_ERR);
    }
    let inlen = length(entry.inlen()).ok_or(Delivery::IN_LENGTH_ERR)?;
    let outlen = length(entry.outlen()).ok_or(Delivery::OUT_LENGTH_ERR)?;

    let mut input = entry.input().to_vec();
    for mailbox in Chain::of(memory, entry.in_ptr(), entry.token(), inlen) {
        let (_, mailbox) = mailbox.map_err(|broken| match broken {
            Broken::Address => Delivery::IN_PTR_ALIGN_ERR,
            Broken::End => Delivery::IN_LENGTH_ERR,
            Broken::Other(delivery) => delivery,
        })?;
        input.extend_from_slice(mailbox.data());
    }
    input.truncate(inlen);

    // The output's chain is walked before anything is executed: what could not be delivered must
    // not be done either.
    let mut blocks = Vec::new();
    for mailbox in Chain::of(memory, entry.out_ptr(), entry.token(), outlen) {
        let (at, _) = mailbox.map_err(|broken| match broken {
            Broken::Address => Delivery::OUT_PTR_ALIGN_ERR,
            Broken::End => Delivery::OUT_LENGTH_ERR,
            Broken::Other(delivery) => delivery,
        })?;
        blocks.push(at);
    }
    Ok(Request {
        entry: address,
        token: entry.token(),
        input,
        outlen,
        blocks,
    })
}

/// A length of an input or output, if it is one.
fn length(len: u32) -> Option<usize> {
    usize::try_from(len)
        .ok()
        .filter(|len| (SHORTEST..=LONGEST).contains(len))
}

impl Request {
    /// Writes the output, as much of it as there is room for. What is left of the last mailbox
    /// that is written becomes 0.
    ///
    /// # Errors
    ///
    /// [`Delivery::OUT_PTR_ALIGN_ERR`] if memory that was there when the command was fetched is
    /// there no more.
    pub fn deliver(&self, memory: &Dma, output: &[u8]) -> Result<(), Delivery> {
        let gone = |_| Delivery::OUT_PTR_ALIGN_ERR;
        let output = &output[..output.len().min(self.outlen)];
        let (inline, rest) = output.split_at(output.len().min(INLINE));
        let mut first = [0; INLINE];
        first[..inline.len()].copy_from_slice(inline);
        let room = Entry::INFO.field("out").map_or(0, |field| field.offset / 8) as u64;
        memory
            .write(self.entry.wrapping_add(room), &first)
            .map_err(gone)?;
        for (at, data) in self.blocks.iter().zip(rest.chunks(BLOCK)) {
            let mut mailbox = Mailbox::new();
            mailbox.data_mut()[..data.len()].copy_from_slice(data);
            // What stands behind the data is the driver's, but for the token.
            memory.write(*at, mailbox.data()).map_err(gone)?;
            let token = Mailbox::INFO
                .field("token")
                .map_or(0, |field| field.offset / 8) as u64;
            memory
                .write(at.wrapping_add(token), &[self.token])
                .map_err(gone)?;
        }
        Ok(())
    }
}

/// Gives the entry at `entry` back to the driver, after everything else was written.
pub fn release(memory: &Dma, entry: u64, delivery: Delivery) {
    fence(Ordering::Release);
    // If the entry is not there any more, nobody waits for it.
    let _ = memory.write(entry.wrapping_add(STATUS_OWN), &[(delivery as u8) << 1]);
}

/// Why a chain of mailboxes cannot be followed.
enum Broken {
    /// There can be no mailbox at the address.
    Address,
    /// The chain ends early.
    End,
    /// Something else.
    Other(Delivery),
}

/// The mailboxes of one input or output, as many as its length needs. A chain may be longer; that
/// it leads in a circle shows in the numbers.
struct Chain<'a> {
    memory: &'a Dma,
    next: u64,
    token: u8,
    done: usize,
    count: usize,
}

impl<'a> Chain<'a> {
    fn of(memory: &'a Dma, first: u64, token: u8, len: usize) -> Self {
        Self {
            memory,
            next: first,
            token,
            done: 0,
            count: len.saturating_sub(INLINE).div_ceil(BLOCK),
        }
    }

    fn follow(&mut self) -> Result<(u64, Mailbox), Broken> {
        let at = self.next;
        if at == 0 {
            return Err(Broken::End);
        }
        let mut mailbox = Mailbox::new();
        if at % BLOCK as u64 != 0 || self.memory.read(at, mailbox.as_mut_bytes()).is_err() {
            return Err(Broken::Address);
        }
        if mailbox.token() != self.token {
            return Err(Broken::Other(Delivery::TOK_ERR));
        }
        if usize::try_from(mailbox.block_num()) != Ok(self.done) {
            return Err(Broken::Other(Delivery::BAD_BLK_NUM_ERR));
        }
        self.done += 1;
        self.next = mailbox.next();
        Ok((at, mailbox))
    }
}

impl Iterator for Chain<'_> {
    type Item = Result<(u64, Mailbox), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.done < self.count).then(|| self.follow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::memory::DmaSpace;

    use proptest::prelude::*;

    const ENTRY: u64 = 0x40;
    /// Where the mailboxes of input and output begin, and how far apart they are.
    const CHAINS: [u64; 2] = [0x1_0000, 0x8_0000];
    const APART: u64 = 0x400;
    const TOKEN: u8 = 0x5a;

    /// Puts a command as a driver does.
    fn put(memory: &Dma, input: &[u8], outlen: usize) -> Entry {
        let mut entry = Entry::new();
        let inline = input.len().min(INLINE);
        entry.input_mut()[..inline].copy_from_slice(&input[..inline]);
        entry
            .set_transport(PCI_TRANSPORT)
            .set_inlen(input.len() as u32)
            .set_in_ptr(CHAINS[0])
            .set_outlen(outlen as u32)
            .set_out_ptr(CHAINS[1])
            .set_token(TOKEN)
            .set_status_own(OWNED_BY_FIRMWARE);
        memory.write(ENTRY, entry.as_bytes()).unwrap();
        let rest = [
            input[inline..].to_vec(),
            vec![0; outlen.saturating_sub(INLINE)],
        ];
        for (first, rest) in CHAINS.into_iter().zip(rest) {
            for (number, data) in rest.chunks(BLOCK).enumerate() {
                let mut mailbox = Mailbox::new();
                let at = first + number as u64 * APART;
                mailbox.data_mut()[..data.len()].copy_from_slice(data);
                mailbox.set_token(TOKEN).set_block_num(number as u32);
                if (number + 1) * BLOCK < rest.len() {
                    mailbox.set_next(at + APART);
                }
                memory.write(at, mailbox.as_bytes()).unwrap();
            }
        }
        entry
    }

    /// What the driver finds in entry and mailboxes.
    fn output(memory: &Dma, len: usize) -> Vec<u8> {
        let mut entry = Entry::new();
        memory.read(ENTRY, entry.as_mut_bytes()).unwrap();
        let mut output = entry.output().to_vec();
        for at in (CHAINS[1]..).step_by(APART as usize) {
            if output.len() >= len {
                break;
            }
            let mut mailbox = Mailbox::new();
            memory.read(at, mailbox.as_mut_bytes()).unwrap();
            assert_eq!(mailbox.token(), TOKEN);
            output.extend_from_slice(mailbox.data());
        }
        output.truncate(len);
        output
    }

    fn space() -> Dma {
        DmaSpace::anonymous(0x10_0000).unwrap().snapshot()
    }

    fn request(memory: &Dma) -> Request {
        match fetch(memory, ENTRY) {
            Fetched::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_length_goes_both_ways(
            input in prop::collection::vec(any::<u8>(), SHORTEST..0x3000),
            answer in prop::collection::vec(any::<u8>(), SHORTEST..0x3000),
        ) {
            let memory = space();
            put(&memory, &input, answer.len());
            let request = request(&memory);
            prop_assert_eq!(&request.input, &input);
            prop_assert_eq!(request.outlen, answer.len());
            request.deliver(&memory, &answer).unwrap();
            prop_assert_eq!(output(&memory, answer.len()), answer);
            release(&memory, ENTRY, Delivery::OK);
            prop_assert!(matches!(fetch(&memory, ENTRY), Fetched::Nothing));
        }

        /// Whatever a driver writes over a good command, there is an end to it.
        #[test]
        fn a_broken_chain_is_refused(
            place in prop_oneof![ENTRY..ENTRY + 0x3f, CHAINS[0]..CHAINS[0] + 4 * APART],
            garbage in prop::collection::vec(any::<u8>(), 1..16),
        ) {
            let memory = space();
            let input: Vec<_> = (0..4 * BLOCK).map(|at| at as u8).collect();
            put(&memory, &input, 3 * BLOCK);
            memory.write(place, &garbage).unwrap();
            if let Fetched::Request(request) = fetch(&memory, ENTRY) {
                prop_assert!(request.input.len() <= LONGEST);
                let _ = request.deliver(&memory, &[0xff; 8 * BLOCK]);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let last = CHAINS[0] + 2 * APART;
        let told = |change: &dyn Fn(&mut Entry, &mut Mailbox)| {
            let memory = space();
            let mut entry = put(&memory, &[7; INLINE + 3 * BLOCK], 2 * BLOCK);
            let mut mailbox = Mailbox::new();
            memory.read(last, mailbox.as_mut_bytes()).unwrap();
            change(&mut entry, &mut mailbox);
            memory.write(last, mailbox.as_bytes()).unwrap();
            memory.write(ENTRY, entry.as_bytes()).unwrap();
            match fetch(&memory, ENTRY) {
                Fetched::Undelivered(delivery) => delivery,
                other => panic!("{other:?}"),
            }
        };
        type Change<'a> = &'a dyn Fn(&mut Entry, &mut Mailbox);
        let cases: [(Change<'_>, Delivery); 11] = [
            (
                &|_, mailbox| {
                    mailbox.set_token(1);
                },
                Delivery::TOK_ERR,
            ),
            (
                &|_, mailbox| {
                    mailbox.set_block_num(1);
                },
                Delivery::BAD_BLK_NUM_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_in_ptr(0);
                },
                Delivery::IN_LENGTH_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_in_ptr(CHAINS[0] + 8);
                },
                Delivery::IN_PTR_ALIGN_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_in_ptr(!0x1ff);
                },
                Delivery::IN_PTR_ALIGN_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_inlen(7);
                },
                Delivery::IN_LENGTH_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_inlen(u32::MAX);
                },
                Delivery::IN_LENGTH_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_out_ptr(0);
                },
                Delivery::OUT_LENGTH_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_out_ptr(1 << 40);
                },
                Delivery::OUT_PTR_ALIGN_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_outlen(7);
                },
                Delivery::OUT_LENGTH_ERR,
            ),
            (
                &|entry, _| {
                    entry.set_transport(6);
                },
                Delivery::CMD_DESCR_ERR,
            ),
        ];
        for (number, (change, delivery)) in cases.into_iter().enumerate() {
            assert_eq!(told(change), delivery, "case {number}");
        }
    }

    #[test]
    fn a_chain_may_be_longer_than_what_is_said() {
        let memory = space();
        let mut entry = put(&memory, &[7; INLINE + 3 * BLOCK], INLINE);
        entry.set_inlen(INLINE as u32 + 1);
        memory.write(ENTRY, entry.as_bytes()).unwrap();
        assert_eq!(request(&memory).input, [7; INLINE + 1]);
    }
}
