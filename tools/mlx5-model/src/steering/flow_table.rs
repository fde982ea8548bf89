// SPDX-License-Identifier: GPL-2.0

//! Flow tables and their groups.
//!
//! A table is an array of entries. Groups share the array among themselves: all entries of a group
//! compare the same bits. The entry of the lowest index that matches is the one that counts.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        RwLock, //
    }, //
};

use prm::{
    command::OutputHeader,
    flow::{
        CreateFlowGroup,
        CreateFlowGroupIn,
        CreateFlowGroupOut,
        CreateFlowTable,
        CreateFlowTableIn,
        CreateFlowTableOut,
        DestroyFlowGroup,
        DestroyFlowGroupIn,
        DestroyFlowTable,
        DestroyFlowTableIn,
        FlowTableContext,
        FlowTableMissAction,
        FlowTableType,
        FteMatchParam,
        FteMatchSetLyr24,
        ModifyFlowTable,
        ModifyFlowTableIn,
        QueryFlowGroup,
        QueryFlowGroupIn,
        QueryFlowGroupOut,
        QueryFlowTable,
        QueryFlowTableIn,
        QueryFlowTableOut,
        SetFlowTableRoot,
        SetFlowTableRootIn,
        MATCH_OUTER_HEADERS,
        MODIFY_MISS_TABLE_ID, //
    },
    layout::Unknown,
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
        Handle,
        Table, //
    },
    refusal::Refusal,
    steering::{
        change,
        entry::Entry,
        headers::Headers,
        look,
        Steering, //
    }, //
};

/// The logarithm of the size of the largest table.
const MAX_LOG_SIZE: u8 = 24;

/// What a table has for a frame.
pub(super) enum Found {
    /// An entry.
    Entry(Arc<Entry>),
    /// None, but another table.
    Table(Arc<FlowTable>),
    /// None: the frame takes the default way, on which there is no queue.
    Nothing,
}

/// A group of entries that compare the same bits.
pub(super) struct Group {
    /// The first and the last index of its entries.
    start: u32,
    end: u32,
    criteria_enable: u8,
    criteria: FteMatchParam,
    /// Which bits are compared.
    mask: Headers,
}

impl Group {
    /// What an entry compares whose values are `value`.
    pub(super) fn key(&self, value: &FteMatchSetLyr24) -> Headers {
        headers(value).masked(&self.mask)
    }

    /// Makes a group.
    ///
    /// # Errors
    ///
    /// [`Refusal::MatchCriteria`] if it compares what is not offered, [`Refusal::FlowGroupRange`]
    /// if its entries are not a range.
    pub(super) fn new(
        start: u32,
        end: u32,
        criteria_enable: u8,
        criteria: FteMatchParam,
    ) -> Result<Self, Refusal> {
        if start > end {
            return Err(Refusal::FlowGroupRange);
        }
        let mask = match criteria_enable {
            0 => FteMatchSetLyr24::new(),
            MATCH_OUTER_HEADERS => criteria.outer_headers().clone(),
            _ => return Err(Refusal::MatchCriteria),
        };
        let offered = matchable();
        let mut left = mask.as_bytes().iter().zip(offered.as_bytes());
        if left.any(|(wanted, offered)| wanted & !offered != 0) {
            return Err(Refusal::MatchCriteria);
        }
        Ok(Self {
            start,
            end,
            criteria_enable,
            criteria,
            mask: headers(&mask),
        })
    }
}

/// The bits that can be compared: all but reserved ones and kinds of transport protocols.
fn matchable() -> FteMatchSetLyr24 {
    let mut all = FteMatchSetLyr24::new();
    for field in FteMatchSetLyr24::INFO.fields {
        if !matches!(field.name, "l4_type" | "l4_type_ext") {
            for bit in field.offset..field.offset + field.width {
                prm::layout::set_bits(all.as_mut_bytes(), bit, 1, 1);
            }
        }
    }
    all
}

/// The same in the form that frames are compared in.
fn headers(set: &FteMatchSetLyr24) -> Headers {
    let mut headers = Headers([0; 64]);
    headers.0.copy_from_slice(set.as_bytes());
    headers
}

/// The entries of a group, ready to be found.
struct Slice {
    mask: Headers,
    /// By the values of the bits that are compared, and by index where those are the same.
    entries: BTreeMap<(Headers, u32), Arc<Entry>>,
}

/// What of a table can change.
struct State {
    miss: Option<Handle<FlowTable>>,
    groups: Table<Group>,
    entries: BTreeMap<u32, Arc<Entry>>,
    /// By the first index.
    slices: BTreeMap<u32, Slice>,
}

impl State {
    /// Takes an entry out.
    fn unlink(&mut self, index: u32) -> Option<Arc<Entry>> {
        let entry = self.entries.remove(&index)?;
        if let Some(slice) = self.slices.get_mut(&entry.group().start) {
            slice.entries.remove(&(*entry.key(), index));
        }
        Some(entry)
    }
}

/// A flow table.
pub struct FlowTable {
    level: u8,
    log_size: u8,
    state: RwLock<State>,
}

impl FlowTable {
    /// Makes a table without entries.
    ///
    /// # Errors
    ///
    /// [`Refusal::FlowTableSize`] if it is too large.
    pub(super) fn new(
        level: u8,
        log_size: u8,
        miss: Option<Handle<FlowTable>>,
    ) -> Result<Self, Refusal> {
        if log_size > MAX_LOG_SIZE {
            return Err(Refusal::FlowTableSize);
        }
        check_level(level, miss.as_deref())?;
        Ok(Self {
            level,
            log_size,
            state: RwLock::new(State {
                miss,
                groups: Table::new("flow group", 1, 1 << 24),
                entries: BTreeMap::new(),
                slices: BTreeMap::new(),
            }),
        })
    }

    /// Its level.
    pub(super) fn level(&self) -> u8 {
        self.level
    }

    /// Looks for a frame.
    pub(super) fn find(&self, headers: &Headers) -> Found {
        let state = look(&self.state);
        for slice in state.slices.values() {
            let key = headers.masked(&slice.mask);
            let mut same = slice.entries.range((key, 0)..=(key, u32::MAX));
            if let Some((_, entry)) = same.next() {
                return Found::Entry(entry.clone());
            }
        }
        match &state.miss {
            Some(next) => Found::Table(next.share()),
            None => Found::Nothing,
        }
    }

    /// Changes which table is looked at when no entry matches.
    ///
    /// # Errors
    ///
    /// [`Refusal::FlowTableLevel`] if that is not of a higher level.
    pub(super) fn set_miss(&self, miss: Option<Handle<FlowTable>>) -> Result<(), Refusal> {
        check_level(self.level, miss.as_deref())?;
        let before = std::mem::replace(&mut change(&self.state).miss, miss);
        drop(before);
        Ok(())
    }

    /// Adds a group and returns its number.
    ///
    /// # Errors
    ///
    /// [`Refusal::FlowGroupRange`] if it does not lie in the table, [`Refusal::FlowGroupOverlap`]
    /// if part of it is another group's.
    pub(super) fn add_group(&self, group: Group) -> Result<u32, Refusal> {
        if group.end >> self.log_size != 0 {
            return Err(Refusal::FlowGroupRange);
        }
        let mut state = change(&self.state);
        let overlaps = |other: &Group| group.start <= other.end && other.start <= group.end;
        if state.groups.iter().any(|(_, other)| overlaps(other)) {
            return Err(Refusal::FlowGroupOverlap);
        }
        let (start, mask) = (group.start, group.mask);
        let id = state.groups.add(group)?;
        let entries = BTreeMap::new();
        state.slices.insert(start, Slice { mask, entries });
        Ok(id)
    }

    /// Takes a group away.
    ///
    /// # Errors
    ///
    /// Those of [`Table::remove`]: it is not there, or has entries.
    pub(super) fn remove_group(&self, id: u32) -> Result<(), Refusal> {
        let mut state = change(&self.state);
        let group = state.groups.remove(id)?;
        state.slices.remove(&group.start);
        Ok(())
    }

    /// Uses a group for an entry of index `index`.
    ///
    /// # Errors
    ///
    /// The group is not there, or [`Refusal::FlowIndex`] if the index is not in it.
    pub(super) fn hold_group(&self, id: u32, index: u32) -> Result<Handle<Group>, Refusal> {
        let group = look(&self.state).groups.hold(id)?;
        if !(group.start..=group.end).contains(&index) {
            return Err(Refusal::FlowIndex);
        }
        Ok(group)
    }

    /// Looks at an entry.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoFlowEntry`] if it is not there.
    pub(super) fn entry(&self, index: u32) -> Result<Arc<Entry>, Refusal> {
        let state = look(&self.state);
        let entry = state.entries.get(&index).ok_or(Refusal::NoFlowEntry)?;
        Ok(entry.clone())
    }

    /// Writes an entry, in place of what is there.
    pub(super) fn set_entry(&self, index: u32, entry: Entry) {
        let entry = Arc::new(entry);
        let mut state = change(&self.state);
        let _before = state.unlink(index);
        if let Some(slice) = state.slices.get_mut(&entry.group().start) {
            slice.entries.insert((*entry.key(), index), entry.clone());
        }
        state.entries.insert(index, entry);
    }

    /// Takes an entry away.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoFlowEntry`] if it is not there.
    pub(super) fn remove_entry(&self, index: u32) -> Result<(), Refusal> {
        let entry = change(&self.state).unlink(index);
        entry.map(drop).ok_or(Refusal::NoFlowEntry)
    }

    /// Returns whether it has groups.
    fn has_groups(&self) -> bool {
        !look(&self.state).groups.is_empty()
    }
}

/// Refuses a table that would lead to one of the same or a lower level: frames might go round.
fn check_level(level: u8, next: Option<&FlowTable>) -> Result<(), Refusal> {
    if next.is_some_and(|next| next.level <= level) {
        return Err(Refusal::FlowTableLevel);
    }
    Ok(())
}

/// Refuses tables that are not for received frames.
pub(super) fn check_type(table_type: Result<FlowTableType, Unknown>) -> Result<(), Refusal> {
    if table_type != Ok(FlowTableType::NIC_RX) {
        return Err(Refusal::FlowTableType);
    }
    Ok(())
}

/// Refuses another function's tables.
pub(super) fn check_owner(other_vport: bool, other_eswitch: bool) -> Result<(), Refusal> {
    if other_vport || other_eswitch {
        return Err(Refusal::OtherPort);
    }
    Ok(())
}

impl Steering {
    /// Where a frame goes that no entry matches.
    fn miss(&self, context: &FlowTableContext) -> Result<Option<Handle<FlowTable>>, Refusal> {
        match context.table_miss_action() {
            Ok(FlowTableMissAction::DEF) => Ok(None),
            Ok(FlowTableMissAction::FWD) => {
                let next = self.flow_tables.hold(context.table_miss_id())?;
                Ok(Some(next))
            }
            _ => Err(Refusal::MissAction),
        }
    }
}

impl Execute for CreateFlowTable {
    fn execute(
        hca: &mut Hca,
        input: &CreateFlowTableIn,
        _tail: &[u8],
    ) -> Result<Reply<CreateFlowTableOut>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        let context = input.flow_table_context();
        let special = input.op_mod() != 0
            || context.reformat_en()
            || context.decap_en()
            || context.sw_owner()
            || context.termination_table()
            || context.rtc_valid();
        if special {
            return Err(Refusal::FlowTableKind);
        }
        let flow = &hca.platform.profile.flow_table;
        let flow = flow.flow_table_properties_nic_receive();
        if context.log_size() > flow.log_max_ft_size() {
            return Err(Refusal::FlowTableSize);
        }
        if context.level() >= flow.max_ft_level() {
            return Err(Refusal::FlowTableLevel);
        }
        let miss = hca.steering.miss(context)?;
        let table = FlowTable::new(context.level(), context.log_size(), miss)?;
        let mut output = CreateFlowTableOut::new();
        output.set_table_id(hca.steering.flow_tables.add(table)?);
        Ok(output.into())
    }
}

impl Execute for DestroyFlowTable {
    fn execute(
        hca: &mut Hca,
        input: &DestroyFlowTableIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        let steering = &mut hca.steering;
        let id = input.table_id();
        if steering.flow_tables.get(id)?.has_groups() {
            return Err(Refusal::InUse(steering.flow_tables.name()));
        }
        steering.flow_tables.remove(id)?;
        if steering.root == Some(id) {
            steering.root = None;
            steering.receiver.set_root(None);
        }
        // Its own miss table is free from now on.
        steering.receiver.settle();
        Ok(Reply::done())
    }
}

impl Execute for ModifyFlowTable {
    fn execute(
        hca: &mut Hca,
        input: &ModifyFlowTableIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        if input.modify_field_select() != MODIFY_MISS_TABLE_ID {
            return Err(Refusal::Unchangeable);
        }
        let steering = &hca.steering;
        let table = steering.flow_tables.get(input.table_id())?;
        table.set_miss(steering.miss(input.flow_table_context())?)?;
        Ok(Reply::done())
    }
}

impl Execute for QueryFlowTable {
    fn execute(
        hca: &mut Hca,
        input: &QueryFlowTableIn,
        _tail: &[u8],
    ) -> Result<Reply<QueryFlowTableOut>, Refusal> {
        check_type(input.table_type())?;
        let table = hca.steering.flow_tables.get(input.table_id())?;
        let mut output = QueryFlowTableOut::new();
        let context = output.flow_table_context_mut();
        context.set_level(table.level).set_log_size(table.log_size);
        if let Some(miss) = &look(&table.state).miss {
            context
                .set_table_miss_action(FlowTableMissAction::FWD)
                .set_table_miss_id(miss.id());
        }
        Ok(output.into())
    }
}

impl Execute for SetFlowTableRoot {
    fn execute(
        hca: &mut Hca,
        input: &SetFlowTableRootIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        if input.table_of_other_vport() || input.table_eswitch_owner_vhca_id_valid() {
            return Err(Refusal::OtherPort);
        }
        let steering = &mut hca.steering;
        let root = match input.op_mod() {
            0 => {
                let id = input.table_id();
                Some((id, steering.flow_tables.get(id)?.clone()))
            }
            _ => None,
        };
        steering.root = root.as_ref().map(|(id, _)| *id);
        steering.receiver.set_root(root.map(|(_, table)| table));
        Ok(Reply::done())
    }
}

impl Execute for CreateFlowGroup {
    fn execute(
        hca: &mut Hca,
        input: &CreateFlowGroupIn,
        _tail: &[u8],
    ) -> Result<Reply<CreateFlowGroupOut>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        if input.group_type() != 0 || input.match_definer_id() != 0 {
            return Err(Refusal::MatchCriteria);
        }
        let table = hca.steering.flow_tables.get(input.table_id())?;
        let group = Group::new(
            input.start_flow_index(),
            input.end_flow_index(),
            input.match_criteria_enable(),
            input.match_criteria().clone(),
        )?;
        let mut output = CreateFlowGroupOut::new();
        output.set_group_id(table.add_group(group)?);
        Ok(output.into())
    }
}

impl Execute for DestroyFlowGroup {
    fn execute(
        hca: &mut Hca,
        input: &DestroyFlowGroupIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        let table = hca.steering.flow_tables.get(input.table_id())?;
        table.remove_group(input.group_id())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryFlowGroup {
    fn execute(
        hca: &mut Hca,
        input: &QueryFlowGroupIn,
        _tail: &[u8],
    ) -> Result<Reply<QueryFlowGroupOut>, Refusal> {
        check_type(input.table_type())?;
        let table = hca.steering.flow_tables.get(input.table_id())?;
        let state = look(&table.state);
        let group = state.groups.get(input.group_id())?;
        let mut output = QueryFlowGroupOut::new();
        output
            .set_start_flow_index(group.start)
            .set_end_flow_index(group.end)
            .set_match_criteria_enable(group.criteria_enable);
        *output.match_criteria_mut() = group.criteria.clone();
        Ok(output.into())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateFlowTable>(),
    handler::<DestroyFlowTable>(),
    handler::<ModifyFlowTable>(),
    handler::<QueryFlowTable>(),
    handler::<SetFlowTableRoot>(),
    handler::<CreateFlowGroup>(),
    handler::<DestroyFlowGroup>(),
    handler::<QueryFlowGroup>(),
];
