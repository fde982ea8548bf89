// SPDX-License-Identifier: GPL-2.0

//! The function: everything between PCI and what a network device is made of.
//!
//! ```text
//!   function    as long as its device is bound: watched, brought up again
//!      |        interrupts, doorbell; clients, who are told
//!      |
//!   running     bring-up and teardown
//!      |        era: one life of the firmware, for who makes objects; batch, object
//!      |
//!   channel     what virtqueues tell of used buffers by, where they cannot interrupt
//!      |
//!   eq, pages, health, capability, events
//!      |
//!   firmware    what every object holds on to
//!      |
//!   command     typed commands, the queue of them
//!      |
//!   init_segment, registers
//! ```
//!
//! Objects in the firmware are values that destroy themselves when they are dropped, so the order
//! of fields is the order of teardown, and a bring-up that fails half-way is undone by its local
//! variables. Once the firmware was given up nothing speaks to it any more.
//!
//! What the firmware may still write to is never given back to the system before the firmware is
//! stopped: memory of objects that could not be destroyed and of commands that did not come back is
//! kept in [`firmware`] and the [command queue](command::queue), and at the end the function is
//! disabled and its bus mastering switched off.

mod batch;
mod capability;
mod channel;
mod clients;
mod command;
mod doorbell;
mod eq;
mod era;
mod events;
mod firmware;
mod function;
mod health;
mod init_segment;
mod interrupts;
mod object;
mod pages;
mod registers;
mod running;

pub(crate) use self::{
    batch::{
        Batch,
        Replies,
        Ticket, //
    },
    capability::Capabilities,
    channel::{
        Channel,
        Defect,
        Told, //
    },
    clients::{
        Client,
        Membership, //
    },
    command::{
        Failure,
        Reason, //
    },
    doorbell::Doorbell,
    era::Era,
    events::{
        Listener,
        Listening,
        Subject, //
    },
    firmware::Remains,
    function::{
        bring_up,
        condition::Stage,
        Function, //
    },
    interrupts::{
        Taken,
        Used, //
    },
    object::{
        end_all,
        Object, //
    }, //
};
