// SPDX-License-Identifier: GPL-2.0

//! Commands that go to the firmware together.
//!
//! A [`Batch`] is filled with commands of any kind and run: the firmware has them all at once, and
//! executes them in no order. What came of each is asked for with the [`Ticket`] that it was put in
//! for.
//!
//! ```ignore
//! let mut batch = era.batch();
//! let pd = batch.create::<AllocPd>(|_| {})?;
//! let link = batch.push::<QueryVportState>(|_| {})?;
//! let mut replies = batch.run()?;
//! let pd: Object = replies.object(pd)?;
//! let link = replies.take(link)?;
//! ```
//!
//! Nothing gets lost on the way: what a batch made and nobody took is destroyed with its
//! [`Replies`], so that `?` may stand wherever something fails.

use core::marker::PhantomData;

use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::Command;

use super::{
    command::{
        Failure,
        Reason,
        Reply,
        Request, //
    },
    firmware::{
        Firmware,
        Remains, //
    },
    object::{
        self,
        Create,
        Making,
        Object, //
    }, //
};

/// Which command of a batch is meant.
pub(crate) struct Ticket<C: Command> {
    at: usize,
    command: PhantomData<C>,
}

impl<C: Command> Clone for Ticket<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: Command> Copy for Ticket<C> {}

/// What a command of a batch is for.
enum Item {
    /// Asks or changes something.
    Plain(Request),
    /// Makes an object.
    Makes(Request, Making),
    /// Ends one.
    Ends(Object),
}

impl AsRef<Request> for Item {
    fn as_ref(&self) -> &Request {
        match self {
            Self::Plain(request) | Self::Makes(request, _) => request,
            Self::Ends(object) => object.end(),
        }
    }
}

/// Commands to be executed together.
///
/// Dropped without being run, it does nothing; objects that were put in to be ended are ended then
/// one by one.
pub(crate) struct Batch {
    firmware: Arc<Firmware>,
    /// The user context on whose behalf the commands are.
    uid: u16,
    items: KVec<Item>,
}

impl Batch {
    /// No command yet. Those that make and use objects will carry user context `uid`.
    pub(crate) fn new(firmware: &Arc<Firmware>, uid: u16) -> Self {
        Self {
            firmware: firmware.clone(),
            uid,
            items: KVec::new(),
        }
    }

    /// Puts in the command `C`, the input of which is filled in by `fill`: not the opcode, nor the
    /// type of a general object, nor the user context.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn push<C: Command>(
        &mut self,
        fill: impl FnOnce(&mut C::Input),
    ) -> Result<Ticket<C>, Failure> {
        self.push_with::<C>(fill, &[], 0)
    }

    /// As [`Self::push`], with `tail` behind the fixed part of the input, and `room` bytes behind
    /// that of the output.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn push_with<C: Command>(
        &mut self,
        fill: impl FnOnce(&mut C::Input),
        tail: &[u8],
        room: usize,
    ) -> Result<Ticket<C>, Failure> {
        let request = Request::with_tail::<C>(fill, tail, room)?.on_behalf_of(self.uid);
        self.put(Item::Plain(request))
    }

    /// Puts in the command `C`, which makes an object: [`Replies::object`].
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn create<C: Create>(
        &mut self,
        fill: impl FnOnce(&mut C::Input),
    ) -> Result<Ticket<C>, Failure> {
        self.create_with::<C>(fill, &[], KVec::new(), |_| {})
    }

    /// As [`Self::create`]. `tail` goes behind the fixed part of the input; `uses` is what the
    /// object may use until it is gone; `end` fills in what the command that ends it needs beside
    /// the object's number.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn create_with<C: Create>(
        &mut self,
        fill: impl FnOnce(&mut C::Input),
        tail: &[u8],
        uses: KVec<Arc<dyn Remains>>,
        end: impl FnOnce(&mut <C::End as Command>::Input),
    ) -> Result<Ticket<C>, Failure> {
        let request = Request::with_tail::<C>(fill, tail, 0)?.on_behalf_of(self.uid);
        // Here, so that who has an object needs no memory to end it.
        let end = Request::new::<C::End>(end)?.on_behalf_of(self.uid);
        let making = Making::new(end, object::number::<C>, uses);
        self.put(Item::Makes(request, making))
    }

    /// Puts in the command `C`, with `tail` behind the fixed part of its input, which makes
    /// something that has no number of its own, and is ended by the command `E` as `end` fills it
    /// in: an entry of a flow table. It is an [`Object`] with the number 0.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn establish<C: Command, E: Command>(
        &mut self,
        fill: impl FnOnce(&mut C::Input),
        tail: &[u8],
        end: impl FnOnce(&mut E::Input),
    ) -> Result<Ticket<C>, Failure> {
        let request = Request::with_tail::<C>(fill, tail, 0)?.on_behalf_of(self.uid);
        let end = Request::new::<E>(end)?.on_behalf_of(self.uid);
        let making = Making::new(end, object::no_number, KVec::new());
        self.put(Item::Makes(request, making))
    }

    /// Puts in the end of an object. What it used is given back when it is gone.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory; the object is ended then, by a command of its own.
    pub(crate) fn end(&mut self, object: Object) -> Result<(), Failure> {
        self.put::<prm::hca::Nop>(Item::Ends(object)).map(drop)
    }

    fn put<C: Command>(&mut self, item: Item) -> Result<Ticket<C>, Failure> {
        let at = self.items.len();
        let opcode = item.as_ref().opcode();
        self.items.push(item, GFP_KERNEL).map_err(|_| {
            let reason = Reason::NotSent(-ENOMEM.to_errno());
            reason.of(opcode)
        })?;
        Ok(Ticket {
            at,
            command: PhantomData,
        })
    }

    /// Has the commands executed, and waits for all of them.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory; none was executed then. What becomes of each command is in the
    /// replies.
    pub(crate) fn run(self) -> Result<Replies, Failure> {
        let Some(first) = self.items.first() else {
            return Ok(Replies {
                results: KVec::new(),
            });
        };
        let opcode = first.as_ref().opcode();
        let mut results = KVec::with_capacity(self.items.len(), GFP_KERNEL).map_err(|_| {
            let reason = Reason::NotSent(-ENOMEM.to_errno());
            reason.of(opcode)
        })?;
        let outcomes = self.firmware.execute_all(&self.items)?;
        for (item, outcome) in self.items.into_iter().zip(outcomes) {
            let result = match item {
                Item::Plain(_) => Came::Reply(outcome),
                Item::Makes(_, making) => Came::Object(making.settle(&self.firmware, outcome)),
                Item::Ends(object) => Came::Reply(object.settle(outcome)),
            };
            // There is room for all.
            let _ = results.push_within_capacity(result);
        }
        Ok(Replies { results })
    }
}

/// What came of a command.
enum Came {
    Reply(Result<Reply, Failure>),
    Object(Result<Object, Failure>),
    Taken,
}

/// What came of the commands of a batch.
///
/// Objects that were not taken are destroyed with it.
pub(crate) struct Replies {
    results: KVec<Came>,
}

impl Replies {
    fn came(&mut self, at: usize) -> Came {
        self.results
            .get_mut(at)
            .map_or(Came::Taken, |came| core::mem::replace(came, Came::Taken))
    }

    /// The reply to a command, to be read with [`Reply::read`]. Each is there once.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(crate) fn take<C: Command>(&mut self, ticket: Ticket<C>) -> Result<Reply, Failure> {
        match self.came(ticket.at) {
            Came::Reply(reply) => reply,
            _ => Err(Reason::Garbled.of(C::OPCODE)),
        }
    }

    /// The object that a command made. Each is there once.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(crate) fn object<C: Command>(&mut self, ticket: Ticket<C>) -> Result<Object, Failure> {
        match self.came(ticket.at) {
            Came::Object(object) => object,
            _ => Err(Reason::Garbled.of(C::OPCODE)),
        }
    }

    /// The first failure of all commands whose replies were not taken, the ends of objects among
    /// them. Objects that were not taken are destroyed.
    ///
    /// # Errors
    ///
    /// That [`Failure`].
    pub(crate) fn rest(mut self) -> Result<(), Failure> {
        for came in self.results.iter_mut() {
            match core::mem::replace(came, Came::Taken) {
                Came::Reply(Err(failure)) | Came::Object(Err(failure)) => return Err(failure),
                other => *came = other,
            }
        }
        Ok(())
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        let objects = self.results.iter_mut().filter_map(|came| {
            match core::mem::replace(came, Came::Taken) {
                Came::Object(Ok(object)) => Some(object),
                _ => None,
            }
        });
        // What cannot be ended is in the log.
        let _ = object::end_all(objects);
    }
}
