// SPDX-License-Identifier: GPL-2.0

//! The command queue, from the driver's side.

use std::{
    fmt,
    sync::Arc,
    thread,
    time::Instant, //
};

use mlx5_model::function::Function;
use prm::{
    command::{
        Entry,
        InputHeader,
        Mailbox,
        ObjectInputHeader,
        OutputHeader, //
    },
    layout::{
        set_bits,
        Unknown, //
    },
    Command,
    Layout,
    Status, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

use crate::{
    memory::{
        Buffer,
        Memory, //
    },
    vectors::PATIENCE, //
};

/// Registers in front of the BAR: offsets in bytes.
const QUEUE_ADDRESS: u64 = 0x10;
const DOORBELL: u64 = 0x18;

/// The transport of every command.
const PCI: u8 = 7;

/// The bytes of an entry, and of the part of input or output that stands in it.
const ENTRY: u64 = 64;
const INLINE: usize = 16;

/// The bytes a mailbox carries, and how far apart mailboxes are.
const PAYLOAD: usize = 512;
const MAILBOX: u64 = 1024;

/// Why a command did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The firmware refused it.
    Refused {
        /// The status, or a number that is none.
        status: Result<Status, Unknown>,
        /// Why, in the firmware's numbers.
        syndrome: u32,
    },
    /// The firmware could not take it: the delivery status.
    Delivery(u8),
    /// It was not completed in time.
    Lost,
    /// The output is not one of this command: a token is wrong, or it is too short.
    Garbage,
}

impl Failure {
    /// The status of a refusal.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Refused { status, .. } => status.ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, syndrome } => {
                write!(f, "refused with {status:?}, syndrome {syndrome:#x}")
            }
            Self::Delivery(status) => write!(f, "not delivered: {status:#x}"),
            Self::Lost => f.write_str("not completed in time"),
            Self::Garbage => f.write_str("garbled"),
        }
    }
}

impl std::error::Error for Failure {}

/// The input of a command with its opcode filled in, and `tail` after it.
pub fn encode<C: Command>(input: &C::Input, tail: &[u8]) -> Vec<u8> {
    let mut bytes = input.as_bytes().to_vec();
    set_field::<InputHeader>(&mut bytes, "opcode", C::OPCODE as u64);
    if let Some(object) = C::OBJECT {
        set_field::<ObjectInputHeader>(&mut bytes, "obj_type", object as u64);
    }
    bytes.extend_from_slice(tail);
    bytes
}

fn set_field<L: Layout>(bytes: &mut [u8], name: &str, value: u64) {
    let field = L::INFO.field(name).expect("the header has the field");
    set_bits(bytes, field.offset, field.width, value);
}

/// A command that the firmware has.
struct Pending {
    /// The length of the output in bytes.
    room: usize,
    token: u8,
    /// The mailboxes of the output; those of the input only have to stay.
    output: Option<Buffer>,
    _input: Option<Buffer>,
}

/// A command queue, and the function it belongs to.
pub struct Queue {
    function: Arc<Function>,
    memory: Memory,
    entries: Buffer,
    slots: Vec<Option<Pending>>,
    stride: u64,
    token: u8,
}

impl Queue {
    /// Tells the function where its command queue is.
    pub fn new(function: &Arc<Function>, memory: &Memory) -> Self {
        let mut size = [0; 4];
        function.bar_read(QUEUE_ADDRESS + 4, &mut size);
        let (slots, stride) = (1usize << (size[3] >> 4), 1 << (size[3] & 0xf));
        assert!(
            slots <= 32 && stride >= ENTRY,
            "a queue of {slots} slots of {stride} bytes"
        );
        let entries = memory.alloc(slots as u64 * stride);
        let addr = entries.addr();
        function.bar_write(QUEUE_ADDRESS, &((addr >> 32) as u32).to_be_bytes());
        function.bar_write(QUEUE_ADDRESS + 4, &(addr as u32).to_be_bytes());
        Self {
            function: function.clone(),
            memory: memory.clone(),
            entries,
            slots: (0..slots).map(|_| None).collect(),
            stride,
            token: 0,
        }
    }

    /// How many slots there are. The last one is for pages.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// A chain of mailboxes for what of `bytes` bytes the entry has no room for.
    fn mailboxes(&self, bytes: usize, token: u8) -> Option<Buffer> {
        let count = bytes.saturating_sub(INLINE).div_ceil(PAYLOAD) as u64;
        if count == 0 {
            return None;
        }
        let buffer = self.memory.alloc(count * MAILBOX);
        for number in 0..count {
            let mut mailbox = Mailbox::new();
            mailbox.set_block_num(number as u32).set_token(token);
            if number + 1 < count {
                mailbox.set_next(buffer.addr() + (number + 1) * MAILBOX);
            }
            let head = &mailbox.as_bytes()[PAYLOAD..];
            buffer.set(number * MAILBOX + PAYLOAD as u64, head);
        }
        Some(buffer)
    }

    /// Writes a command into a slot, for the firmware to take once its doorbell is rung.
    ///
    /// `room` is the length of the output in bytes.
    ///
    /// # Panics
    ///
    /// If the slot holds a command.
    pub fn prepare(&mut self, slot: usize, input: &[u8], room: usize) {
        assert!(self.slots[slot].is_none(), "slot {slot} is in use");
        self.token = self.token.wrapping_add(1);
        let token = self.token;
        let (inputs, outputs) = (
            self.mailboxes(input.len(), token),
            self.mailboxes(room, token),
        );
        let (head, rest) = input.split_at(input.len().min(INLINE));
        for (number, block) in rest.chunks(PAYLOAD).enumerate() {
            if let Some(mailboxes) = &inputs {
                mailboxes.set(number as u64 * MAILBOX, block);
            }
        }
        let mut entry = Entry::new();
        entry
            .set_transport(PCI)
            .set_inlen(input.len() as u32)
            .set_in_ptr(inputs.as_ref().map_or(0, Buffer::addr))
            .set_out_ptr(outputs.as_ref().map_or(0, Buffer::addr))
            .set_outlen(room as u32)
            .set_token(token)
            .set_status_own(1);
        entry.input_mut()[..head.len()].copy_from_slice(head);
        self.entries
            .set(slot as u64 * self.stride, entry.as_bytes());
        self.slots[slot] = Some(Pending {
            room,
            token,
            output: outputs,
            _input: inputs,
        });
    }

    /// Rings the doorbell of all slots whose bits are set.
    pub fn ring(&self, slots: u32) {
        self.function.bar_write(DOORBELL, &slots.to_be_bytes());
    }

    /// Returns whether the firmware gave a slot back.
    pub fn is_done(&self, slot: usize) -> bool {
        self.entries.get(slot as u64 * self.stride + ENTRY - 1, 1)[0] & 1 == 0
    }

    /// Waits for the firmware to give a slot back, and takes the output.
    ///
    /// # Errors
    ///
    /// A [`Failure`], but not for what the output says.
    pub fn finish(&mut self, slot: usize) -> Result<Vec<u8>, Failure> {
        let start = Instant::now();
        while !self.is_done(slot) {
            if start.elapsed() > PATIENCE {
                return Err(Failure::Lost);
            }
            thread::yield_now();
        }
        self.take(slot)
    }

    /// Changes the entry of a slot before its doorbell is rung: to something no driver writes.
    pub fn change(&self, slot: usize, change: impl FnOnce(&mut [u8])) {
        let at = slot as u64 * self.stride;
        let mut bytes = self.entries.get(at, ENTRY as usize);
        change(&mut bytes);
        self.entries.set(at, &bytes);
    }

    /// Gives up a command that the firmware has and will not complete.
    pub fn forget(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// Takes the output of a command that is done.
    ///
    /// # Errors
    ///
    /// A [`Failure`], but not for what the output says.
    pub fn take(&mut self, slot: usize) -> Result<Vec<u8>, Failure> {
        let pending = self.slots[slot].take().ok_or(Failure::Lost)?;
        // The owner was read before the rest of the entry is.
        self.memory.region().fence();
        let bytes = self.entries.get(slot as u64 * self.stride, ENTRY as usize);
        let entry = Entry::read_from_bytes(&bytes).map_err(|_| Failure::Garbage)?;
        let delivery = entry.status_own() >> 1;
        if delivery != 0 {
            return Err(Failure::Delivery(delivery));
        }
        if entry.token() != pending.token {
            return Err(Failure::Garbage);
        }
        let mut output = entry.output().to_vec();
        if let Some(mailboxes) = &pending.output {
            for at in (0..pending.room - INLINE).step_by(PAYLOAD) {
                let at = (at / PAYLOAD) as u64 * MAILBOX;
                let bytes = mailboxes.get(at, size_of::<Mailbox>());
                let mailbox = Mailbox::read_from_bytes(&bytes).map_err(|_| Failure::Garbage)?;
                output.extend_from_slice(mailbox.data());
            }
        }
        output.truncate(pending.room);
        Ok(output)
    }

    /// Has a command executed, whatever it is.
    ///
    /// # Errors
    ///
    /// A [`Failure`], but not for what the output says.
    pub fn raw(&mut self, slot: usize, input: &[u8], room: usize) -> Result<Vec<u8>, Failure> {
        self.prepare(slot, input, room);
        self.ring(1 << slot);
        self.finish(slot)
    }
}

/// Takes an output apart: its fixed part, and what follows.
///
/// # Errors
///
/// The refusal, if it is one.
pub fn decode<O: Layout>(output: &[u8]) -> Result<(O, Vec<u8>), Failure> {
    let (head, _) = OutputHeader::split(output).ok_or(Failure::Garbage)?;
    let (status, syndrome) = (head.status(), head.syndrome());
    if status != Ok(Status::OK) {
        return Err(Failure::Refused { status, syndrome });
    }
    let (fixed, tail) = O::split(output).ok_or(Failure::Garbage)?;
    Ok((fixed.clone(), tail.to_vec()))
}
