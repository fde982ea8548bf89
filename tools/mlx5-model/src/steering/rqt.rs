// SPDX-License-Identifier: GPL-2.0

//! Tables of receive queues: what a receive interface spreads frames over.

use std::{
    any::Any,
    sync::{
        Arc,
        RwLock, //
    }, //
};

use prm::{
    command::OutputHeader,
    rqt::{
        CreateRqt,
        CreateRqtIn,
        CreateRqtOut,
        DestroyRqt,
        DestroyRqtIn,
        ListQType,
        ModifyRqt,
        ModifyRqtIn,
        QueryRqt,
        QueryRqtIn,
        QueryRqtOut,
        RqNum,
        RqtContext, //
    },
    Layout, //
};
use zerocopy::IntoBytes;

use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    object::{
        self,
        Handle, //
    },
    refusal::Refusal,
    steering::{
        change,
        look,
        ReceiveQueue, //
    }, //
};

/// An entry of a table: a queue that is in use as long as the entry is there.
pub struct Queue {
    id: u32,
    queue: Arc<dyn ReceiveQueue>,
    _user: Box<dyn Any + Send + Sync>,
}

impl Queue {
    /// Makes an entry of a queue, whatever its type.
    pub fn new<T: ReceiveQueue + 'static>(handle: Handle<T>) -> Self {
        Self {
            id: handle.id(),
            queue: handle.share(),
            _user: Box::new(handle),
        }
    }
}

/// A table of receive queues.
pub struct Rqt {
    max_size: u16,
    /// Never empty.
    queues: RwLock<Vec<Queue>>,
}

impl Rqt {
    /// Makes a table that can have up to `max_size` entries.
    ///
    /// # Errors
    ///
    /// [`Refusal::QueueListSize`] if there are none, or too many.
    pub(super) fn new(max_size: u16, queues: Vec<Queue>) -> Result<Self, Refusal> {
        check_size(queues.len(), max_size)?;
        Ok(Self {
            max_size,
            queues: RwLock::new(queues),
        })
    }

    /// Replaces the entries.
    ///
    /// # Errors
    ///
    /// As [`Rqt::new`].
    pub(super) fn set_queues(&self, queues: Vec<Queue>) -> Result<(), Refusal> {
        check_size(queues.len(), self.max_size)?;
        *change(&self.queues) = queues;
        Ok(())
    }

    /// Shows the queue for a frame whose hash is `hash` to `then`.
    pub(super) fn with_queue(&self, hash: u32, then: impl FnOnce(&Arc<dyn ReceiveQueue>)) {
        let queues = look(&self.queues);
        // An index into a vector fits 32 bits here: a table has at most 65535 entries.
        let index = hash.checked_rem(queues.len() as u32).unwrap_or(0);
        if let Some(entry) = queues.get(index as usize) {
            then(&entry.queue);
        }
    }

    /// Returns whether the choice needs no hash.
    pub(super) fn is_single(&self) -> bool {
        look(&self.queues).len() == 1
    }
}

fn check_size(size: usize, max: u16) -> Result<(), Refusal> {
    if size == 0 || size > usize::from(max) {
        return Err(Refusal::QueueListSize);
    }
    Ok(())
}

/// The entries that `tail` lists.
fn queues(hca: &Hca, context: &RqtContext, tail: &[u8]) -> Result<Vec<Queue>, Refusal> {
    if context.list_q_type() != Ok(ListQType::VIRTIO_NET_Q) || context.rq_vhca_id_format() {
        return Err(Refusal::QueueListType);
    }
    let mut rest = tail;
    let mut queues = Vec::new();
    for _ in 0..context.rqt_actual_size() {
        let (entry, after) = RqNum::split(rest).ok_or(Refusal::InputTooShort)?;
        queues.push(hca.virtqs.receive_queue(entry.rq_num())?);
        rest = after;
    }
    Ok(queues)
}

impl Execute for CreateRqt {
    fn execute(
        hca: &mut Hca,
        input: &CreateRqtIn,
        tail: &[u8],
    ) -> Result<Reply<CreateRqtOut>, Refusal> {
        let context = input.rqt_context();
        let queues = queues(hca, context, tail)?;
        let most = object::count(hca.platform.profile.general.log_max_rqt_size());
        if u32::from(context.rqt_max_size()) > most {
            return Err(Refusal::QueueListSize);
        }
        let rqt = Rqt::new(context.rqt_max_size(), queues)?;
        let mut output = CreateRqtOut::new();
        output.set_rqtn(hca.steering.rqts.add(rqt)?);
        Ok(output.into())
    }
}

impl Execute for ModifyRqt {
    fn execute(
        hca: &mut Hca,
        input: &ModifyRqtIn,
        tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        let rqt = hca.steering.rqts.get(input.rqtn())?.clone();
        if !input.bitmask().rqn_list() {
            return Err(Refusal::Unchangeable);
        }
        rqt.set_queues(queues(hca, input.ctx(), tail)?)?;
        // What was on its way to a queue that is no longer there arrives before it can go.
        hca.steering.receiver.settle();
        Ok(Reply::done())
    }
}

impl Execute for DestroyRqt {
    fn execute(
        hca: &mut Hca,
        input: &DestroyRqtIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.steering.rqts.remove(input.rqtn())?;
        hca.steering.receiver.settle();
        Ok(Reply::done())
    }
}

impl Execute for QueryRqt {
    fn execute(
        hca: &mut Hca,
        input: &QueryRqtIn,
        _tail: &[u8],
    ) -> Result<Reply<QueryRqtOut>, Refusal> {
        let rqt = hca.steering.rqts.get(input.rqtn())?;
        let queues = look(&rqt.queues);
        let mut reply = Reply::from(QueryRqtOut::new());
        reply
            .output
            .rqt_context_mut()
            .set_list_q_type(ListQType::VIRTIO_NET_Q)
            .set_rqt_max_size(rqt.max_size)
            .set_rqt_actual_size(queues.len() as u16);
        for queue in queues.iter() {
            let mut entry = RqNum::new();
            entry.set_rq_num(queue.id);
            reply.tail.extend_from_slice(entry.as_bytes());
        }
        Ok(reply)
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateRqt>(),
    handler::<ModifyRqt>(),
    handler::<DestroyRqt>(),
    handler::<QueryRqt>(),
];
