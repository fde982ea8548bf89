// SPDX-License-Identifier: GPL-2.0

//! Firmware commands, as values: what is asked, and what came back.
//!
//! A [`Request`] is the input of a command with its type forgotten, so that commands of different
//! types go in one batch; the [`Reply`] to it is read by the type again.

pub(crate) mod failure;
mod mailbox;
pub(crate) mod queue;
mod slots;
pub(crate) mod tally;
mod times;
mod user;

use kernel::{
    alloc::AllocError,
    prelude::*, //
};
use prm::{
    command::{
        InputHeader,
        ObjectInputHeader,
        OutputHeader, //
    },
    layout::set_bits,
    Command,
    Layout,
    ObjectType,
    Opcode,
    Status, //
};
use zerocopy::FromBytes;

pub(crate) use self::failure::{
    Failure,
    Reason, //
};
use self::{
    slots::Lane,
    times::Kind, //
};

impl Failure {
    /// The command `C` was not sent.
    pub(crate) fn not_sent<C: Command>(error: Error) -> Self {
        not_sent(error).of(C::OPCODE)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::from_errno(-failure.errno())
    }
}

/// A command to be executed.
pub(crate) struct Request {
    opcode: Opcode,
    object: Option<ObjectType>,
    input: KVVec<u8>,
    /// The length of the output in bytes.
    room: usize,
}

impl Request {
    /// The command `C`, the fixed part of the input of which is filled in by `fill`, but for the
    /// opcode and the type of object.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn new<C: Command>(fill: impl FnOnce(&mut C::Input)) -> Result<Self, Failure> {
        Self::with_tail::<C>(fill, &[], 0)
    }

    /// As [`Self::new`], with `tail` behind the fixed part of the input and `room` bytes behind
    /// that of the output.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn with_tail<C: Command>(
        fill: impl FnOnce(&mut C::Input),
        tail: &[u8],
        room: usize,
    ) -> Result<Self, Failure> {
        let no_memory = |error: AllocError| Failure::not_sent::<C>(error.into());
        let fixed = C::Input::INFO.bytes;
        let mut input = KVVec::with_capacity(fixed + tail.len(), GFP_KERNEL).map_err(no_memory)?;
        // Some are too large for the stack.
        input
            .extend_with(fixed, 0u8, GFP_KERNEL)
            .map_err(no_memory)?;
        if let Ok(structure) = C::Input::mut_from_bytes(&mut input) {
            fill(structure);
        }
        set::<InputHeader>(&mut input, "opcode", C::OPCODE as u64);
        if let Some(object) = C::OBJECT {
            set::<ObjectInputHeader>(&mut input, "obj_type", object as u64);
        }
        input
            .extend_from_slice(tail, GFP_KERNEL)
            .map_err(no_memory)?;
        Ok(Self {
            opcode: C::OPCODE,
            object: C::OBJECT,
            input,
            room: C::Output::INFO.bytes + room,
        })
    }

    /// The command.
    pub(crate) fn opcode(&self) -> Opcode {
        self.opcode
    }

    /// Changes the fixed part of the input, if it is that of `C`: not the opcode, nor the type of
    /// object. Returns whether it is.
    pub(crate) fn change<C: Command>(&mut self, change: impl FnOnce(&mut C::Input)) -> bool {
        let fixed = self.input.get_mut(..C::Input::INFO.bytes);
        match fixed.map(C::Input::mut_from_bytes) {
            Some(Ok(structure)) if self.opcode == C::OPCODE => {
                change(structure);
                true
            }
            _ => false,
        }
    }

    /// The same command on behalf of user context `uid`, if it is one that makes or uses what user
    /// contexts own; 0 is the driver itself.
    pub(crate) fn on_behalf_of(mut self, uid: u16) -> Self {
        if user::is_owned(self.opcode) {
            set::<InputHeader>(&mut self.input, "uid", uid.into());
        }
        self
    }

    /// What it is counted as.
    fn kind(&self) -> Kind {
        Kind {
            opcode: self.opcode,
            object: self.object,
        }
    }

    fn lane(&self) -> Lane {
        match self.opcode {
            Opcode::MANAGE_PAGES => Lane::Pages,
            _ => Lane::General,
        }
    }
}

impl AsRef<Request> for Request {
    fn as_ref(&self) -> &Request {
        self
    }
}

/// Sets a field of a header of every input.
fn set<L: Layout>(input: &mut [u8], name: &str, value: u64) {
    if let Some(field) = L::INFO.field(name) {
        set_bits(input, field.offset, field.width, value);
    }
}

/// Why a command was not sent.
fn not_sent(error: Error) -> Reason {
    Reason::NotSent(-error.to_errno())
}

/// The output of a command that the firmware executed, and did not refuse.
pub(crate) struct Reply {
    opcode: Opcode,
    output: KVVec<u8>,
}

impl Reply {
    /// # Errors
    ///
    /// The refusal, if the output is one.
    fn new(opcode: Opcode, output: KVVec<u8>) -> Result<Self, Failure> {
        let (head, _) = OutputHeader::split(&output).ok_or(Reason::Garbled.of(opcode))?;
        let (status, syndrome) = (head.status(), head.syndrome());
        if status != Ok(Status::OK) {
            return Err(Reason::Refused { status, syndrome }.of(opcode));
        }
        Ok(Self { opcode, output })
    }

    /// The fixed part of the output, and what follows it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if this is the reply to another command.
    pub(crate) fn read<C: Command>(&self) -> Result<(&C::Output, &[u8]), Failure> {
        if self.opcode != C::OPCODE {
            return Err(Reason::Garbled.of(C::OPCODE));
        }
        C::Output::split(&self.output).ok_or(Reason::Garbled.of(C::OPCODE))
    }
}
