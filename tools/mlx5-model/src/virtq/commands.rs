// SPDX-License-Identifier: GPL-2.0

//! Commands for virtqueues and their counters.

use prm::{
    command::{
        ObjectInputHeader,
        ObjectOutputHeader, //
    },
    virtq::{
        CreateVirtioNetQ,
        CreateVirtioNetQIn,
        CreateVirtioQCounters,
        CreateVirtioQCountersIn,
        DestroyVirtioNetQ,
        DestroyVirtioQCounters,
        EventMode,
        ModifyVirtioNetQ,
        ModifyVirtioNetQIn,
        QueryVirtioNetQ,
        QueryVirtioNetQOut,
        QueryVirtioQCounters,
        QueryVirtioQCountersOut,
        VirtioNetQObject,
        VirtioQ, //
    },
    Layout,
    ObjectType, //
};

use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    object::Handle,
    refusal::Refusal,
    umem::Umem, //
};

use super::{
    counters::Counters,
    object::{
        Notifier,
        Parts, //
    },
    settings::Limits,
    Virtq, //
};

/// Refuses objects of a type that the profile does not have.
fn check_type(hca: &Hca, type_: ObjectType) -> Result<(), Refusal> {
    if (hca.platform.profile.general.general_obj_types() >> (type_ as u16)) & 1 == 0 {
        return Err(Refusal::UnknownObjectType);
    }
    Ok(())
}

/// Uses the three umems of a virtqueue.
fn umems(hca: &Hca, limits: &Limits, queue: &VirtioQ) -> Result<[Handle<Umem>; 3], Refusal> {
    let [needed_1, needed_2, needed_3] = limits.umem_sizes(queue.queue_size());
    let umem = |id: u32, size: u32, offset: u64, needed: u64| {
        let umem = hca.umems.hold(id)?;
        let end = offset.checked_add(size.into());
        if u64::from(size) < needed || end.is_none_or(|end| end > umem.size()) {
            return Err(Refusal::UmemTooSmall);
        }
        Ok(umem)
    };
    Ok([
        umem(
            queue.umem_1_id(),
            queue.umem_1_size(),
            queue.umem_1_offset(),
            needed_1,
        )?,
        umem(
            queue.umem_2_id(),
            queue.umem_2_size(),
            queue.umem_2_offset(),
            needed_2,
        )?,
        umem(
            queue.umem_3_id(),
            queue.umem_3_size(),
            queue.umem_3_offset(),
            needed_3,
        )?,
    ])
}

/// Uses what a virtqueue refers to.
fn parts(hca: &Hca, limits: &Limits, object: &VirtioNetQObject) -> Result<Parts, Refusal> {
    let queue = object.virtio_q_context();
    let event = queue.event_qpn_or_msix();
    Ok(Parts {
        pd: hca.pds.hold(queue.pd())?,
        umems: umems(hca, limits, queue)?,
        counters: match queue.counter_set_id() {
            0 => None,
            id => Some(hca.virtqs.counters.hold(id)?),
        },
        // Queues come in pairs: one that receives, one that transmits.
        tis: match queue.queue_index() % 2 {
            0 => None,
            _ => Some(hca.steering.tises.hold(object.tisn_or_qpn())?),
        },
        notifier: match queue.event_mode() {
            Ok(EventMode::QP_MODE) => Notifier::Qp(hca.platform.qps.hold(event)?),
            Ok(EventMode::MSIX_MODE) => Notifier::Msix(hca.platform.vector(event)?),
            _ => Notifier::None,
        },
    })
}

impl Execute for CreateVirtioNetQ {
    fn execute(
        hca: &mut Hca,
        input: &CreateVirtioNetQIn,
        _tail: &[u8],
    ) -> Result<Reply<ObjectOutputHeader>, Refusal> {
        check_type(hca, ObjectType::VIRTIO_NET_Q)?;
        let object = input.obj_context();
        let limits = Limits::new(&hca.platform.profile);
        limits.check(object)?;
        let parts = parts(hca, &limits, object)?;
        let mut object = object.clone();
        object.set_modify_field_select(0);
        object.virtio_q_context_mut().set_error_type(0);
        let queue = Virtq::new(hca.platform.clone(), limits, object, parts);
        let id = hca.virtqs.queues.add(queue)?;
        if let Err(refusal) = hca.virtqs.queues.get(id)?.open(id) {
            hca.virtqs.queues.remove(id)?;
            return Err(refusal);
        }
        let mut output = ObjectOutputHeader::new();
        output.set_obj_id(id);
        Ok(output.into())
    }
}

impl Execute for ModifyVirtioNetQ {
    fn execute(
        hca: &mut Hca,
        input: &ModifyVirtioNetQIn,
        _tail: &[u8],
    ) -> Result<Reply<ObjectOutputHeader>, Refusal> {
        let id = input.general_obj_in_cmd_hdr().obj_id();
        hca.virtqs.get(id)?.modify(input.obj_context())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryVirtioNetQ {
    fn execute(
        hca: &mut Hca,
        input: &ObjectInputHeader,
        _tail: &[u8],
    ) -> Result<Reply<QueryVirtioNetQOut>, Refusal> {
        let mut output = QueryVirtioNetQOut::new();
        *output.obj_context_mut() = hca.virtqs.get(input.obj_id())?.query();
        Ok(output.into())
    }
}

impl Execute for DestroyVirtioNetQ {
    fn execute(
        hca: &mut Hca,
        input: &ObjectInputHeader,
        _tail: &[u8],
    ) -> Result<Reply<ObjectOutputHeader>, Refusal> {
        hca.virtqs.queues.remove(input.obj_id())?.close();
        Ok(Reply::done())
    }
}

impl Execute for CreateVirtioQCounters {
    fn execute(
        hca: &mut Hca,
        _input: &CreateVirtioQCountersIn,
        _tail: &[u8],
    ) -> Result<Reply<ObjectOutputHeader>, Refusal> {
        check_type(hca, ObjectType::VIRTIO_Q_COUNTERS)?;
        let mut output = ObjectOutputHeader::new();
        output.set_obj_id(hca.virtqs.counters.add(Counters::default())?);
        Ok(output.into())
    }
}

impl Execute for QueryVirtioQCounters {
    fn execute(
        hca: &mut Hca,
        input: &ObjectInputHeader,
        _tail: &[u8],
    ) -> Result<Reply<QueryVirtioQCountersOut>, Refusal> {
        let mut output = QueryVirtioQCountersOut::new();
        let counters = hca.virtqs.counters.get(input.obj_id())?;
        counters.write(output.counters_mut());
        Ok(output.into())
    }
}

impl Execute for DestroyVirtioQCounters {
    fn execute(
        hca: &mut Hca,
        input: &ObjectInputHeader,
        _tail: &[u8],
    ) -> Result<Reply<ObjectOutputHeader>, Refusal> {
        hca.virtqs.counters.remove(input.obj_id())?;
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateVirtioNetQ>(),
    handler::<ModifyVirtioNetQ>(),
    handler::<QueryVirtioNetQ>(),
    handler::<DestroyVirtioNetQ>(),
    handler::<CreateVirtioQCounters>(),
    handler::<QueryVirtioQCounters>(),
    handler::<DestroyVirtioQCounters>(),
];
