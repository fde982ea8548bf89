// SPDX-License-Identifier: GPL-2.0

//! Commands: from the bytes of an input to the area that executes it, and back.

pub mod mailbox;
pub mod queue;

use prm::{
    command::{
        InputHeader,
        ObjectInputHeader,
        OutputHeader, //
    },
    layout::{
        bits,
        Info, //
    },
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
    /// How many bytes of tail the output must have room for before the command is done, if the
    /// driver could not do without them. Of any other, what does not fit is cut off.
    fn room(_hca: &Hca, _input: &Self::Input) -> usize {
        0
    }

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

/// Does a command: from the whole input to the whole output, status and syndrome still 0, which
/// has room in so many bytes.
pub type Run = fn(&mut Hca, &[u8], usize) -> Result<Vec<u8>, Refusal>;

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
    /// Does it.
    pub run: Run,
}

/// The handler of a command.
pub const fn handler<C: Execute>() -> Handler {
    fn run<C: Execute>(hca: &mut Hca, input: &[u8], outlen: usize) -> Result<Vec<u8>, Refusal> {
        let (input, tail) = C::Input::split(input).ok_or(Refusal::InputTooShort)?;
        if outlen < C::Output::INFO.bytes.saturating_add(C::room(hca, input)) {
            return Err(Refusal::OutputTooShort);
        }
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
static AREAS: &[&[Handler]] = &[
    crate::capability::COMMANDS,
    crate::cq::COMMANDS,
    crate::life::COMMANDS,
    crate::pages::COMMANDS,
    crate::register::COMMANDS,
    crate::vport::CONTEXT_COMMANDS,
    crate::vport::COUNTER_COMMANDS,
    crate::eq::COMMANDS,
    crate::mkey::COMMANDS,
    crate::pd::COMMANDS,
    crate::qp::COMMANDS,
    crate::steering::counter::COMMANDS,
    crate::steering::entry::COMMANDS,
    crate::steering::flow_table::COMMANDS,
    crate::steering::rqt::COMMANDS,
    crate::steering::tir::COMMANDS,
    crate::steering::tis::COMMANDS,
    crate::umem::COMMANDS,
    crate::uar::COMMANDS,
    crate::virtq::COMMANDS,
];

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

/// What became of a command.
#[derive(Default)]
pub struct Outcome {
    /// What it was, if it is one of the model's.
    pub handler: Option<&'static Handler>,
    /// Why it was refused, if it was.
    pub refusal: Option<Refusal>,
    /// The whole output.
    pub output: Vec<u8>,
}

impl Outcome {
    /// What became of a command that a fault struck, whose input is at least as long as every
    /// input.
    pub fn injected(input: &[u8], status: u8, syndrome: u32) -> Self {
        let (opcode, object) = identify(input);
        Self {
            handler: find(opcode, object.unwrap_or_default()).ok(),
            refusal: None,
            output: refused(status, syndrome),
        }
    }
}

/// Does a command, whose input is at least as long as every input: from the whole input to the
/// whole output, which has room in `outlen` bytes.
pub fn perform(hca: &mut Hca, input: &[u8], outlen: usize) -> Outcome {
    let (opcode, object) = identify(input);
    let found = find(opcode, object.unwrap_or_default());
    let handler = found.ok();
    match found.and_then(|handler| run(handler, hca, input, outlen)) {
        Ok(output) => Outcome {
            handler,
            refusal: None,
            output,
        },
        Err(refusal) => Outcome {
            handler,
            refusal: Some(refusal),
            output: refused(refusal.status() as u8, refusal.syndrome()),
        },
    }
}

/// The opcode of an input and, if the opcode is one for many, the type of general object.
pub fn identify(input: &[u8]) -> (u16, Option<u16>) {
    let number = |field: &str| {
        let field = ObjectInputHeader::INFO.field(field);
        field.map_or(0, |field| bits(input, field.offset, field.width) as u16)
    };
    let opcode = number("opcode");
    let general = matches!(
        Opcode::try_from(opcode),
        Ok(Opcode::CREATE_GENERAL_OBJECT
            | Opcode::MODIFY_GENERAL_OBJECT
            | Opcode::QUERY_GENERAL_OBJECT
            | Opcode::DESTROY_GENERAL_OBJECT)
    );
    (opcode, general.then(|| number("obj_type")))
}

fn run(handler: &Handler, hca: &mut Hca, input: &[u8], outlen: usize) -> Result<Vec<u8>, Refusal> {
    hca.life.permits(handler.opcode)?;
    if let Some((header, _)) = InputHeader::split(input).filter(|(header, _)| header.uid() != 0) {
        hca.uctxs.get(header.uid().into())?;
    }
    (handler.run)(hca, input, outlen)
}

/// The output of a command that was not done.
pub fn refused(status: u8, syndrome: u32) -> Vec<u8> {
    let mut output = OutputHeader::new();
    output.set_syndrome(syndrome);
    let mut output = output.as_bytes().to_vec();
    // It may be a number that is none of the reference's.
    output[0] = status;
    output
}
