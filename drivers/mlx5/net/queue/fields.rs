// SPDX-License-Identifier: GPL-2.0

//! How a virtqueue object gets from what it is to what it shall be.
//!
//! An object is made once and serves one driver after the other: what changes from one to the next
//! can all be changed in it, but for the number of its entries. Fields are changed while it stands
//! still. From INIT they are changed by a command before that which starts it; an object that was
//! suspended takes them together with its new state.
//!
//! ```text
//!   CREATE ──> INIT ──fields──> INIT ──RDY──> RDY ──SUSPEND──> SUSPEND ──fields and RDY──┐
//!                                              ^                                         │
//!                                              └────────── firmware that can resume ─────┘
//! ```

use prm::virtq::modify;

/// What of a virtqueue belongs to its driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fields {
    /// The number of entries. An object keeps it for life.
    pub(crate) size: u16,
    /// The address of the descriptor area.
    pub(crate) desc: u64,
    /// The address of the driver area.
    pub(crate) driver: u64,
    /// The address of the device area.
    pub(crate) device: u64,
    /// Where the ring stands: the available and the used index, which are one where nothing is in
    /// flight. `None` of an object that ran and was not asked since.
    pub(crate) index: Option<u16>,
    /// Whether the driver is one of virtio 1.0 or later.
    pub(crate) version_1: bool,
    /// The features, bits as in [`virtio_feature`](prm::cap::virtio_feature).
    pub(crate) features: u16,
    /// The memory key of everything, or of the buffers if the rings have one of their own.
    pub(crate) mkey: u32,
    /// The memory key of the rings; 0 if they have none of their own.
    pub(crate) desc_mkey: u32,
}

impl Fields {
    /// What has to be changed, as bits of [`modify`], to have `wanted` where these are now.
    pub(crate) fn difference(&self, wanted: &Self) -> u64 {
        let areas = |fields: &Self| (fields.desc, fields.driver, fields.device);
        let mut select = 0;
        if areas(self) != areas(wanted) {
            select |= modify::VIRTIO_Q_ADDRS;
        }
        if self.index != wanted.index {
            select |= modify::VIRTIO_Q_AVAIL_IDX | modify::VIRTIO_Q_USED_IDX;
        }
        if self.version_1 != wanted.version_1 {
            select |= modify::QUEUE_VIRTIO_VERSION;
        }
        if self.features != wanted.features {
            select |= modify::QUEUE_FEATURES;
        }
        if self.mkey != wanted.mkey {
            select |= modify::VIRTIO_Q_MKEY;
        }
        if self.desc_mkey != wanted.desc_mkey {
            select |= modify::DESC_GROUP_MKEY;
        }
        select
    }
}

/// What an object is in the firmware, as far as the driver knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Made, and never started.
    Init,
    /// It moves frames.
    Ready,
    /// It was stopped.
    Suspended,
    /// It failed, or a command was lost that may have changed it: only destroying it helps.
    Lost,
}

/// How an object gets to run with what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// It does already.
    Done,
    /// By one command, which changes these fields and the state.
    One(u64),
    /// By two: one changes these fields, the next the state.
    Two(u64),
    /// By destroying it and making another one, which has the fields from the beginning.
    Anew,
}

/// How an object in `stage`, which has the fields `set`, gets to run with those `wanted`. `resume`
/// tells whether the firmware lets a suspended one go on.
///
/// One that runs with other fields than those wanted has to be suspended first; here it is made
/// anew.
pub(crate) fn way(stage: Stage, set: &Fields, wanted: &Fields, resume: bool) -> Way {
    let select = set.difference(wanted);
    match stage {
        _ if set.size != wanted.size => Way::Anew,
        // Where it stands is its own business while it runs.
        Stage::Ready if select & !(modify::VIRTIO_Q_AVAIL_IDX | modify::VIRTIO_Q_USED_IDX) == 0 => {
            Way::Done
        }
        Stage::Init if select == 0 => Way::One(0),
        Stage::Init => Way::Two(select),
        Stage::Suspended if resume => Way::One(select),
        Stage::Ready | Stage::Suspended | Stage::Lost => Way::Anew,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields = Fields {
        size: 256,
        desc: 0x1000,
        driver: 0x2000,
        device: 0x3000,
        index: Some(7),
        version_1: true,
        features: 0x400,
        mkey: 0x100,
        desc_mkey: 0,
    };

    #[test]
    fn each_field_has_its_bits() {
        let with = |change: &dyn Fn(&mut Fields)| {
            let mut wanted = FIELDS;
            change(&mut wanted);
            FIELDS.difference(&wanted)
        };
        assert_eq!(with(&|_| {}), 0);
        for change in [
            (&|fields: &mut Fields| fields.desc = 1) as &dyn Fn(&mut Fields),
            &|fields| fields.driver = 1,
            &|fields| fields.device = 1,
        ] {
            assert_eq!(with(change), modify::VIRTIO_Q_ADDRS);
        }
        assert_eq!(
            with(&|fields| fields.index = Some(8)),
            modify::VIRTIO_Q_AVAIL_IDX | modify::VIRTIO_Q_USED_IDX
        );
        assert_eq!(
            with(&|fields| fields.version_1 = false),
            modify::QUEUE_VIRTIO_VERSION
        );
        assert_eq!(with(&|fields| fields.features = 0), modify::QUEUE_FEATURES);
        assert_eq!(with(&|fields| fields.mkey = 0), modify::VIRTIO_Q_MKEY);
        assert_eq!(
            with(&|fields| fields.desc_mkey = 9),
            modify::DESC_GROUP_MKEY
        );
    }

    #[test]
    fn an_unknown_index_is_always_written() {
        let set = Fields {
            index: None,
            ..FIELDS
        };
        assert_eq!(
            way(Stage::Suspended, &set, &FIELDS, true),
            Way::One(modify::VIRTIO_Q_AVAIL_IDX | modify::VIRTIO_Q_USED_IDX)
        );
        assert_eq!(way(Stage::Ready, &set, &FIELDS, true), Way::Done);
    }

    #[test]
    fn another_size_takes_another_object() {
        let wanted = Fields { size: 64, ..FIELDS };
        for stage in [Stage::Init, Stage::Ready, Stage::Suspended, Stage::Lost] {
            assert_eq!(way(stage, &FIELDS, &wanted, true), Way::Anew);
        }
    }

    #[test]
    fn stages() {
        let wanted = Fields {
            mkey: 0x200,
            ..FIELDS
        };
        let mkey = modify::VIRTIO_Q_MKEY;
        for (stage, resume, same, changed) in [
            (Stage::Init, false, Way::One(0), Way::Two(mkey)),
            (Stage::Init, true, Way::One(0), Way::Two(mkey)),
            (Stage::Ready, true, Way::Done, Way::Anew),
            (Stage::Suspended, true, Way::One(0), Way::One(mkey)),
            (Stage::Suspended, false, Way::Anew, Way::Anew),
            (Stage::Lost, true, Way::Anew, Way::Anew),
        ] {
            assert_eq!(way(stage, &FIELDS, &FIELDS, resume), same);
            assert_eq!(way(stage, &FIELDS, &wanted, resume), changed);
        }
    }
}
