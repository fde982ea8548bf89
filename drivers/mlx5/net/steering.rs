// SPDX-License-Identifier: GPL-2.0

//! Steering: which received frames go to the device, and to which of its queues.
//!
//! ```text
//!   root --> VLAN table --> MAC table --> kinds of traffic --> TIRs --> RQT --> receive queues
//!            level 0        level 1       level 2
//! ```
//!
//! What the driver wants to receive is entries of the first two tables ([`rules`]). How it is spread
//! is the rest ([`spread`]). With one pair of queues there is nothing to be spread: the MAC table
//! leads to the one receive interface (TIR) then, and there is no third table.
//!
//! Everything is made with the device, in [`Steering::ROUNDS`] rounds of commands that the device
//! shares with what else it needs; a driver that starts is a difference to that.

pub(crate) mod rules;
pub(crate) mod spread;

use kernel::{
    alloc::AllocError,
    prelude::*, //
};
use prm::{
    flow::{
        CreateFlowGroup,
        CreateFlowTable,
        DeleteFlowTableEntry,
        SetFlowTableEntry,
        SetFlowTableRoot, //
    },
    rqt::{
        CreateRqt,
        ModifyRqt, //
    },
    tir::CreateTir,
    Command, //
};
use virtio::{
    features::Features,
    net::{
        features,
        filter::Filter,
        rss::TABLE_LEN,
        MacAddress, //
    }, //
};
use zerocopy::IntoBytes;

use self::{
    rules::{
        Change,
        Group,
        Places,
        Rule,
        Table, //
    },
    spread::{
        Compared,
        Hashing,
        Scaling,
        Traffic, //
    },
};
use super::wire::steer::{
    self,
    Criteria,
    Destination,
    Match,
    Spot, //
};
use crate::hca::{
    end_all,
    Batch,
    Era,
    Failure,
    Object,
    Replies,
    Ticket, //
};

/// What others have made, for steering to lead to.
pub(crate) struct Made<'a> {
    /// The transport domain of receive interfaces: there from round 4 on.
    pub(crate) domain: u32,
    /// The virtqueue objects of the receive queues that are in use, in order: there from round 3 on.
    pub(crate) receivers: &'a [u32],
}

/// What a driver wants.
pub(crate) struct Wanted<'a> {
    /// The filter it set.
    pub(crate) filter: &'a Filter,
    /// Its address.
    pub(crate) mac: MacAddress,
    /// The features it acknowledged.
    pub(crate) features: Features,
    /// The virtqueue objects of the receive queues that are in use, in order.
    pub(crate) receivers: &'a [u32],
    /// How it spreads what is received over them, if it says so.
    pub(crate) scaling: Option<&'a Scaling>,
}

/// A rule that is in its table.
struct Installed {
    rule: Rule,
    index: u32,
    entry: Object,
}

/// What was put into a batch, and not settled yet.
enum Pending {
    Table(Level, Ticket<CreateFlowTable>),
    Group(Criteria, Ticket<CreateFlowGroup>),
    Root(Ticket<SetFlowTableRoot>),
    Rule(Rule, u32, Ticket<SetFlowTableEntry>),
    Rqt(Ticket<CreateRqt>),
    Rest(Ticket<CreateRqt>),
    Queues(Ticket<ModifyRqt>),
    Tir(usize, Ticket<CreateTir>),
    Kind(usize, Ticket<SetFlowTableEntry>),
}

/// Which of the tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Filter(Table),
    Kinds,
}

/// The steering of a device. Field order is the order of teardown.
pub(crate) struct Steering {
    /// In the order of the rules.
    rules: KVVec<Installed>,
    /// Entries of the table of kinds. One that could not be made is left out: frames of its kind
    /// are taken for those of a more general one.
    kinds: [Option<Object>; Traffic::ALL.len()],
    /// One for each kind of traffic that is told apart.
    tirs: [Option<Object>; Traffic::ALL.len()],
    groups: KVec<(Criteria, Object)>,
    rqt: Option<Object>,
    /// The table of the queue for what is not hashed, where drivers choose that one.
    rest: Option<Object>,
    tables: KVec<(Level, Object)>,

    /// How many entries the table of queues has.
    count: u16,
    /// Whether drivers choose what it is filled with, and how frames are hashed.
    is_scaled: bool,
    /// What the table of queues was last filled with, and behind that the one of the rest.
    filled: KVec<u32>,
    /// How frames are hashed; `None` if not all of them are in the same way.
    hashing: Option<Hashing>,
    places: Places,
    pending: KVVec<Pending>,
    /// What is not wanted any more once what is wanted is there.
    unwanted: KVVec<Rule>,
    /// What there was in the MAC table when it was [detached](Self::detach).
    detached: KVVec<Rule>,
    is_detached: bool,
}

/// A command was not sent for want of memory.
fn no_memory<C: Command>(_: AllocError) -> Failure {
    Failure::not_sent::<C>(ENOMEM)
}

impl Steering {
    /// The rounds in which everything is made.
    pub(crate) const ROUNDS: u32 = 6;

    /// Steering for a device of up to `pairs` pairs of queues, which with `is_scaled` offers
    /// receive-side scaling; nothing of it is made yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(pairs: u16, is_scaled: bool) -> Result<KBox<Self>> {
        // In its place: it is too large for the stack.
        let this = init!(Self {
            rules: KVVec::new(),
            kinds: [const { None }; Traffic::ALL.len()],
            tirs: [const { None }; Traffic::ALL.len()],
            groups: KVec::new(),
            rqt: None,
            rest: None,
            tables: KVec::new(),
            count: match is_scaled {
                true => TABLE_LEN,
                false => spread::entries(pairs),
            },
            is_scaled,
            filled: KVec::new(),
            hashing: Some(Hashing::USUAL),
            places: Places::new(),
            pending: KVVec::new(),
            unwanted: KVVec::new(),
            detached: KVVec::new(),
            is_detached: false,
        });
        KBox::init(this, GFP_KERNEL)
    }

    /// The kinds of traffic that are told apart.
    fn traffic(&self) -> &'static [Traffic] {
        if self.is_spread() {
            &Traffic::ALL
        } else {
            &[Traffic::Other]
        }
    }

    /// Whether there is more than one queue to choose from.
    fn is_spread(&self) -> bool {
        self.count > 1
    }

    fn table(&self, level: Level) -> u32 {
        let found = self.tables.iter().find(|(which, _)| *which == level);
        found.map_or(0, |(_, table)| table.id())
    }

    fn group(&self, criteria: Criteria) -> u32 {
        let found = self.groups.iter().find(|(which, _)| *which == criteria);
        found.map_or(0, |(_, group)| group.id())
    }

    fn put<C: Command>(&mut self, pending: Pending) -> Result<(), Failure> {
        // What it is for is destroyed with the replies that nobody asks then.
        self.pending
            .push(pending, GFP_KERNEL)
            .map_err(no_memory::<C>)
    }

    /// Puts the commands of a round into a batch, all of which may be executed at once:
    ///
    /// | round | |
    /// |---|---|
    /// | 0 | tables |
    /// | 1 | groups |
    /// | 2 | the root, and entries that lead from table to table |
    /// | 3 | the table of queues |
    /// | 4 | receive interfaces |
    /// | 5 | entries that lead to them |
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn stage(
        &mut self,
        round: u32,
        made: &Made<'_>,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        self.forget();
        match round {
            0 => self.stage_tables(batch),
            1 => self.stage_groups(batch),
            2 => {
                let root = self.table(Level::Filter(Table::Vlan));
                let ticket = batch.push::<SetFlowTableRoot>(|input| steer::root(input, root))?;
                self.put::<SetFlowTableRoot>(Pending::Root(ticket))?;
                self.stage_filter(batch, |table, is_spread| table == Table::Vlan || is_spread)
            }
            3 => self.stage_rqt(made.receivers, batch),
            4 => self.stage_tirs(made.domain, batch),
            5 if self.is_spread() => self.stage_kinds(batch),
            5 => self.stage_filter(batch, |table, _| table == Table::Mac),
            _ => Ok(()),
        }
    }

    fn stage_tables(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        let filters =
            [Table::Vlan, Table::Mac].map(|table| (Level::Filter(table), table.log_size()));
        let kinds = self
            .is_spread()
            .then_some((Level::Kinds, spread::LOG_KINDS));
        let tables = Iterator::chain(filters.into_iter(), kinds);
        for (level, (which, log_size)) in (0u8..).zip(tables) {
            let ticket = batch.create_with::<CreateFlowTable>(
                |input| steer::table(input, level, log_size),
                &[],
                KVec::new(),
                steer::end_table,
            )?;
            self.put::<CreateFlowTable>(Pending::Table(which, ticket))?;
        }
        Ok(())
    }

    fn stage_groups(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        for table in [Table::Vlan, Table::Mac] {
            for group in [Group::Exact, Group::Kind] {
                let criteria = Criteria::Filter(table, group);
                self.stage_group(Level::Filter(table), table.range(group), criteria, batch)?;
            }
        }
        if self.is_spread() {
            for compared in Compared::ALL {
                let criteria = Criteria::Traffic(compared);
                self.stage_group(Level::Kinds, compared.range(), criteria, batch)?;
            }
        }
        Ok(())
    }

    fn stage_group(
        &mut self,
        level: Level,
        range: (u32, u32),
        criteria: Criteria,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let table = self.table(level);
        let ticket = batch.create_with::<CreateFlowGroup>(
            |input| steer::group(input, table, range, criteria),
            &[],
            KVec::new(),
            |end| steer::end_group(end, table),
        )?;
        self.put::<CreateFlowGroup>(Pending::Group(criteria, ticket))
    }

    /// The rules of a device that no driver has told anything, in those tables that `which` chooses.
    fn stage_filter(
        &mut self,
        batch: &mut Batch,
        which: impl Fn(Table, bool) -> bool,
    ) -> Result<(), Failure> {
        let is_spread = self.is_spread();
        rules::wanted(&Filter::RESET, [0; 6], |rule| {
            if which(rule.place().0, is_spread) {
                self.stage_rule(rule, batch)
            } else {
                Ok(())
            }
        })
    }

    fn stage_rule(&mut self, rule: Rule, batch: &mut Batch) -> Result<(), Failure> {
        let (table, group) = rule.place();
        let index = self
            .places
            .take(&rule)
            .ok_or_else(|| Failure::not_sent::<SetFlowTableEntry>(ENOSPC))?;
        let spot = Spot {
            table: self.table(Level::Filter(table)),
            group: self.group(Criteria::Filter(table, group)),
            index,
        };
        let to = match (table, rule) {
            (_, Rule::DropBroadcast) => Destination::Nowhere,
            (Table::Vlan, _) => Destination::Table(self.table(Level::Filter(Table::Mac))),
            (Table::Mac, _) if self.is_spread() => Destination::Table(self.table(Level::Kinds)),
            (Table::Mac, _) => Destination::Tir(self.tir(0)),
        };
        let put = establish(batch, spot, Match::Rule(rule), to)
            .and_then(|ticket| self.put::<SetFlowTableEntry>(Pending::Rule(rule, index, ticket)));
        put.inspect_err(|_| self.places.give(&rule, index))
    }

    fn stage_rqt(&mut self, receivers: &[u32], batch: &mut Batch) -> Result<(), Failure> {
        self.filled = self.wanted_queues::<CreateRqt>(receivers, None)?;
        let (queues, rest) = self.parts();
        let create = |batch: &mut Batch, part: &[u32]| {
            // No more than there are entries.
            let count = part.len() as u16;
            let tail = entries_of::<CreateRqt>(part)?;
            batch.create_with::<CreateRqt>(
                |input| steer::rqt(input, count),
                &tail,
                KVec::new(),
                |_| {},
            )
        };
        let ticket = create(batch, queues)?;
        let rest = match self.is_scaled {
            true => Some(create(batch, rest)?),
            false => None,
        };
        self.put::<CreateRqt>(Pending::Rqt(ticket))?;
        rest.map_or(Ok(()), |ticket| {
            self.put::<CreateRqt>(Pending::Rest(ticket))
        })
    }

    fn stage_tirs(&mut self, domain: u32, batch: &mut Batch) -> Result<(), Failure> {
        let hashing = self.hashing.unwrap_or(Hashing::USUAL);
        self.hashing = Some(hashing);
        for (at, traffic) in self.traffic().iter().enumerate() {
            let ticket = self.create_tir(*traffic, domain, &hashing, batch)?;
            self.put::<CreateTir>(Pending::Tir(at, ticket))?;
        }
        Ok(())
    }

    fn create_tir(
        &self,
        traffic: Traffic,
        domain: u32,
        hashing: &Hashing,
        batch: &mut Batch,
    ) -> Result<Ticket<CreateTir>, Failure> {
        let rqt = match &self.rest {
            Some(rest) if !traffic.is_hashed(hashing.types) => Some(rest),
            _ => self.rqt.as_ref(),
        };
        let rqt = rqt.map_or(0, Object::id);
        batch.create::<CreateTir>(|input| steer::tir(input, domain, rqt, traffic, hashing))
    }

    fn stage_kinds(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        for at in 0..self.traffic().len() {
            self.stage_kind(at, batch)?;
        }
        Ok(())
    }

    /// Has frames of a kind go to its receive interface.
    fn stage_kind(&mut self, at: usize, batch: &mut Batch) -> Result<(), Failure> {
        let Some((index, traffic)) = (0u32..).zip(self.traffic()).nth(at) else {
            return Ok(());
        };
        let spot = Spot {
            table: self.table(Level::Kinds),
            group: self.group(Criteria::Traffic(traffic.compared())),
            index,
        };
        let to = Destination::Tir(self.tir(at));
        let ticket = establish(batch, spot, Match::Traffic(*traffic), to)?;
        self.put::<SetFlowTableEntry>(Pending::Kind(at, ticket))
    }

    /// The number of the receive interface for a kind.
    fn tir(&self, at: usize) -> u32 {
        let tir = self.tirs.get(at).and_then(Option::as_ref);
        tir.map_or(0, Object::id)
    }

    /// What the table of queues is to be filled with, and behind that the one of the rest.
    fn wanted_queues<C: Command>(
        &self,
        receivers: &[u32],
        scaling: Option<&Scaling>,
    ) -> Result<KVec<u32>, Failure> {
        let mut list =
            KVec::with_capacity(usize::from(self.count) + 1, GFP_KERNEL).map_err(no_memory::<C>)?;
        let mut put = |queue| {
            // There is room for all of them.
            let _ = list.push_within_capacity(queue);
        };
        match scaling {
            Some(scaling) => scaling.fill(receivers, self.count).for_each(&mut put),
            None => spread::fill(receivers, self.count).for_each(&mut put),
        }
        let rest = scaling.and_then(|scaling| scaling.rest(receivers));
        if let (true, Some(queue)) = (self.is_scaled, rest.or(receivers.first().copied())) {
            put(queue);
        }
        Ok(list)
    }

    /// What the table of queues is filled with, and the one of the rest.
    fn parts(&self) -> (&[u32], &[u32]) {
        let at = usize::from(self.count).min(self.filled.len());
        self.filled.split_at_checked(at).unwrap_or((&[], &[]))
    }

    /// Takes what the batch of [`Self::stage`] came to.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]; the device is to be given up then.
    pub(crate) fn staged(&mut self, replies: &mut Replies) -> Result<(), Failure> {
        let mut result = Ok(());
        for pending in core::mem::take(&mut self.pending) {
            result = result.and(self.settle(pending, replies));
        }
        result
    }

    /// Puts into a batch what makes of the rules and queues there are those that a driver wants.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory, or if nothing leads to the queues; the batch is to be given up
    /// then.
    pub(crate) fn change(&mut self, batch: &mut Batch, wanted: &Wanted<'_>) -> Result<(), Failure> {
        if self.is_detached {
            return Err(Failure::not_sent::<SetFlowTableEntry>(ENXIO));
        }
        self.forget();
        let list = rules_of(wanted)?;
        let (mut added, mut removed) = (KVVec::new(), KVVec::new());
        for change in rules::changes(self.rules.iter().map(|one| one.rule), &list) {
            let pushed = match change {
                Change::Add(rule) => added.push(rule, GFP_KERNEL),
                Change::Remove(rule) => removed.push(rule, GFP_KERNEL),
            };
            pushed.map_err(no_memory::<SetFlowTableEntry>)?;
        }
        for rule in added {
            self.stage_rule(rule, batch)?;
        }
        self.unwanted = removed;

        let staged = self.stage_queues(wanted, batch);
        if staged.is_err() {
            self.filled.clear();
        }
        staged
    }

    /// Has the tables of queues be filled as it is wanted.
    fn stage_queues(&mut self, wanted: &Wanted<'_>, batch: &mut Batch) -> Result<(), Failure> {
        let queues = self.wanted_queues::<ModifyRqt>(wanted.receivers, wanted.scaling)?;
        let before = core::mem::replace(&mut self.filled, queues);
        let (queues, rest) = self.parts();
        let mut tickets = [None, None];
        let mut at = 0;
        for (table, part) in [(&self.rqt, queues), (&self.rest, rest)] {
            let was = before.get(at..at + part.len());
            at += part.len();
            let Some(table) = table.as_ref().filter(|_| was != Some(part)) else {
                continue;
            };
            // No more than there are entries.
            let count = part.len() as u16;
            let tail = entries_of::<ModifyRqt>(part)?;
            let ticket = batch.push_with::<ModifyRqt>(
                |input| steer::change_rqt(input, table.id(), count),
                &tail,
                0,
            )?;
            if let Some(free) = tickets.iter_mut().find(|ticket| ticket.is_none()) {
                *free = Some(ticket);
            }
        }
        for ticket in tickets.into_iter().flatten() {
            self.put::<ModifyRqt>(Pending::Queues(ticket))?;
        }
        Ok(())
    }

    /// Has frames hashed as a driver wants it, when they go to the queues it wants: see
    /// [`Self::change`].
    ///
    /// # Errors
    ///
    /// The first [`Failure`]. Frames of some kinds are spread like those of more general ones then,
    /// until this is called again.
    pub(crate) fn rehash(
        &mut self,
        era: &Era,
        domain: u32,
        scaling: Option<&Scaling>,
    ) -> Result<(), Failure> {
        let hashing = scaling.map_or(Hashing::USUAL, |scaling| scaling.hashing);
        if !self.is_spread() || self.hashing == Some(hashing) {
            return Ok(());
        }
        self.forget();
        let before = self.hashing;
        let mut tickets = KVec::new();
        let mut batch = era.batch();
        for (at, traffic) in self.traffic().iter().enumerate() {
            // The rest is never hashed.
            if *traffic == Traffic::Other || !traffic.is_rehashed(before.as_ref(), &hashing) {
                continue;
            }
            let ticket = self.create_tir(*traffic, domain, &hashing, &mut batch)?;
            tickets
                .push((at, ticket), GFP_KERNEL)
                .map_err(no_memory::<CreateTir>)?;
        }
        let mut replies = batch.run()?;
        let room = tickets.len();
        let mut made = KVec::with_capacity(room, GFP_KERNEL).map_err(no_memory::<CreateTir>)?;
        // These are to outlive the entries that lead to them.
        let mut old_tirs = KVec::with_capacity(room, GFP_KERNEL).map_err(no_memory::<CreateTir>)?;
        let mut old_entries =
            KVec::with_capacity(room, GFP_KERNEL).map_err(no_memory::<CreateTir>)?;
        for (at, ticket) in tickets {
            // There is room for all.
            let _ = made.push_within_capacity((at, replies.object(ticket)?));
        }

        // What goes wrong from here on leaves frames of some kinds to more general ones.
        self.hashing = None;
        for (at, tir) in made {
            if let (Some(entry), Some(place)) = (self.kinds.get_mut(at), self.tirs.get_mut(at)) {
                let _ = old_entries.push_within_capacity((at, entry.take()));
                let _ = old_tirs.push_within_capacity(place.replace(tir));
            }
        }
        let mut batch = era.batch();
        for (_, entry) in old_entries.iter_mut() {
            entry.take().map_or(Ok(()), |entry| batch.end(entry))?;
        }
        batch.run()?.rest()?;
        let mut batch = era.batch();
        for (at, _) in old_entries.iter() {
            self.stage_kind(*at, &mut batch)?;
        }
        self.staged(&mut batch.run()?)?;
        self.hashing = Some(hashing);
        end_all(old_tirs.into_iter().flatten())
    }

    /// Takes what the batch of [`Self::change`] came to, and takes away what is not wanted any more:
    /// nothing that both let in is lost meanwhile.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]. If something could not be added, the rules are as before; if something
    /// could not be taken away, it lets in what is not wanted.
    pub(crate) fn changed(&mut self, replies: &mut Replies) -> Result<(), Failure> {
        let unwanted = core::mem::take(&mut self.unwanted);
        let mut added = KVVec::with_capacity(self.pending.len(), GFP_KERNEL)
            .map_err(no_memory::<SetFlowTableEntry>);
        if let Ok(added) = &mut added {
            for pending in self.pending.iter() {
                if let Pending::Rule(rule, ..) = pending {
                    // There is room for all.
                    let _ = added.push_within_capacity(*rule);
                }
            }
        }
        let settled = self.staged(replies);
        match (added, settled) {
            (Ok(_), Ok(())) => self.remove(&unwanted),
            (Ok(added), Err(failure)) => {
                // What this fails with is in the log.
                let _ = self.remove(&added);
                Err(failure)
            }
            // What was added stays, and lets in more than is wanted.
            (Err(failure), _) => Err(failure),
        }
    }

    /// Takes rules away, in one batch. Those that are not there are not minded.
    fn remove(&mut self, unwanted: &[Rule]) -> Result<(), Failure> {
        let mut entries = KVVec::new();
        let mut places = KVVec::new();
        for rule in unwanted {
            let Ok(at) = self.rules.binary_search_by_key(rule, |one| one.rule) else {
                continue;
            };
            let Ok(installed) = self.rules.remove(at) else {
                continue;
            };
            // Without memory it is taken away at once, and its place is not used again.
            if entries.push(installed.entry, GFP_KERNEL).is_ok() {
                let _ = places.push((*rule, installed.index), GFP_KERNEL);
            }
        }
        end_all(entries)?;
        for (rule, index) in places {
            self.places.give(&rule, index);
        }
        Ok(())
    }

    fn install(&mut self, rule: Rule, index: u32, entry: Object) -> Result<(), Failure> {
        let no_memory = no_memory::<SetFlowTableEntry>;
        self.rules.reserve(1, GFP_KERNEL).map_err(no_memory)?;
        let installed = Installed { rule, index, entry };
        let at = self.rules.partition_point(|one| one.rule < rule);
        // There is room.
        let _ = self.rules.insert_within_capacity(at, installed);
        Ok(())
    }

    /// Forgets what was put into a batch that was given up.
    fn forget(&mut self) {
        for pending in core::mem::take(&mut self.pending) {
            match pending {
                Pending::Rule(rule, index, _) => self.places.give(&rule, index),
                Pending::Queues(_) => self.filled.clear(),
                _ => {}
            }
        }
        self.unwanted.clear();
    }

    /// Takes away whatever leads to the receive queues, so that these can be destroyed. Nothing is
    /// received until [`Self::attach`].
    ///
    /// # Errors
    ///
    /// The first [`Failure`].
    pub(crate) fn detach(&mut self) -> Result<(), Failure> {
        if !self.is_detached {
            self.detached = self.leading()?;
            self.is_detached = true;
        }
        self.clear()
    }

    /// Whether nothing leads to the receive queues, as they were to be destroyed.
    pub(crate) fn is_detached(&self) -> bool {
        self.is_detached
    }

    /// The rules that lead to receive interfaces by themselves.
    fn leading(&self) -> Result<KVVec<Rule>, Failure> {
        let mut list = KVVec::new();
        let rules = self.rules.iter().map(|one| one.rule);
        for rule in rules.filter(|rule| !self.is_spread() && rule.place().0 == Table::Mac) {
            list.push(rule, GFP_KERNEL)
                .map_err(no_memory::<SetFlowTableEntry>)?;
        }
        Ok(list)
    }

    /// Takes away what there is of what leads to the receive queues.
    fn clear(&mut self) -> Result<(), Failure> {
        let leading = self.leading()?;
        self.remove(&leading)?;
        end_all(self.kinds.iter_mut().filter_map(Option::take))?;
        end_all(self.tirs.iter_mut().filter_map(Option::take))?;
        self.filled.clear();
        end_all(Iterator::chain(
            self.rqt.take().into_iter(),
            self.rest.take(),
        ))
    }

    /// Makes again what [`Self::detach`] took away.
    ///
    /// # Errors
    ///
    /// The first [`Failure`].
    pub(crate) fn attach(&mut self, era: &Era, made: &Made<'_>) -> Result<(), Failure> {
        let rules = core::mem::take(&mut self.detached);
        let result = self.attach_all(era, made, &rules);
        self.is_detached = result.is_err();
        if self.is_detached {
            self.detached = rules;
            // Half of it would be in the way of the next time. What this fails with is in the log.
            let _ = self.clear();
        }
        result
    }

    fn attach_all(&mut self, era: &Era, made: &Made<'_>, rules: &[Rule]) -> Result<(), Failure> {
        for step in 0..3 {
            self.forget();
            let mut batch = era.batch();
            let put = match step {
                0 => self.stage_rqt(made.receivers, &mut batch),
                1 => self.stage_tirs(made.domain, &mut batch),
                _ if self.is_spread() => self.stage_kinds(&mut batch),
                _ => rules
                    .iter()
                    .try_for_each(|rule| self.stage_rule(*rule, &mut batch)),
            };
            // What was put into a batch that is given up is forgotten with the next one.
            put?;
            self.staged(&mut batch.run()?)?;
        }
        Ok(())
    }

    /// Takes everything away, as many objects at once as can go together.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]; all of them are in the log.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        let entries = core::mem::take(&mut self.rules).into_iter();
        let entries = entries.map(|one| one.entry);
        let kinds = self.kinds.iter_mut().filter_map(Option::take);
        let entries = end_all(Iterator::chain(entries, kinds));
        let groups = core::mem::take(&mut self.groups).into_iter();
        let groups = groups.map(|(_, group)| group);
        let tirs = self.tirs.iter_mut().filter_map(Option::take);
        let groups = end_all(Iterator::chain(groups, tirs));
        let tables = core::mem::take(&mut self.tables).into_iter();
        let tables = tables.map(|(_, table)| table);
        let tables = Iterator::chain(tables, self.rqt.take());
        let tables = end_all(Iterator::chain(tables, self.rest.take()));
        entries.and(groups).and(tables)
    }

    fn settle(&mut self, pending: Pending, replies: &mut Replies) -> Result<(), Failure> {
        match pending {
            Pending::Table(level, ticket) => {
                let table = replies.object(ticket)?;
                let pushed = self.tables.push((level, table), GFP_KERNEL);
                pushed.map_err(no_memory::<CreateFlowTable>)
            }
            Pending::Group(criteria, ticket) => {
                let group = replies.object(ticket)?;
                let pushed = self.groups.push((criteria, group), GFP_KERNEL);
                pushed.map_err(no_memory::<CreateFlowGroup>)
            }
            Pending::Root(ticket) => replies.take(ticket).map(drop),
            Pending::Rule(rule, index, ticket) => {
                let installed = replies
                    .object(ticket)
                    .and_then(|entry| self.install(rule, index, entry));
                installed.inspect_err(|_| self.places.give(&rule, index))
            }
            Pending::Rqt(ticket) => {
                self.rqt = Some(replies.object(ticket)?);
                Ok(())
            }
            Pending::Queues(ticket) => replies
                .take(ticket)
                .map(drop)
                // It is filled anew next time.
                .inspect_err(|_| self.filled.clear()),
            Pending::Rest(ticket) => {
                self.rest = Some(replies.object(ticket)?);
                Ok(())
            }
            Pending::Tir(at, ticket) => {
                let tir = replies.object(ticket)?;
                if let Some(place) = self.tirs.get_mut(at) {
                    *place = Some(tir);
                }
                Ok(())
            }
            Pending::Kind(at, ticket) => {
                let entry = replies.object(ticket)?;
                if let Some(place) = self.kinds.get_mut(at) {
                    *place = Some(entry);
                }
                Ok(())
            }
        }
    }
}

/// Which rules follow from what a driver wants, in order.
fn rules_of(wanted: &Wanted<'_>) -> Result<KVVec<Rule>, Failure> {
    // It is large.
    let mut filter =
        KBox::new(wanted.filter.clone(), GFP_KERNEL).map_err(no_memory::<SetFlowTableEntry>)?;
    filter.set_vlan_filter(wanted.features.contains(features::CTRL_VLAN));
    if !wanted.features.contains(features::CTRL_RX) {
        filter.set_ordinary();
    }
    let mut list = KVVec::new();
    rules::wanted(&filter, wanted.mac, |rule| {
        list.push(rule, GFP_KERNEL)
            .map_err(no_memory::<SetFlowTableEntry>)
    })?;
    list.sort_unstable();
    Ok(list)
}

/// The entries of a table of queues.
fn entries_of<C: Command>(queues: &[u32]) -> Result<KVec<u8>, Failure> {
    let mut tail = KVec::new();
    for queue in queues {
        tail.extend_from_slice(&steer::queue(*queue), GFP_KERNEL)
            .map_err(no_memory::<C>)?;
    }
    Ok(tail)
}

/// Puts an entry of a flow table into a batch.
fn establish(
    batch: &mut Batch,
    spot: Spot,
    what: Match,
    to: Destination,
) -> Result<Ticket<SetFlowTableEntry>, Failure> {
    let list = to.list();
    batch.establish::<SetFlowTableEntry, DeleteFlowTableEntry>(
        |input| steer::entry(input, spot, what, to),
        list.as_ref().map_or(&[], IntoBytes::as_bytes),
        |end| steer::end_entry(end, spot),
    )
}
