// SPDX-License-Identifier: GPL-2.0

//! How commands are put to the firmware: the types of one command, the entry of the command queue,
//! and the mailboxes of what does not fit into it.

use crate::{
    layout::Info,
    Layout,
    ObjectType,
    Opcode,
    Status, //
};

/// A command, with the types of its input and output.
///
/// What has no fixed length, a list of pages for one, follows the input or the output.
pub trait Command {
    /// What the firmware knows it by.
    const OPCODE: Opcode;
    /// The type of general object it is for, if the opcode is one for many.
    const OBJECT: Option<ObjectType> = None;
    /// The fixed part of what the driver says.
    type Input: Layout;
    /// The fixed part of what the firmware answers.
    type Output: Layout;
}

/// Declares commands: each a type that has no values.
///
/// The opcode (and type of object), the input and the output.
#[macro_export]
macro_rules! commands {
    ($(
        $(#[$meta:meta])*
        $vis:vis $name:ident = $opcode:ident $(($object:ident))?: $input:ty => $output:ty;
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $vis enum $name {}

        impl $crate::Command for $name {
            const OPCODE: $crate::Opcode = $crate::Opcode::$opcode;
            $(const OBJECT: Option<$crate::ObjectType> = Some($crate::ObjectType::$object);)?
            type Input = $input;
            type Output = $output;
        }
    )*};
}

crate::values! {
    /// Whether a command reached the firmware: bits 7 to 1 of `status_own`. Where it did not,
    /// nothing was executed and there is no output.
    pub enum Delivery: u8 {
        /// It did.
        OK = 0x0,
        /// A signature is wrong.
        SIGNAT_ERR = 0x1,
        /// A mailbox has another token than its entry.
        TOK_ERR = 0x2,
        /// The mailboxes of a chain are not numbered from 0.
        BAD_BLK_NUM_ERR = 0x3,
        /// A mailbox of the output is not where mailboxes can be.
        OUT_PTR_ALIGN_ERR = 0x4,
        /// A mailbox of the input is not where mailboxes can be.
        IN_PTR_ALIGN_ERR = 0x5,
        /// An error inside the firmware.
        FW_ERR = 0x6,
        /// The length of the input is impossible, or its chain ends early.
        IN_LENGTH_ERR = 0x7,
        /// The length of the output is impossible, or its chain ends early.
        OUT_LENGTH_ERR = 0x8,
        /// A field that must be 0 is not.
        RES_FLD_NOT_CLR_ERR = 0x9,
        /// The entry is not one of this transport.
        CMD_DESCR_ERR = 0x10,
    }
}

/// The transport of commands to a PCI function: `type` of an [`Entry`].
pub const PCI_TRANSPORT: u8 = 7;

/// The bit of `status_own` that says that the firmware owns the entry.
pub const OWNED_BY_FIRMWARE: u8 = 1;

crate::layout! {
    /// What every input begins with.
    pub struct InputHeader = "", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is; 0 is the driver itself.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
    }

    /// What every output begins with; also the whole output of commands that answer nothing.
    pub struct OutputHeader = "", 0x08 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so, in the firmware's own numbers.
        syndrome: u32 @ 0x20, 32;
    }

    /// What every input for a general object begins with.
    pub struct ObjectInputHeader = "general_obj_in_cmd_hdr", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// The type of the object.
        obj_type: ObjectType @ 0x30, 16;
        /// Its id; not for creation.
        obj_id: u32 @ 0x40, 32;
    }

    /// What every output for a general object begins with.
    pub struct ObjectOutputHeader = "general_obj_out_cmd_hdr", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The id of the object.
        obj_id: u32 @ 0x40, 32;
    }

    /// An entry of the command queue.
    pub struct Entry = "mlx5_cmd_layout", 0x40 {
        /// The transport: 7 is PCI.
        transport("type"): u8 @ 0x00, 8;
        /// The length of the input in bytes.
        inlen: u32 @ 0x20, 32;
        /// The address of the first mailbox of the input.
        in_ptr: u64 @ 0x40, 64;
        /// The first bytes of the input.
        input("in"): [u8; 16] @ 0x80;
        /// The first bytes of the output.
        output("out"): [u8; 16] @ 0x100;
        /// The address of the first mailbox of the output.
        out_ptr: u64 @ 0x180, 64;
        /// The length of the output in bytes.
        outlen: u32 @ 0x1c0, 32;
        /// The same in the entry and in its mailboxes.
        token: u8 @ 0x1e0, 8;
        /// A signature, if signatures are used.
        sig: u8 @ 0x1e8, 8;
        /// In bit 0 whether the firmware owns the entry, above it how delivery went.
        status_own: u8 @ 0x1f8, 8;
    }

    /// A mailbox: one block of an input or output, chained to the next.
    pub struct Mailbox = "mlx5_cmd_prot_block", 0x240 {
        /// The payload.
        data: [u8; 512] @ 0x0;
        /// The address of the next mailbox; 0 in the last one.
        next: u64 @ 0x1180, 64;
        /// Counts the mailboxes of one input or output from 0.
        block_num: u32 @ 0x11c0, 32;
        /// The entry's token.
        token: u8 @ 0x11e8, 8;
        /// A signature of all but the payload, if signatures are used.
        ctrl_sig: u8 @ 0x11f0, 8;
        /// A signature of the whole, if signatures are used.
        sig: u8 @ 0x11f8, 8;
    }
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    InputHeader::INFO,
    OutputHeader::INFO,
    ObjectInputHeader::INFO,
    ObjectOutputHeader::INFO,
    Entry::INFO,
    Mailbox::INFO,
];
