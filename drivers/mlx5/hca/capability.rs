// SPDX-License-Identifier: GPL-2.0

//! What the firmware can do, and choosing among it.

use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};
use prm::{
    cap::{
        CapMode,
        CapType,
        CmdHcaCap,
        FlowTableNicCap,
        FlowTablePropLayout,
        PortType,
        QueryHcaCap,
        SetHcaCap,
        SetHcaCapIn,
        VirtioEmulationCap, //
    },
    layout::Field,
    Command,
    Layout,
    ObjectType, //
};

use zerocopy::FromBytes;

use super::{
    command::{
        queue::Outcome,
        Failure,
        Reason,
        Reply,
        Request, //
    },
    firmware::Firmware, //
};

/// Asks for a group of capabilities.
///
/// # Errors
///
/// A [`Failure`] without memory.
pub(crate) fn query(group: CapType, mode: CapMode) -> Result<Request, Failure> {
    Request::new::<QueryHcaCap>(|input| {
        // A group has 15 bits, a mode one.
        input.set_op_mod((group as u16) << 1 | mode.into_bits() as u16);
    })
}

/// The beginning of the group that came back.
fn group<L: Layout>(reply: &Reply) -> Result<&L, Failure> {
    let (output, _) = reply.read::<QueryHcaCap>()?;
    let (group, _) =
        L::split(output.capability()).ok_or(Reason::Garbled.of(QueryHcaCap::OPCODE))?;
    Ok(group)
}

/// The event queues that the function has for itself: of commands, and of what is neither those
/// nor completions.
const OWN_EQS: usize = 2;

/// What of the general capabilities decides how the function is started.
pub(crate) struct Chosen {
    /// Which other groups there are to ask for.
    pub(crate) groups: Groups,
}

/// Groups of capabilities beside the general one.
#[derive(Clone, Copy)]
pub(crate) struct Groups {
    /// That of virtqueues.
    pub(crate) vdpa: bool,
    /// That of flow tables.
    pub(crate) flow_table: bool,
}

/// Chooses among the general capabilities, before the firmware is started.
///
/// # Errors
///
/// The [`Failure`] of a command.
pub(crate) fn choose(firmware: &Firmware) -> Result<Chosen, Failure> {
    let requests = [
        query(CapType::GENERAL, CapMode::GET_CUR)?,
        query(CapType::GENERAL, CapMode::GET_MAX)?,
    ];
    let mut outcomes = firmware.execute_all(&requests)?.into_iter();
    let mut next = || {
        let nothing = Reason::Garbled.of(QueryHcaCap::OPCODE);
        outcomes.next().unwrap_or(Err(nothing))
    };
    let (current, most) = (next()?, next()?);
    let most: &CmdHcaCap = group(&most)?;
    let (now, _) = current.read::<QueryHcaCap>()?;
    firmware.execute::<SetHcaCap>(|input: &mut SetHcaCapIn| {
        input.set_op_mod((CapType::GENERAL as u16) << 1);
        input.capability_mut().copy_from_slice(now.capability());
        let Ok((chosen, _)) = CmdHcaCap::mut_from_prefix(input.capability_mut()) else {
            return;
        };
        // Commands and their answers come without checksums; doorbells are a page of the host
        // apart.
        chosen
            .set_cmdif_checksum(0)
            .set_log_uar_page_sz((PAGE_SHIFT - 12) as u16);
        if most.uar_4k() && PAGE_SHIFT > 12 {
            chosen.set_uar_4k(true);
        }
    })?;
    Ok(Chosen {
        groups: Groups {
            vdpa: most.general_obj_types() & 1 << (ObjectType::VIRTIO_NET_Q as u64) != 0,
            flow_table: most.nic_flow_table(),
        },
    })
}

/// What the function can do: the capabilities in use.
pub(crate) struct Capabilities {
    /// Of the function as a whole.
    pub(crate) general: CmdHcaCap,
    /// Of virtqueues, if there are any.
    pub(crate) vdpa: Option<VirtioEmulationCap>,
    /// Of the flow tables of received frames, if there are any.
    pub(crate) receive: Option<FlowTablePropLayout>,
}

impl Capabilities {
    /// Reads the answers to questions for current capabilities.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub(crate) fn new(
        general: Outcome,
        vdpa: Option<Outcome>,
        flow_table: Option<Outcome>,
    ) -> Result<Self, Failure> {
        let vdpa = vdpa.transpose()?;
        let flow_table = flow_table.transpose()?;
        let receive = |reply| {
            let group = group::<FlowTableNicCap>(reply)?;
            Ok(group.flow_table_properties_nic_receive().clone())
        };
        Ok(Self {
            general: group::<CmdHcaCap>(&general?)?.clone(),
            vdpa: vdpa.as_ref().map(group).transpose()?.cloned(),
            receive: flow_table.as_ref().map(receive).transpose()?,
        })
    }

    /// Why no network device can be made of the function, if none can.
    pub(crate) fn obstacle(&self) -> Option<&'static str> {
        let Some(vdpa) = &self.vdpa else {
            return Some("its firmware has no virtqueues");
        };
        if self.general.port_type() != Ok(PortType::ETH) {
            return Some("its port is no Ethernet port");
        }
        if !vdpa.eth_frame_offload_type() {
            return Some("its virtqueues do not carry Ethernet frames");
        }
        if vdpa.virtio_queue_type() & 1 == 0 {
            return Some("it has no split virtqueues");
        }
        if vdpa.max_num_virtio_queues() < 2 {
            return Some("it has fewer than two virtqueues");
        }
        if !self.general.umem_uid_0() && !self.needs_user_context() {
            return Some("its driver cannot register memory for virtqueues");
        }
        match &self.receive {
            Some(receive) if receive.ft_support() => None,
            _ => Some("it has no flow tables for received frames"),
        }
    }
}

/// What network devices ask for.
impl Capabilities {
    /// Whether objects are to be made on behalf of a user context: the driver itself may not register
    /// memory for them.
    pub(crate) fn needs_user_context(&self) -> bool {
        self.vdpa.is_some() && !self.general.umem_uid_0() && self.general.log_max_uctx() != 0
    }

    /// Whether virtqueues may be as the standard has them since version 1.
    pub(crate) fn version_1(&self) -> bool {
        self.vdpa
            .as_ref()
            .is_some_and(VirtioEmulationCap::virtio_version_1_0)
    }

    /// Whether a virtqueue can raise an interrupt vector by itself. By a queue pair, bit 1, each can
    /// tell of used buffers that cannot: the C driver does not ask, and neither does this one.
    pub(crate) fn msix_mode(&self) -> bool {
        let modes = self.vdpa.as_ref().map_or(0, VirtioEmulationCap::event_mode);
        modes & 1 << 2 != 0
    }

    /// How many event queues there can be for completions, beside those of the firmware: one at
    /// least.
    pub(crate) fn completion_eqs(&self) -> usize {
        let all = match self.general.max_num_eqs() {
            0 => 1usize << self.general.log_max_eq(),
            all => all.into(),
        };
        all.saturating_sub(OWN_EQS).max(1)
    }

    /// Whether a virtqueue that was suspended can be made ready again.
    pub(crate) fn resume(&self) -> bool {
        self.vdpa
            .as_ref()
            .is_some_and(VirtioEmulationCap::freeze_to_rdy_supported)
    }

    /// Whether rings may be reached by a memory key of their own.
    pub(crate) fn ring_key(&self) -> bool {
        self.vdpa
            .as_ref()
            .is_some_and(VirtioEmulationCap::desc_group_mkey_supported)
    }

    /// Whether virtqueues can count.
    pub(crate) fn counters(&self) -> bool {
        self.general.general_obj_types() & 1 << (ObjectType::VIRTIO_Q_COUNTERS as u64) != 0
    }

    /// The bytes of the three pieces of memory that the firmware wants for a virtqueue of `size`
    /// entries; `None` if that is no number.
    pub(crate) fn umem_sizes(&self, size: u16) -> Option<[u64; 3]> {
        let vdpa = self.vdpa.as_ref()?;
        let bytes = |(each, besides): (u32, u32)| {
            // No more than 49 bits.
            u64::from(each) * u64::from(size) + u64::from(besides)
        };
        let wanted = [
            (vdpa.umem_1_buffer_param_a(), vdpa.umem_1_buffer_param_b()),
            (vdpa.umem_2_buffer_param_a(), vdpa.umem_2_buffer_param_b()),
            (vdpa.umem_3_buffer_param_a(), vdpa.umem_3_buffer_param_b()),
        ];
        Some(wanted.map(bytes))
    }

    /// The most entries of a memory key made of others (KLM).
    pub(crate) fn klm_entries(&self) -> u32 {
        1u32.checked_shl(self.general.log_max_klm_list_size().into())
            .unwrap_or(u32::MAX)
    }
}
