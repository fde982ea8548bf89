// SPDX-License-Identifier: GPL-2.0

//! What a virtqueue is set to, and what of it may be changed when.
//!
//! ```text
//!   CREATE ──> INIT ──> RDY ──> SUSPEND        fields may be changed in INIT and in SUSPEND,
//!                        ↑         │           in the same command as the state or before it
//!                        └─────────┘           only with freeze_to_rdy_supported
//!               any of them ──> ERR            by itself; only DESTROY leads out
//! ```

use prm::virtq::{
    modify,
    EventMode,
    QueueType,
    State,
    VirtioNetQObject, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    ring::{
        self,
        Config, //
    },
};

use crate::{
    profile::Profile,
    refusal::Refusal, //
};

use super::ring::{
    features,
    options, //
};

/// What can be changed.
const KNOWN: u64 = modify::STATE
    | modify::DIRTY_BITMAP_PARAMS
    | modify::DIRTY_BITMAP_DUMP_ENABLE
    | modify::VIRTIO_Q_ADDRS
    | modify::VIRTIO_Q_AVAIL_IDX
    | modify::VIRTIO_Q_USED_IDX
    | modify::QUEUE_VIRTIO_VERSION
    | modify::VIRTIO_Q_MKEY
    | modify::QUEUE_FEATURES
    | modify::DESC_GROUP_MKEY;

/// What the firmware can do with virtqueues.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    queues: u32,
    split: bool,
    features: u16,
    version_1: bool,
    legacy: bool,
    event_modes: u8,
    resume: bool,
    desc_group: bool,
    /// Bytes for each entry, and besides, of each umem.
    umems: [(u32, u32); 3],
}

impl Limits {
    /// What the firmware of `profile` can do.
    pub fn new(profile: &Profile) -> Self {
        let cap = &profile.virtio;
        Self {
            queues: cap.max_num_virtio_queues(),
            split: cap.virtio_queue_type() & 1 != 0,
            features: cap.device_features_bits_mask(),
            version_1: cap.virtio_version_1_0(),
            legacy: profile.legacy,
            event_modes: cap.event_mode(),
            resume: cap.freeze_to_rdy_supported(),
            desc_group: cap.desc_group_mkey_supported(),
            umems: [
                (cap.umem_1_buffer_param_a(), cap.umem_1_buffer_param_b()),
                (cap.umem_2_buffer_param_a(), cap.umem_2_buffer_param_b()),
                (cap.umem_3_buffer_param_a(), cap.umem_3_buffer_param_b()),
            ],
        }
    }

    /// How many bytes each umem of a virtqueue of `size` entries must have.
    pub fn umem_sizes(&self, size: u16) -> [u64; 3] {
        self.umems
            .map(|(a, b)| u64::from(a) * u64::from(size) + u64::from(b))
    }

    /// Checks what a virtqueue is to be made as, but for other objects it refers to.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that the driver is told.
    pub fn check(&self, object: &VirtioNetQObject) -> Result<(), Refusal> {
        let queue = object.virtio_q_context();
        if queue.virtio_q_type() != Ok(QueueType::SPLIT) || !self.split {
            return Err(Refusal::QueueType);
        }
        if queue.full_emulation() || queue.offload_type() != 0 || queue.max_tunnel_desc() != 0 {
            return Err(Refusal::Emulation);
        }
        // No capability says how many entries it can have: as many as the standard allows, and
        // more than that do not fit in the field.
        if !queue.queue_size().is_power_of_two() {
            return Err(Refusal::QueueSize);
        }
        if u32::from(queue.queue_index()) >= self.queues {
            return Err(Refusal::QueueIndex);
        }
        // Linux takes bit 0 of the capability for the queue pair.
        let modes = match queue.event_mode() {
            Ok(EventMode::NO_MSIX_MODE) => u8::MAX,
            Ok(EventMode::QP_MODE) => 0b011,
            Ok(EventMode::MSIX_MODE) => 0b100,
            Err(_) => 0,
        };
        if self.event_modes & modes == 0 {
            return Err(Refusal::EventMode);
        }
        if object.state() != Ok(State::INIT) {
            return Err(Refusal::QueueState);
        }
        if object.dirty_bitmap_dump_enable() {
            return Err(Refusal::DirtyBitmap);
        }
        self.check_features(object.queue_features())?;
        self.check_version(queue.virtio_version_1_0())?;
        self.check_desc_group(queue.desc_group_mkey())
    }

    fn check_features(&self, features: u16) -> Result<(), Refusal> {
        if features & !self.features != 0 {
            return Err(Refusal::QueueFeatures);
        }
        Ok(())
    }

    fn check_version(&self, version_1: bool) -> Result<(), Refusal> {
        if !(if version_1 {
            self.version_1
        } else {
            self.legacy
        }) {
            return Err(Refusal::QueueVersion);
        }
        Ok(())
    }

    fn check_desc_group(&self, key: u32) -> Result<(), Refusal> {
        if key != 0 && !self.desc_group {
            return Err(Refusal::DescGroupMkey);
        }
        Ok(())
    }
}

/// The values of a field that a virtqueue has, from one object to another.
fn copy(field: u64, from: &VirtioNetQObject, to: &mut VirtioNetQObject) {
    let queue = from.virtio_q_context();
    match field {
        modify::STATE => {
            if let Ok(state) = from.state() {
                to.set_state(state);
            }
        }
        modify::VIRTIO_Q_ADDRS => {
            to.virtio_q_context_mut()
                .set_desc_addr(queue.desc_addr())
                .set_used_addr(queue.used_addr())
                .set_available_addr(queue.available_addr());
        }
        modify::VIRTIO_Q_AVAIL_IDX => {
            to.set_hw_available_index(from.hw_available_index());
        }
        modify::VIRTIO_Q_USED_IDX => {
            to.set_hw_used_index(from.hw_used_index());
        }
        modify::QUEUE_VIRTIO_VERSION => {
            to.virtio_q_context_mut()
                .set_virtio_version_1_0(queue.virtio_version_1_0());
        }
        modify::VIRTIO_Q_MKEY => {
            to.virtio_q_context_mut()
                .set_virtio_q_mkey(queue.virtio_q_mkey());
        }
        modify::QUEUE_FEATURES => {
            to.set_queue_features(from.queue_features());
        }
        modify::DESC_GROUP_MKEY => {
            to.virtio_q_context_mut()
                .set_desc_group_mkey(queue.desc_group_mkey());
        }
        _ => {}
    }
}

/// Returns what a virtqueue that is as `current` says becomes by the fields that `change` selects:
/// all of them or, if one cannot be changed so, none.
///
/// # Errors
///
/// The [`Refusal`] that the driver is told.
pub fn modified(
    current: &VirtioNetQObject,
    change: &VirtioNetQObject,
    limits: &Limits,
) -> Result<VirtioNetQObject, Refusal> {
    let select = change.modify_field_select();
    if select & !KNOWN != 0 {
        return Err(Refusal::ModifyField);
    }
    if select & (modify::DIRTY_BITMAP_PARAMS | modify::DIRTY_BITMAP_DUMP_ENABLE) != 0 {
        return Err(Refusal::DirtyBitmap);
    }
    let state = current.state().map_err(|_| Refusal::QueueState)?;
    if select & !modify::STATE != 0 && !matches!(state, State::INIT | State::SUSPEND) {
        return Err(Refusal::NotModifiable);
    }
    if select & modify::STATE != 0 {
        match (state, change.state().map_err(|_| Refusal::QueueState)?) {
            (State::INIT, State::RDY) | (State::RDY, State::SUSPEND) => {}
            (State::SUSPEND, State::RDY) if limits.resume => {}
            (State::SUSPEND, State::RDY) => return Err(Refusal::ResumeNotSupported),
            _ => return Err(Refusal::StateTransition),
        }
    }
    let mut next = current.clone();
    for bit in 0..u64::BITS {
        if (select >> bit) & 1 != 0 {
            copy(1 << bit, change, &mut next);
        }
    }
    limits.check_features(next.queue_features())?;
    limits.check_version(next.virtio_q_context().virtio_version_1_0())?;
    limits.check_desc_group(next.virtio_q_context().desc_group_mkey())?;
    Ok(next)
}

/// Where the rings of a virtqueue lie, where they stand, and what was negotiated.
pub fn ring(object: &VirtioNetQObject) -> (Config, ring::State, Features) {
    let queue = object.virtio_q_context();
    let config = Config {
        size: queue.queue_size(),
        desc: queue.desc_addr(),
        driver: queue.available_addr(),
        device: queue.used_addr(),
        // Legacy drivers too: the firmware knows no big-endian guests.
        byte_order: ByteOrder::Little,
        options: options(),
    };
    let state = ring::State::Split {
        avail: object.hw_available_index(),
        used: object.hw_used_index(),
    };
    let features = features(object.queue_features(), queue.virtio_version_1_0());
    (config, state, features)
}

#[cfg(test)]
mod tests {
    use prm::Layout;
    use proptest::prelude::*;

    use super::*;

    fn limits(resume: bool) -> Limits {
        Limits {
            queues: 8,
            split: true,
            features: 0x1f84,
            version_1: true,
            legacy: false,
            event_modes: 0b101,
            resume,
            desc_group: false,
            umems: [(1, 100), (2, 200), (3, 300)],
        }
    }

    fn object(state: State) -> VirtioNetQObject {
        let mut object = VirtioNetQObject::new();
        object.set_state(state).set_queue_features(0x404);
        object
            .virtio_q_context_mut()
            .set_queue_size(64)
            .set_virtio_version_1_0(true)
            .set_event_mode(EventMode::MSIX_MODE);
        object
    }

    const FIELDS: u64 = KNOWN & !modify::STATE;

    proptest! {
        #[test]
        fn every_state_and_mask(
            state in prop_oneof![
                Just(State::INIT), Just(State::RDY), Just(State::SUSPEND), Just(State::ERR)
            ],
            to in 0u64..16,
            select in prop_oneof![
                (0u64..1 << 16).prop_map(|bits| bits & KNOWN & !0x18),
                0u64..1 << 16,
            ],
            indices: (u16, u16),
            features in prop_oneof![Just(0x404u16), Just(0), Just(0x1f84), 0u16..0x2000],
            version_1: bool,
            resume: bool,
        ) {
            let current = object(state);
            let mut change = VirtioNetQObject::new();
            // The state is a number of 4 bits.
            prm::layout::set_bits(zerocopy::IntoBytes::as_mut_bytes(&mut change), 0x9c, 4, to);
            change
                .set_modify_field_select(select)
                .set_hw_available_index(indices.0)
                .set_hw_used_index(indices.1)
                .set_queue_features(features);
            change
                .virtio_q_context_mut()
                .set_virtio_version_1_0(version_1)
                .set_desc_addr(1).set_available_addr(2).set_used_addr(3)
                .set_virtio_q_mkey(4);

            let known = select & !KNOWN == 0 && select & 0x18 == 0;
            let still = matches!(state, State::INIT | State::SUSPEND);
            let has = |bit: u64| select & bit != 0;
            let follows = match (state, to) {
                (State::INIT, 1) | (State::RDY, 2) => true,
                (State::SUSPEND, 1) => resume,
                _ => false,
            };
            let good = known
                && (select & FIELDS == 0 || still)
                && (!has(modify::STATE) || follows)
                && (!has(modify::QUEUE_FEATURES) || features & !0x1f84 == 0)
                && (!has(modify::QUEUE_VIRTIO_VERSION) || version_1);
            match modified(&current, &change, &limits(resume)) {
                Ok(next) => {
                    prop_assert!(good);
                    let queue = next.virtio_q_context();
                    let pick = |bit: u64, new: u64, old: u64| if has(bit) { new } else { old };
                    prop_assert_eq!(
                        next.state().unwrap() as u64,
                        pick(modify::STATE, to, state as u64)
                    );
                    prop_assert_eq!(
                        u64::from(next.hw_available_index()),
                        pick(modify::VIRTIO_Q_AVAIL_IDX, indices.0.into(), 0)
                    );
                    prop_assert_eq!(
                        u64::from(next.hw_used_index()),
                        pick(modify::VIRTIO_Q_USED_IDX, indices.1.into(), 0)
                    );
                    prop_assert_eq!(queue.used_addr(), pick(modify::VIRTIO_Q_ADDRS, 3, 0));
                    prop_assert_eq!(
                        u64::from(queue.virtio_q_mkey()),
                        pick(modify::VIRTIO_Q_MKEY, 4, 0)
                    );
                    prop_assert_eq!(
                        u64::from(next.queue_features()),
                        pick(modify::QUEUE_FEATURES, features.into(), 0x404)
                    );
                    prop_assert_eq!(queue.queue_size(), 64);
                }
                Err(refusal) => prop_assert!(!good, "{:?}", refusal),
            }
        }
    }

    #[test]
    fn reasons_are_told_apart() {
        let refused = |state, select, to: State, resume| {
            let mut change = VirtioNetQObject::new();
            change.set_modify_field_select(select).set_state(to);
            modified(&object(state), &change, &limits(resume)).err()
        };
        for (state, select, to, resume, expected) in [
            (State::INIT, 1 << 2, State::INIT, true, Refusal::ModifyField),
            (State::INIT, 1 << 3, State::INIT, true, Refusal::DirtyBitmap),
            (
                State::RDY,
                1 << 11,
                State::INIT,
                true,
                Refusal::NotModifiable,
            ),
            (State::ERR, 1, State::RDY, true, Refusal::StateTransition),
            (State::RDY, 1, State::ERR, true, Refusal::StateTransition),
            (
                State::SUSPEND,
                1,
                State::RDY,
                false,
                Refusal::ResumeNotSupported,
            ),
        ] {
            assert_eq!(refused(state, select, to, resume), Some(expected));
        }
        assert_eq!(refused(State::SUSPEND, 1, State::RDY, true), None);
    }

    #[test]
    fn what_cannot_be_is_not_made() {
        let check = |change: &dyn Fn(&mut VirtioNetQObject)| {
            let mut object = object(State::INIT);
            change(&mut object);
            limits(true).check(&object).err()
        };
        assert_eq!(check(&|_| {}), None);
        let queue = |change: &dyn Fn(&mut prm::virtq::VirtioQ)| {
            check(&|object| change(object.virtio_q_context_mut()))
        };
        let size = |size| queue(&|queue| _ = queue.set_queue_size(size));
        assert_eq!(size(0), Some(Refusal::QueueSize));
        assert_eq!(size(96), Some(Refusal::QueueSize));
        assert_eq!(size(32768), None);
        assert_eq!(
            queue(&|queue| _ = queue.set_virtio_q_type(QueueType::PACKED)),
            Some(Refusal::QueueType)
        );
        assert_eq!(queue(&|queue| _ = queue.set_queue_index(7)), None);
        assert_eq!(
            queue(&|queue| _ = queue.set_queue_index(8)),
            Some(Refusal::QueueIndex)
        );
        assert_eq!(
            queue(&|queue| _ = queue.set_event_mode(EventMode::QP_MODE)),
            None
        );
        assert_eq!(
            queue(&|queue| _ = queue.set_virtio_version_1_0(false)),
            Some(Refusal::QueueVersion)
        );
        assert_eq!(
            queue(&|queue| _ = queue.set_desc_group_mkey(1)),
            Some(Refusal::DescGroupMkey)
        );
        assert_eq!(
            check(&|object| _ = object.set_queue_features(1)),
            Some(Refusal::QueueFeatures)
        );
        assert_eq!(
            check(&|object| _ = object.set_state(State::RDY)),
            Some(Refusal::QueueState)
        );
        let mut msix = limits(true);
        msix.event_modes = 1;
        assert_eq!(
            msix.check(&object(State::INIT)).err(),
            Some(Refusal::EventMode)
        );
        assert_eq!(limits(true).umem_sizes(64), [164, 328, 492]);
    }
}
