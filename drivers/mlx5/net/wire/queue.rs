// SPDX-License-Identifier: GPL-2.0

//! Commands for virtqueue objects.

use prm::virtq::{
    modify,
    CreateVirtioNetQIn,
    EventMode,
    ModifyVirtioNetQIn,
    QueueType,
    State,
    VirtioNetQObject, //
};

use super::umem::Area;
use crate::net::queue::fields::Fields;

/// How a virtqueue tells its driver of used buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Events {
    /// By raising this vector.
    Vector(u16),
    /// By a message that this queue pair sends.
    QueuePair(u32),
}

/// What of a virtqueue is the same for all drivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueSpec {
    /// Its place in the device: even ones receive.
    pub(crate) index: u16,
    /// What it sends by, if it does not receive.
    pub(crate) tis: u32,
    /// How its driver is told of used buffers.
    pub(crate) events: Events,
    /// The firmware's own memory.
    pub(crate) areas: [Area; 3],
    /// Where it counts; 0 if it does not.
    pub(crate) counters: u32,
    /// The protection domain, to which the memory keys belong.
    pub(crate) pd: u32,
}

/// Fills in CREATE of a virtqueue that is `spec` for a driver that is `fields`.
pub(crate) fn create(input: &mut CreateVirtioNetQIn, spec: &QueueSpec, fields: &Fields) {
    let object = input.obj_context_mut();
    object.set_state(State::INIT);
    write(object, fields);
    if spec.index % 2 == 1 {
        object.set_tisn_or_qpn(spec.tis);
    }
    let (mode, by) = match spec.events {
        Events::Vector(vector) => (EventMode::MSIX_MODE, vector.into()),
        Events::QueuePair(qpn) => (EventMode::QP_MODE, qpn),
    };
    let [first, second, third] = spec.areas;
    object
        .virtio_q_context_mut()
        .set_virtio_q_type(QueueType::SPLIT)
        .set_event_mode(mode)
        .set_event_qpn_or_msix(by)
        .set_queue_index(spec.index)
        .set_queue_size(fields.size)
        .set_umem_1_id(first.umem)
        .set_umem_1_size(first.size)
        .set_umem_1_offset(first.offset)
        .set_umem_2_id(second.umem)
        .set_umem_2_size(second.size)
        .set_umem_2_offset(second.offset)
        .set_umem_3_id(third.umem)
        .set_umem_3_size(third.size)
        .set_umem_3_offset(third.offset)
        .set_counter_set_id(spec.counters)
        .set_pd(spec.pd);
}

/// Fills in MODIFY of virtqueue `id`: those of `fields` that `select` names, in bits of [`modify`],
/// and the state if there is one.
pub(crate) fn change(
    input: &mut ModifyVirtioNetQIn,
    id: u32,
    select: u64,
    fields: &Fields,
    state: Option<State>,
) {
    input.general_obj_in_cmd_hdr_mut().set_obj_id(id);
    let object = input.obj_context_mut();
    let mut select = select & !modify::STATE;
    if select != 0 {
        write(object, fields);
    }
    if let Some(state) = state {
        select |= modify::STATE;
        object.set_state(state);
    }
    object.set_modify_field_select(select);
}

fn write(object: &mut VirtioNetQObject, fields: &Fields) {
    let index = fields.index.unwrap_or(0);
    object
        .set_hw_available_index(index)
        .set_hw_used_index(index)
        .set_queue_features(fields.features);
    object
        .virtio_q_context_mut()
        .set_virtio_version_1_0(fields.version_1)
        .set_desc_addr(fields.desc)
        .set_available_addr(fields.driver)
        .set_used_addr(fields.device)
        .set_virtio_q_mkey(fields.mkey)
        .set_desc_group_mkey(fields.desc_mkey);
}
