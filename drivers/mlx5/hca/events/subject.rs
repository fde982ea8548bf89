// SPDX-License-Identifier: GPL-2.0

//! What events are about.

use prm::{
    eq::{
        Eqe,
        EqeComp,
        EqeCqErr,
        EqeObjChange,
        EqeQpSrq,
        EventType, //
    },
    Layout,
    ObjectType, //
};

/// What an event is about; an object by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A virtqueue changed by itself: it is in error.
    Virtqueue(u32),
    /// A completion queue has completions, and was armed for them.
    Completions(u32),
    /// A completion queue is in error.
    CompletionQueue(u32),
    /// A queue pair is in error.
    QueuePair(u32),
    /// The link of the function's port went up or down.
    Port,
}

/// Numbers of completion queues and queue pairs have 24 bits. What is above them in an event is
/// reserved, and may be anything.
const NUMBER: u32 = (1 << 24) - 1;

impl Subject {
    /// What `entry` is about, if it is one of these.
    pub(crate) fn of(entry: &Eqe) -> Option<Self> {
        let data = entry.data();
        match entry.event_type().ok()? {
            EventType::OBJECT_CHANGE => EqeObjChange::split(data)
                .filter(|(event, _)| event.obj_type() == ObjectType::VIRTIO_NET_Q as u16)
                .map(|(event, _)| Self::Virtqueue(event.obj_id())),
            EventType::COMP => {
                EqeComp::split(data).map(|(event, _)| Self::Completions(event.cqn() & NUMBER))
            }
            EventType::CQ_ERROR => {
                EqeCqErr::split(data).map(|(event, _)| Self::CompletionQueue(event.cqn() & NUMBER))
            }
            EventType::WQ_CATAS_ERROR
            | EventType::WQ_INVAL_REQ_ERROR
            | EventType::WQ_ACCESS_ERROR => EqeQpSrq::split(data)
                .filter(|(event, _)| event.queue_type() == 0)
                .map(|(event, _)| Self::QueuePair(event.qp_srq_n() & NUMBER)),
            EventType::PORT_CHANGE => Some(Self::Port),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event with one structure of data.
    fn event(kind: EventType, data: &impl Layout) -> Eqe {
        let mut entry = Eqe::new();
        entry.set_event_type(kind);
        let data = data.as_bytes();
        entry.data_mut()[..data.len()].copy_from_slice(data);
        entry
    }

    #[test]
    fn what_is_reserved_is_no_part_of_a_number() {
        for reserved in [0, 0xff00_0000] {
            let number = reserved | 0x12_3456;
            let mut data = EqeComp::new();
            data.set_cqn(number);
            let entry = event(EventType::COMP, &data);
            assert_eq!(Subject::of(&entry), Some(Subject::Completions(0x12_3456)));
            let mut data = EqeCqErr::new();
            data.set_cqn(number);
            let entry = event(EventType::CQ_ERROR, &data);
            let expected = Subject::CompletionQueue(0x12_3456);
            assert_eq!(Subject::of(&entry), Some(expected));
            for kind in [
                EventType::WQ_CATAS_ERROR,
                EventType::WQ_INVAL_REQ_ERROR,
                EventType::WQ_ACCESS_ERROR,
            ] {
                let mut data = EqeQpSrq::new();
                data.set_qp_srq_n(number);
                let entry = event(kind, &data);
                assert_eq!(Subject::of(&entry), Some(Subject::QueuePair(0x12_3456)));
                data.set_queue_type(1);
                assert_eq!(Subject::of(&event(kind, &data)), None);
            }
        }
    }

    #[test]
    fn ids_of_objects_have_32_bits() {
        let mut data = EqeObjChange::new();
        data.set_obj_type(ObjectType::VIRTIO_NET_Q as u16)
            .set_obj_id(0xff00_0001);
        let entry = event(EventType::OBJECT_CHANGE, &data);
        assert_eq!(Subject::of(&entry), Some(Subject::Virtqueue(0xff00_0001)));
    }
}
