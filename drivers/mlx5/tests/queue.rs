// SPDX-License-Identifier: GPL-2.0

//! Virtqueue objects on the model: every way from what they are to what they shall be.

use mlx5_host::{
    Board,
    Buffer,
    Host, //
};
use prm::{
    cap::{
        CapType,
        CmdHcaCap,
        VirtioEmulationCap, //
    },
    command::ObjectInputHeader,
    hca::CreateUctx,
    pd::{
        AllocPd,
        AllocTransportDomain, //
    },
    qp::CreateQp,
    tis::CreateTis,
    umem::{
        CreateUmem,
        CreateUmemIn, //
    },
    virtq::{
        CreateVirtioNetQ,
        DestroyVirtioNetQ,
        ModifyVirtioNetQ,
        QueryVirtioNetQ,
        State,
        VirtioNetQObject, //
    },
    Layout as _, //
};

use crate::{
    hca::channel::wire,
    net::{
        queue::fields::{
            way,
            Fields,
            Stage,
            Way, //
        },
        wire::{
            queue::{
                self,
                Events,
                QueueSpec, //
            },
            umem::{
                self,
                Layout, //
            }, //
        },
    }, //
};

const PROFILES: [&str; 5] = ["cx7", "modern-only", "legacy-only", "cx6dx-old", "minimal"];

const SIZE: u16 = 256;

/// A function with what virtqueues need.
struct Rig {
    host: Host,
    capabilities: VirtioEmulationCap,
    spec: QueueSpec,
    uid: u16,
    /// A ring, and another.
    rings: [Fields; 2],
    _state: Buffer,
}

impl Rig {
    fn new(profile: &str, index: u16) -> Self {
        let mut host = Board::new(1).unwrap().host(profile, 0).unwrap();
        host.start().unwrap();
        let bytes = host.capability(CapType::VDPA_EMULATION, true).unwrap();
        let capabilities = VirtioEmulationCap::split(&bytes).unwrap().0.clone();
        let bytes = host.capability(CapType::GENERAL, true).unwrap();
        let needs_context = !CmdHcaCap::split(&bytes).unwrap().0.umem_uid_0();
        let uid = match needs_context {
            true => host.call::<CreateUctx>(|_| {}).unwrap().uid(),
            false => 0,
        };
        let pd = host.call::<AllocPd>(|_| {}).unwrap().pd();
        let domain = host.call::<AllocTransportDomain>(|_| {}).unwrap();
        let tis = host
            .call::<CreateTis>(|input| {
                input
                    .ctx_mut()
                    .set_transport_domain(domain.transport_domain());
            })
            .unwrap()
            .tisn();
        // Memory for more than one, so that offsets are not all small.
        let layout = Layout::new(host.umem_sizes(SIZE).unwrap().map(u64::from)).unwrap();
        let state = host.memory.alloc(4 * layout.bytes());
        let mut input = CreateUmemIn::new();
        input.set_uid(uid);
        umem::create(&mut input, state.pages().count() as u64);
        let tail: Vec<u8> = state.pages().flat_map(umem::page).collect();
        let (output, _) = host.execute::<CreateUmem>(&input, &tail, 0).unwrap();
        let version_1 = capabilities.virtio_version_1_0();
        let rings = [0u16, 1].map(|number| {
            let memory = host.memory.alloc(3 * 4096);
            let addr = memory.addr();
            // It belongs to the driver for as long as the test runs.
            std::mem::forget(memory);
            Fields {
                size: SIZE,
                desc: addr,
                driver: addr + 4096,
                device: addr + 2 * 4096,
                index: Some(number * 1000),
                version_1,
                features: 0,
                mkey: host.create_pa_mkey(pd).unwrap(),
                desc_mkey: 0,
            }
        });
        let events = match capabilities.event_mode() & (1 << 2) {
            0 => {
                let pair = host.call::<CreateQp>(|input| wire::sender(input, pd));
                Events::QueuePair(pair.unwrap().qpn())
            }
            _ => Events::Vector(1),
        };
        let spec = QueueSpec {
            index,
            tis,
            events,
            areas: layout.areas(output.umem_id(), 3),
            counters: 0,
            pd,
        };
        Self {
            host,
            capabilities,
            spec,
            uid,
            rings,
            _state: state,
        }
    }

    fn create(&mut self, fields: &Fields) -> u32 {
        let (uid, spec) = (self.uid, self.spec);
        let output = self.host.call::<CreateVirtioNetQ>(|input| {
            input.general_obj_in_cmd_hdr_mut().set_uid(uid);
            queue::create(input, &spec, fields);
        });
        output.unwrap().obj_id()
    }

    fn change(&mut self, id: u32, select: u64, fields: &Fields, state: Option<State>) {
        let uid = self.uid;
        self.host
            .call::<ModifyVirtioNetQ>(|input| {
                input.general_obj_in_cmd_hdr_mut().set_uid(uid);
                queue::change(input, id, select, fields, state);
            })
            .unwrap();
    }

    fn header(&self, id: u32) -> impl FnOnce(&mut ObjectInputHeader) {
        let uid = self.uid;
        move |input| {
            input.set_uid(uid).set_obj_id(id);
        }
    }

    fn query(&mut self, id: u32) -> VirtioNetQObject {
        let header = self.header(id);
        let output = self.host.call::<QueryVirtioNetQ>(header).unwrap();
        output.obj_context().clone()
    }

    fn destroy(&mut self, id: u32) {
        let header = self.header(id);
        self.host.call::<DestroyVirtioNetQ>(header).unwrap();
    }

    /// An object in `stage` with `fields`.
    fn queue_in(&mut self, stage: Stage, fields: &Fields) -> u32 {
        let id = self.create(fields);
        if stage != Stage::Init {
            self.change(id, 0, fields, Some(State::RDY));
        }
        if stage == Stage::Suspended {
            self.change(id, 0, fields, Some(State::SUSPEND));
        }
        id
    }

    /// Goes a way, and returns the object that then runs.
    fn go(&mut self, id: u32, way: Way, wanted: &Fields) -> u32 {
        match way {
            Way::Done => {}
            Way::One(select) => self.change(id, select, wanted, Some(State::RDY)),
            Way::Two(select) => {
                self.change(id, select, wanted, None);
                self.change(id, 0, wanted, Some(State::RDY));
            }
            Way::Anew => {
                self.destroy(id);
                let id = self.create(wanted);
                self.change(id, 0, wanted, Some(State::RDY));
                return id;
            }
        }
        id
    }
}

/// What an object says of itself.
fn read(object: &VirtioNetQObject) -> Fields {
    let queue = object.virtio_q_context();
    assert_eq!(object.hw_available_index(), object.hw_used_index());
    Fields {
        size: queue.queue_size(),
        desc: queue.desc_addr(),
        driver: queue.available_addr(),
        device: queue.used_addr(),
        index: Some(object.hw_used_index()),
        version_1: queue.virtio_version_1_0(),
        features: object.queue_features(),
        mkey: queue.virtio_q_mkey(),
        desc_mkey: queue.desc_group_mkey(),
    }
}

#[test]
fn a_created_object_is_what_was_asked_for() {
    for profile in PROFILES {
        for index in [0, 1] {
            let mut rig = Rig::new(profile, index);
            let fields = rig.rings[0];
            let id = rig.create(&fields);
            let object = rig.query(id);
            assert_eq!(object.state(), Ok(State::INIT));
            assert_eq!(read(&object), fields, "{profile}");
            let queue = object.virtio_q_context();
            assert_eq!(queue.queue_index(), index);
            let [first, second, third] = rig.spec.areas;
            for (area, there) in [
                (first, queue.umem_1_offset()),
                (second, queue.umem_2_offset()),
                (third, queue.umem_3_offset()),
            ] {
                assert_eq!(area.offset, there);
            }
            rig.destroy(id);
        }
    }
}

#[test]
fn every_way_leads_to_what_is_wanted() {
    for profile in PROFILES {
        let mut rig = Rig::new(profile, 1);
        let resume = rig.capabilities.freeze_to_rdy_supported();
        // What the profile can express; the model refuses a driver of another version there.
        let versions = match profile {
            "modern-only" => &[true][..],
            "legacy-only" => &[false],
            _ => &[true, false],
        };
        let [set, other] = rig.rings;
        let features = rig.capabilities.device_features_bits_mask();
        let mut wishes = vec![
            set,
            other,
            Fields {
                mkey: other.mkey,
                ..set
            },
            Fields {
                index: Some(65535),
                ..set
            },
            Fields { features, ..set },
        ];
        for version_1 in versions {
            wishes.push(Fields {
                version_1: *version_1,
                ..other
            });
        }
        // Another size fits into the areas of the larger one.
        wishes.push(Fields { size: 64, ..set });
        for stage in [Stage::Init, Stage::Ready, Stage::Suspended, Stage::Lost] {
            for wanted in &wishes {
                let id = rig.queue_in(stage, &set);
                // As it would be after a stop without a question.
                let known = match stage {
                    Stage::Suspended => Fields { index: None, ..set },
                    _ => set,
                };
                let way = way(stage, &known, wanted, resume);
                let id = rig.go(id, way, wanted);
                let object = rig.query(id);
                let case = (profile, stage, way);
                assert_eq!(object.state(), Ok(State::RDY), "{case:?}");
                let index = match way {
                    Way::Done => set.index,
                    _ => wanted.index,
                };
                assert_eq!(read(&object), Fields { index, ..*wanted }, "{case:?}");
                rig.destroy(id);
            }
        }
    }
}
