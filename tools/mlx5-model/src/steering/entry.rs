// SPDX-License-Identifier: GPL-2.0

//! Entries of flow tables: what is done with frames that match.

use prm::{
    command::OutputHeader,
    flow::{
        DeleteFlowTableEntry,
        DeleteFteIn,
        DestFormat,
        FlowContext,
        FlowCounterList,
        FlowDestinationType,
        QueryFlowTableEntry,
        QueryFteIn,
        QueryFteOut,
        SetFlowTableEntry,
        SetFteIn,
        ACTION_ALLOW,
        ACTION_COUNT,
        ACTION_DROP,
        ACTION_FWD_DEST,
        FTE_ACTION,
        FTE_DESTINATION_LIST,
        FTE_FLOW_COUNTERS,
        FTE_FLOW_TAG, //
    },
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
    object::Handle,
    refusal::Refusal,
    steering::{
        counter::FlowCounter,
        flow_table::{
            check_owner,
            check_type,
            FlowTable,
            Group, //
        },
        headers::Headers,
        tir::Tir,
        Steering, //
    }, //
};

/// How many receive interfaces an entry can copy a frame to.
const MAX_DESTINATIONS: usize = 64;

/// How many counters an entry can have.
const MAX_COUNTERS: usize = 16;

/// An entry as the driver wrote it.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) context: FlowContext,
    pub(super) destinations: Vec<DestFormat>,
    pub(super) counters: Vec<FlowCounterList>,
}

impl Rule {
    /// Reads an entry, whose lists are in `tail`.
    ///
    /// # Errors
    ///
    /// [`Refusal::InputTooShort`] if a list is cut short; the refusal of one that is too long.
    fn read(context: &FlowContext, tail: &[u8]) -> Result<Self, Refusal> {
        if context.extended_destination() {
            return Err(Refusal::FlowDestination);
        }
        let (destinations, rest) = list(tail, context.destination_list_size(), MAX_DESTINATIONS)?;
        let (counters, _) = list(rest, context.flow_counter_list_size(), MAX_COUNTERS)?;
        Ok(Self {
            context: context.clone(),
            destinations,
            counters,
        })
    }

    /// Takes over from `other` the parts that `mask` names.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unchangeable`] if it names none, or one that is not there.
    fn update(&mut self, other: Self, mask: u8) -> Result<(), Refusal> {
        const PARTS: u8 = FTE_ACTION | FTE_FLOW_TAG | FTE_DESTINATION_LIST | FTE_FLOW_COUNTERS;

        if mask == 0 || mask & !PARTS != 0 {
            return Err(Refusal::Unchangeable);
        }
        if mask & FTE_ACTION != 0 {
            self.context.set_action(other.context.action());
        }
        if mask & FTE_FLOW_TAG != 0 {
            self.context.set_flow_tag(other.context.flow_tag());
        }
        if mask & FTE_DESTINATION_LIST != 0 {
            let size = other.context.destination_list_size();
            self.context.set_destination_list_size(size);
            self.destinations = other.destinations;
        }
        if mask & FTE_FLOW_COUNTERS != 0 {
            let size = other.context.flow_counter_list_size();
            self.context.set_flow_counter_list_size(size);
            self.counters = other.counters;
        }
        Ok(())
    }
}

/// Reads `len` structures, at most `max`, and returns what follows them.
fn list<T: Layout>(bytes: &[u8], len: u32, max: usize) -> Result<(Vec<T>, &[u8]), Refusal> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > max {
        return Err(Refusal::FlowList);
    }
    let mut rest = bytes;
    let mut items = Vec::with_capacity(len);
    for _ in 0..len {
        let (item, after) = T::split(rest).ok_or(Refusal::InputTooShort)?;
        items.push(item.clone());
        rest = after;
    }
    Ok((items, rest))
}

/// An entry, with all it uses.
pub(super) struct Entry {
    rule: Rule,
    group: Handle<Group>,
    key: Headers,
    table: Option<Handle<FlowTable>>,
    tirs: Vec<Handle<Tir>>,
    counters: Vec<Handle<FlowCounter>>,
}

impl Entry {
    /// Makes an entry of `table`.
    ///
    /// # Errors
    ///
    /// The refusal of what it asks for and cannot be had.
    pub(super) fn new(
        steering: &Steering,
        table: &FlowTable,
        group: Handle<Group>,
        rule: Rule,
    ) -> Result<Self, Refusal> {
        let action = rule.context.action();
        let way = action & (ACTION_ALLOW | ACTION_DROP | ACTION_FWD_DEST);
        if action & !(way | ACTION_COUNT) != 0 || !way.is_power_of_two() {
            return Err(Refusal::FlowAction);
        }
        let forwards = way == ACTION_FWD_DEST;
        let counts = action & ACTION_COUNT != 0;
        if forwards == rule.destinations.is_empty() || counts == rule.counters.is_empty() {
            return Err(Refusal::FlowList);
        }

        let mut next = None;
        let mut tirs = Vec::new();
        for destination in &rule.destinations {
            if destination.destination_eswitch_owner_vhca_id_valid() {
                return Err(Refusal::OtherPort);
            }
            let id = destination.destination_id();
            match destination.destination_type() {
                Ok(FlowDestinationType::TIR) => tirs.push(steering.tirs.hold(id)?),
                // A frame is copied to receive interfaces only, so that it cannot multiply from
                // table to table.
                Ok(FlowDestinationType::FLOW_TABLE) if rule.destinations.len() == 1 => {
                    let destination = steering.flow_tables.hold(id)?;
                    if destination.level() <= table.level() {
                        return Err(Refusal::FlowTableLevel);
                    }
                    next = Some(destination);
                }
                _ => return Err(Refusal::FlowDestination),
            }
        }
        let hold =
            |counter: &FlowCounterList| steering.flow_counters.hold(counter.flow_counter_id());
        let counters = rule.counters.iter().map(hold).collect::<Result<_, _>>()?;
        Ok(Self {
            key: group.key(rule.context.match_value().outer_headers()),
            group,
            rule,
            table: next,
            tirs,
            counters,
        })
    }

    /// The group it belongs to.
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// The values of the bits it compares.
    pub(super) fn key(&self) -> &Headers {
        &self.key
    }

    /// The table that is looked at next, if that is what it is for.
    pub(super) fn table(&self) -> Option<&FlowTable> {
        self.table.as_deref()
    }

    /// The receive interfaces that get a frame.
    pub(super) fn tirs(&self) -> &[Handle<Tir>] {
        &self.tirs
    }

    /// Counts a frame of `octets` bytes.
    pub(super) fn count(&self, octets: usize) {
        for counter in &self.counters {
            counter.count(octets);
        }
    }
}

impl Execute for SetFlowTableEntry {
    fn execute(
        hca: &mut Hca,
        input: &SetFteIn,
        tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        if input.ignore_flow_level() {
            return Err(Refusal::FlowTableLevel);
        }
        let steering = &hca.steering;
        let table = steering.flow_tables.get(input.table_id())?;
        let index = input.flow_index();
        let context = input.flow_context();
        let group = table.hold_group(context.group_id(), index)?;
        let wanted = Rule::read(context, tail)?;
        let rule = match (input.op_mod(), table.entry(index)) {
            (0, Err(_)) => wanted,
            (0, Ok(_)) => return Err(Refusal::FlowEntryExists),
            (1, before) => {
                let mut rule = before?.rule.clone();
                if rule.context.group_id() != context.group_id() {
                    return Err(Refusal::FlowIndex);
                }
                rule.update(wanted, input.modify_enable_mask())?;
                rule
            }
            _ => return Err(Refusal::Unchangeable),
        };
        table.set_entry(index, Entry::new(steering, table, group, rule)?);
        // What the entry led to before is free from now on.
        steering.receiver.settle();
        Ok(Reply::done())
    }
}

impl Execute for DeleteFlowTableEntry {
    fn execute(
        hca: &mut Hca,
        input: &DeleteFteIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        check_type(input.table_type())?;
        check_owner(input.other_vport(), input.other_eswitch())?;
        let table = hca.steering.flow_tables.get(input.table_id())?;
        table.remove_entry(input.flow_index())?;
        hca.steering.receiver.settle();
        Ok(Reply::done())
    }
}

impl Execute for QueryFlowTableEntry {
    fn execute(
        hca: &mut Hca,
        input: &QueryFteIn,
        _tail: &[u8],
    ) -> Result<Reply<QueryFteOut>, Refusal> {
        check_type(input.table_type())?;
        let table = hca.steering.flow_tables.get(input.table_id())?;
        let entry = table.entry(input.flow_index())?;
        let mut reply = Reply::from(QueryFteOut::new());
        *reply.output.flow_context_mut() = entry.rule.context.clone();
        for destination in &entry.rule.destinations {
            reply.tail.extend_from_slice(destination.as_bytes());
        }
        for counter in &entry.rule.counters {
            reply.tail.extend_from_slice(counter.as_bytes());
        }
        Ok(reply)
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<SetFlowTableEntry>(),
    handler::<DeleteFlowTableEntry>(),
    handler::<QueryFlowTableEntry>(),
];
