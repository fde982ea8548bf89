// SPDX-License-Identifier: GPL-2.0

//! Objects that a driver makes, each by its command.

use prm::{
    cap::{
        CapType,
        CmdHcaCap,
        VirtioEmulationCap, //
    },
    flow::{
        CreateFlowGroup,
        CreateFlowGroupIn,
        DeleteFlowTableEntry,
        DestFormat,
        DestroyFlowGroup,
        FlowDestinationType,
        FlowTableType,
        FteMatchSetLyr24,
        SetFlowTableEntry,
        SetFteIn,
        ACTION_FWD_DEST,
        MATCH_OUTER_HEADERS, //
    },
    hca::CreateUctx,
    mkey::{
        AccessMode,
        CreateMkey,
        CreateMkeyIn,
        DestroyMkey,
        Klm, //
    },
    rqt::{
        CreateRqt,
        CreateRqtIn,
        ListQType,
        ModifyRqt,
        ModifyRqtIn,
        RqNum, //
    },
    tir::{
        CreateTir,
        DispType,
        L3ProtType,
        L4ProtType,
        RxHashFn,
        HASH_DST_IP,
        HASH_L4_DPORT,
        HASH_L4_SPORT,
        HASH_SRC_IP, //
    },
    umem::{
        CreateUmem,
        CreateUmemIn,
        DestroyUmem, //
    },
    Layout,
    ObjectType, //
};
use zerocopy::IntoBytes;

use crate::{
    memory::{
        addresses,
        Buffer, //
    },
    Failure,
    Host, //
};

/// The key of the hash over addresses and ports that the C driver uses.
pub const TOEPLITZ_KEY: [u8; 40] = [
    0x2c, 0xc6, 0x81, 0xd1, 0x5b, 0xdb, 0xf4, 0xf7, 0xfc, 0xa2, 0x83, 0x19, 0xdb, 0x1a, 0x3e, 0x94,
    0x6b, 0x9e, 0x38, 0xd9, 0x2c, 0x9c, 0x03, 0xd1, 0xad, 0x99, 0x44, 0xa7, 0xd9, 0x56, 0x3d, 0x59,
    0x06, 0x3c, 0x25, 0xf3, 0xfc, 0x1f, 0xdc, 0x2a,
];

/// What a memory key lets a device do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// One piece of an indirect memory key: of which key, from where, how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The key; the null key for a hole.
    pub key: u32,
    /// The address in that key's space.
    pub va: u64,
    /// The number of bytes.
    pub len: u32,
}

/// What a flow entry matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Bits of the destination address that are compared, and what they are.
    pub dmac: Option<([u8; 6], [u8; 6])>,
    /// The VLAN tag: there is none, or one with this id.
    pub vlan: Option<Option<u16>>,
}

impl Match {
    fn write(&self, criteria: &mut FteMatchSetLyr24, value: &mut FteMatchSetLyr24) {
        if let Some((mask, mac)) = self.dmac {
            for (to, mac) in [(&mut *criteria, mask), (&mut *value, mac)] {
                let [a, b, c, d, e, f] = mac;
                to.set_dmac_47_16(u32::from_be_bytes([a, b, c, d]))
                    .set_dmac_15_0(u16::from_be_bytes([e, f]));
            }
        }
        if let Some(vlan) = self.vlan {
            criteria.set_cvlan_tag(true);
            value.set_cvlan_tag(vlan.is_some());
            if let Some(vid) = vlan {
                criteria.set_first_vid(0xfff);
                value.set_first_vid(vid);
            }
        }
    }
}

/// A flow entry and the group it alone is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    table: u32,
    group: u32,
    index: u32,
}

impl Host {
    /// The bytes of the three pieces of memory that the firmware keeps the state of a virtqueue of
    /// `size` entries in.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn umem_sizes(&mut self, size: u16) -> Result<[u32; 3], Failure> {
        let bytes = self.capability(CapType::VDPA_EMULATION, true)?;
        let (cap, _) = VirtioEmulationCap::split(&bytes).ok_or(Failure::Garbage)?;
        let size = u32::from(size);
        Ok([
            cap.umem_1_buffer_param_a() * size + cap.umem_1_buffer_param_b(),
            cap.umem_2_buffer_param_a() * size + cap.umem_2_buffer_param_b(),
            cap.umem_3_buffer_param_a() * size + cap.umem_3_buffer_param_b(),
        ])
    }

    /// Returns whether the firmware has objects of a type.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn has_object(&mut self, object: ObjectType) -> Result<bool, Failure> {
        let bytes = self.capability(CapType::GENERAL, true)?;
        let (cap, _) = CmdHcaCap::split(&bytes).ok_or(Failure::Garbage)?;
        Ok((cap.general_obj_types() >> object as u64) & 1 != 0)
    }

    fn create_mkey(&mut self, input: &CreateMkeyIn, tail: &[u8]) -> Result<u32, Failure> {
        let (output, _) = self.execute::<CreateMkey>(input, tail, 0)?;
        Ok((output.mkey_index() << 8) | u32::from(input.memory_key_mkey_entry().mkey_7_0()))
    }

    fn mkey(pd: u32, mode: AccessMode, access: Access, start: u64, len: u64) -> CreateMkeyIn {
        let mut input = CreateMkeyIn::new();
        input
            .memory_key_mkey_entry_mut()
            .set_access_mode_1_0(mode as u8)
            .set_lr(true)
            .set_lw(access == Access::Write)
            .set_qpn(0xff_ffff)
            .set_pd(pd)
            .set_start_addr(start)
            .set_len(len);
        input
    }

    /// Makes a memory key of pages: the `1 << log_page` bytes at each of `pages` follow each other
    /// from address `start` on; `len` bytes of them belong to the key. Returns the key.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn create_mtt_mkey(
        &mut self,
        pd: u32,
        access: Access,
        (start, len): (u64, u64),
        log_page: u8,
        pages: &[u64],
    ) -> Result<u32, Failure> {
        let mut input = Self::mkey(pd, AccessMode::MTT, access, start, len);
        // Two entries of a translation table in 16 bytes.
        let octwords = pages.len().div_ceil(2) as u32;
        input.set_translations_octword_actual_size(octwords);
        input
            .memory_key_mkey_entry_mut()
            .set_log_page_size(log_page)
            .set_translations_octword_size(octwords);
        // Bit 0 grants reading and bit 1 writing.
        let rights = match access {
            Access::Read => 1,
            Access::Write => 3,
        };
        let mut tail = addresses(pages.iter().map(|page| page | rights));
        tail.resize(16 * octwords as usize, 0);
        self.create_mkey(&input, &tail)
    }

    /// Makes a memory key of everything, whose addresses are those on the bus.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn create_pa_mkey(&mut self, pd: u32) -> Result<u32, Failure> {
        let mut input = Self::mkey(pd, AccessMode::PA, Access::Write, 0, 0);
        input.memory_key_mkey_entry_mut().set_length64(true);
        self.create_mkey(&input, &[])
    }

    /// Makes a memory key of parts of other keys.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn create_klm_mkey(
        &mut self,
        pd: u32,
        access: Access,
        (start, len): (u64, u64),
        pieces: &[Piece],
    ) -> Result<u32, Failure> {
        let mut input = Self::mkey(pd, AccessMode::KLMS, access, start, len);
        // Tables are multiples of four.
        let octwords = pieces.len().next_multiple_of(4) as u32;
        input.set_translations_octword_actual_size(octwords);
        input
            .memory_key_mkey_entry_mut()
            .set_translations_octword_size(octwords);
        let mut tail = Vec::new();
        for piece in pieces {
            let mut klm = Klm::new();
            klm.set_bcount(piece.len)
                .set_key(piece.key)
                .set_va(piece.va);
            tail.extend_from_slice(klm.as_bytes());
        }
        tail.resize(16 * octwords as usize, 0);
        self.create_mkey(&input, &tail)
    }

    /// Takes a memory key away.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn destroy_mkey(&mut self, key: u32) -> Result<(), Failure> {
        self.call::<DestroyMkey>(|input| {
            input.set_mkey_index(key >> 8);
        })
        .map(drop)
    }

    /// The user context that memory is registered in: 0, the driver itself, if it may.
    fn uid(&mut self) -> Result<u16, Failure> {
        if let Some(uid) = self.uid {
            return Ok(uid);
        }
        let bytes = self.capability(CapType::GENERAL, true)?;
        let (cap, _) = CmdHcaCap::split(&bytes).ok_or(Failure::Garbage)?;
        let uid = match cap.umem_uid_0() {
            true => 0,
            false => self.call::<CreateUctx>(|_| {})?.uid(),
        };
        self.uid = Some(uid);
        Ok(uid)
    }

    /// Registers memory for an object's state. Returns its number.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn create_umem(&mut self, buffer: &Buffer) -> Result<u32, Failure> {
        let mut input = CreateUmemIn::new();
        input
            .set_uid(self.uid()?)
            .umem_mut()
            .set_log_page_size(0)
            .set_num_of_mtt(buffer.pages().count() as u64);
        let tail = addresses(buffer.pages().map(|page| page | 3));
        let (output, _) = self.execute::<CreateUmem>(&input, &tail, 0)?;
        Ok(output.umem_id())
    }

    /// Takes it back.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn destroy_umem(&mut self, umem: u32) -> Result<(), Failure> {
        self.call::<DestroyUmem>(|input| {
            input.set_umem_id(umem);
        })
        .map(drop)
    }

    /// Makes a table of receive queues, with room for `room` of them. Returns its number.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn create_rqt(&mut self, room: u16, queues: &[u32]) -> Result<u32, Failure> {
        let mut input = CreateRqtIn::new();
        input
            .rqt_context_mut()
            .set_list_q_type(ListQType::VIRTIO_NET_Q)
            .set_rqt_max_size(room)
            .set_rqt_actual_size(queues.len() as u16);
        let tail = queue_list(queues, room);
        let (output, _) = self.execute::<CreateRqt>(&input, &tail, 0)?;
        Ok(output.rqtn())
    }

    /// Changes its queues.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn modify_rqt(&mut self, rqtn: u32, queues: &[u32]) -> Result<(), Failure> {
        let mut input = ModifyRqtIn::new();
        input.set_rqtn(rqtn).bitmask_mut().set_rqn_list(true);
        input
            .ctx_mut()
            .set_list_q_type(ListQType::VIRTIO_NET_Q)
            .set_rqt_actual_size(queues.len() as u16);
        let tail = queue_list(queues, queues.len() as u16);
        self.execute::<ModifyRqt>(&input, &tail, 0).map(drop)
    }

    /// Makes a receive interface that spreads frames over the queues of a table, by a hash over
    /// addresses and ports of TCP over IPv4. Returns its number.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub fn create_tir(&mut self, transport_domain: u32, rqtn: u32) -> Result<u32, Failure> {
        let output = self.call::<CreateTir>(|input| {
            let ctx = input.ctx_mut();
            ctx.set_disp_type(DispType::INDIRECT)
                .set_rx_hash_symmetric(true)
                .set_rx_hash_fn(RxHashFn::TOEPLITZ)
                .set_indirect_table(rqtn)
                .set_transport_domain(transport_domain);
            *ctx.rx_hash_toeplitz_key_mut() = TOEPLITZ_KEY;
            ctx.rx_hash_field_selector_outer_mut()
                .set_l3_prot_type(L3ProtType::IPV4)
                .set_l4_prot_type(L4ProtType::TCP)
                .set_selected_fields(HASH_SRC_IP | HASH_DST_IP | HASH_L4_SPORT | HASH_L4_DPORT);
        })?;
        Ok(output.tirn())
    }

    /// Sends frames that match to a receive interface: a group of one entry, at `index` of the
    /// table.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn add_rule(
        &mut self,
        table: u32,
        index: u32,
        what: Match,
        tirn: u32,
    ) -> Result<Rule, Failure> {
        let mut group = CreateFlowGroupIn::new();
        let mut entry = SetFteIn::new();
        what.write(
            group.match_criteria_mut().outer_headers_mut(),
            entry
                .flow_context_mut()
                .match_value_mut()
                .outer_headers_mut(),
        );
        let nothing = what == Match::default();
        group
            .set_table_type(FlowTableType::NIC_RX)
            .set_table_id(table)
            .set_start_flow_index(index)
            .set_end_flow_index(index)
            .set_match_criteria_enable(if nothing { 0 } else { MATCH_OUTER_HEADERS });
        let (output, _) = self.execute::<CreateFlowGroup>(&group, &[], 0)?;
        let group = output.group_id();
        entry
            .set_table_type(FlowTableType::NIC_RX)
            .set_table_id(table)
            .set_flow_index(index);
        entry
            .flow_context_mut()
            .set_group_id(group)
            .set_action(ACTION_FWD_DEST)
            .set_destination_list_size(1);
        let mut to = DestFormat::new();
        to.set_destination_type(FlowDestinationType::TIR)
            .set_destination_id(tirn);
        let rule = Rule {
            table,
            group,
            index,
        };
        match self.execute::<SetFlowTableEntry>(&entry, to.as_bytes(), 0) {
            Ok(_) => Ok(rule),
            Err(failure) => {
                self.destroy_group(rule)?;
                Err(failure)
            }
        }
    }

    fn destroy_group(&mut self, rule: Rule) -> Result<(), Failure> {
        self.call::<DestroyFlowGroup>(|input| {
            input
                .set_table_type(FlowTableType::NIC_RX)
                .set_table_id(rule.table)
                .set_group_id(rule.group);
        })
        .map(drop)
    }

    /// Takes a rule away.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn remove_rule(&mut self, rule: Rule) -> Result<(), Failure> {
        self.call::<DeleteFlowTableEntry>(|input| {
            input
                .set_table_type(FlowTableType::NIC_RX)
                .set_table_id(rule.table)
                .set_flow_index(rule.index);
        })?;
        self.destroy_group(rule)
    }
}

/// The numbers of queues as a table of them has it.
fn queue_list(queues: &[u32], room: u16) -> Vec<u8> {
    let mut list = Vec::new();
    for &queue in queues {
        let mut number = RqNum::new();
        number.set_rq_num(queue);
        list.extend_from_slice(number.as_bytes());
    }
    list.resize(4 * usize::from(room), 0);
    list
}
