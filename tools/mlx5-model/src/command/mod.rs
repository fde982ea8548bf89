// SPDX-License-Identifier: GPL-2.0

//! Commands: from the bytes of an input to the area that executes it, and back.

use prm::{
    layout::Info,
    Command,
    Layout,
    ObjectType,
    Opcode, //
};
use zerocopy::IntoBytes;

use crate::{
    hca::Hca,
    refusal::Refusal, //
};

/// What a command answers: its output, and what of it has no fixed length.
#[derive(Debug)]
pub struct Reply<O> {
    /// The fixed part; its status is set by who sends it.
    pub output: O,
    /// What follows it.
    pub tail: Vec<u8>,
}

impl<O: Layout> Reply<O> {
    /// A reply that says nothing but that it was done.
    pub fn done() -> Self {
        O::new().into()
    }
}

impl<O> From<O> for Reply<O> {
    fn from(output: O) -> Self {
        Self {
            output,
            tail: Vec::new(),
        }
    }
}

/// A command that the model executes.
pub trait Execute: Command {
    /// Does it.
    ///
    /// `tail` is what follows the fixed part of the input.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that the driver is told. Nothing has changed then.
    fn execute(
        hca: &mut Hca,
        input: &Self::Input,
        tail: &[u8],
    ) -> Result<Reply<Self::Output>, Refusal>;
}

/// A command without its types.
#[derive(Clone, Copy)]
pub struct Handler {
    /// What the firmware knows it by.
    pub opcode: Opcode,
    /// The type of general object it is for.
    pub object: Option<ObjectType>,
    /// The fields of its input.
    pub input: &'static Info,
    /// The fields of its output.
    pub output: &'static Info,
    /// Does it: from the whole input to the whole output, status and syndrome still 0.
    pub run: fn(&mut Hca, &[u8]) -> Result<Vec<u8>, Refusal>,
}

/// The handler of a command.
pub const fn handler<C: Execute>() -> Handler {
    fn run<C: Execute>(hca: &mut Hca, input: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (input, tail) = C::Input::split(input).ok_or(Refusal::InputTooShort)?;
        let reply = C::execute(hca, input, tail)?;
        let mut output = reply.output.as_bytes().to_vec();
        output.extend_from_slice(&reply.tail);
        Ok(output)
    }

    Handler {
        opcode: C::OPCODE,
        object: C::OBJECT,
        input: &C::Input::INFO,
        output: &C::Output::INFO,
        run: run::<C>,
    }
}

/// The commands of every area.
static AREAS: &[&[Handler]] = &[crate::eq::COMMANDS];

/// Finds a command.
///
/// # Errors
///
/// [`Refusal::UnknownOpcode`], or [`Refusal::UnknownObjectType`] if the opcode is one for many
/// types and `object` is not among them.
pub fn find(opcode: u16, object: u16) -> Result<&'static Handler, Refusal> {
    let opcode = Opcode::try_from(opcode).map_err(|_| Refusal::UnknownOpcode)?;
    let mut refusal = Refusal::UnknownOpcode;
    for handler in AREAS.iter().copied().flatten() {
        if handler.opcode != opcode {
            continue;
        }
        match handler.object {
            Some(type_) if type_ as u16 != object => refusal = Refusal::UnknownObjectType,
            _ => return Ok(handler),
        }
    }
    Err(refusal)
}
