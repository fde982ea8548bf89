// SPDX-License-Identifier: GPL-2.0

//! Objects in the firmware, as values that destroy themselves.
//!
//! The command that ends an [`Object`] is there before the one that makes it is sent: who drops an
//! object needs no memory for it, and what has no number of its own, as an entry of a flow table, is
//! ended like everything else.
//!
//! What the firmware may use on behalf of an object lives as long as the object. If that cannot be
//! ended, or if nobody knows whether it was made, what it uses is [buried](Firmware::bury) until the
//! firmware is stopped.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::{
    cq::{
        CreateCq,
        DestroyCq, //
    },
    flow::{
        CreateFlowGroup,
        CreateFlowTable,
        DestroyFlowGroup,
        DestroyFlowTable, //
    },
    mkey::{
        CreateMkey,
        DestroyMkey, //
    },
    pd::{
        AllocPd,
        AllocTransportDomain,
        DeallocPd,
        DeallocTransportDomain, //
    },
    qp::{
        CreateQp,
        DestroyQp, //
    },
    rqt::{
        CreateRqt,
        DestroyRqt, //
    },
    tir::{
        CreateTir,
        DestroyTir, //
    },
    tis::{
        CreateTis,
        DestroyTis, //
    },
    umem::{
        CreateUmem,
        DestroyUmem, //
    },
    virtq::{
        CreateVirtioNetQ,
        CreateVirtioQCounters,
        DestroyVirtioNetQ,
        DestroyVirtioQCounters, //
    },
    Command, //
};

use super::{
    batch::Batch,
    command::{
        queue::Outcome,
        Failure,
        Reply,
        Request, //
    },
    firmware::{
        Firmware,
        Remains, //
    }, //
};

/// A command that makes an object with a number, and the one that ends it.
pub(crate) trait Create: Command {
    /// Ends the object.
    type End: Command;

    /// The number the object was given.
    fn id(output: &Self::Output) -> u32;

    /// Says which object is to be ended.
    fn name(end: &mut <Self::End as Command>::Input, id: u32);
}

/// The number an object has in the answer to the command that makes it, and where it goes in the one
/// that ends it.
macro_rules! creations {
    ($($create:ident { $id:ident } => $end:ident { $set:ident },)*) => {$(
        impl Create for $create {
            type End = $end;

            fn id(output: &Self::Output) -> u32 {
                output.$id()
            }

            fn name(end: &mut <$end as Command>::Input, id: u32) {
                end.$set(id);
            }
        }
    )*};
}

creations! {
    AllocPd { pd } => DeallocPd { set_pd },
    AllocTransportDomain { transport_domain } => DeallocTransportDomain { set_transport_domain },
    CreateCq { cqn } => DestroyCq { set_cqn },
    CreateFlowGroup { group_id } => DestroyFlowGroup { set_group_id },
    CreateFlowTable { table_id } => DestroyFlowTable { set_table_id },
    CreateMkey { mkey_index } => DestroyMkey { set_mkey_index },
    CreateQp { qpn } => DestroyQp { set_qpn },
    CreateRqt { rqtn } => DestroyRqt { set_rqtn },
    CreateTir { tirn } => DestroyTir { set_tirn },
    CreateTis { tisn } => DestroyTis { set_tisn },
    CreateUmem { umem_id } => DestroyUmem { set_umem_id },
    CreateVirtioNetQ { obj_id } => DestroyVirtioNetQ { set_obj_id },
    CreateVirtioQCounters { obj_id } => DestroyVirtioQCounters { set_obj_id },
}

/// Reads the number of the object that `C` made, and says in the request for its end which it is.
pub(super) fn number<C: Create>(reply: &Reply, end: &mut Request) -> Result<u32, Failure> {
    let id = C::id(reply.read::<C>()?.0);
    end.change::<C::End>(|input| C::name(input, id));
    Ok(id)
}

/// What is made has no number.
pub(super) fn no_number(_reply: &Reply, _end: &mut Request) -> Result<u32, Failure> {
    Ok(0)
}

/// An object that is being made.
pub(super) struct Making {
    end: Request,
    number: fn(&Reply, &mut Request) -> Result<u32, Failure>,
    uses: KVec<Arc<dyn Remains>>,
}

impl Making {
    pub(super) fn new(
        end: Request,
        number: fn(&Reply, &mut Request) -> Result<u32, Failure>,
        uses: KVec<Arc<dyn Remains>>,
    ) -> Self {
        Self { end, number, uses }
    }

    /// What became of it.
    pub(super) fn settle(
        mut self,
        firmware: &Arc<Firmware>,
        outcome: Outcome,
    ) -> Result<Object, Failure> {
        let number = outcome.and_then(|reply| (self.number)(&reply, &mut self.end));
        match number {
            Ok(id) => Ok(Object {
                firmware: firmware.clone(),
                id,
                end: self.end,
                uses: self.uses,
                is_over: false,
            }),
            Err(failure) => {
                if failure.is_in_doubt() {
                    firmware.distrust();
                    firmware.bury_all(self.uses);
                }
                Err(failure)
            }
        }
    }
}

/// An object in the firmware. Dropped, it is destroyed; if that fails, what it used is buried.
pub(crate) struct Object {
    firmware: Arc<Firmware>,
    id: u32,
    end: Request,
    uses: KVec<Arc<dyn Remains>>,
    is_over: bool,
}

impl Object {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The request that ends it.
    pub(super) fn end(&self) -> &Request {
        &self.end
    }

    /// Its end was asked for: `outcome` is what came of it.
    pub(super) fn settle(mut self, outcome: Outcome) -> Outcome {
        self.finish(outcome)
    }

    fn finish(&mut self, outcome: Outcome) -> Outcome {
        self.is_over = true;
        outcome.inspect_err(|failure| {
            self.firmware.failed(failure);
            self.firmware.bury_all(core::mem::take(&mut self.uses));
        })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if !self.is_over {
            let outcome = self.firmware.execute_request(&self.end);
            // A failure is in the log.
            let _ = self.finish(outcome);
        }
    }
}

/// Ends many objects at once: none may need another that is ended with it.
///
/// # Errors
///
/// The first [`Failure`]; what failed is in the log as well. What could not be ended for want of
/// memory for all of it together was ended one by one.
pub(crate) fn end_all(objects: impl IntoIterator<Item = Object>) -> Result<(), Failure> {
    let mut objects = objects.into_iter();
    let Some(first) = objects.next() else {
        return Ok(());
    };
    let mut batch = Batch::new(&first.firmware, 0);
    let mut put = batch.end(first);
    for object in objects {
        put = put.and(batch.end(object));
    }
    let ended = batch.run()?.rest();
    put.and(ended)
}
