// SPDX-License-Identifier: GPL-2.0

//! The port of the function on its switch: its address, its MTU and its link.
//!
//! What is to be sent to the port, the switch is told by what the port is asked for: lists of single
//! stations and of groups, broadcast among them, and modes in which everything comes, or everything
//! to groups. A switch that goes by those (the legacy mode of an eswitch) sends nothing else; and
//! where the administrator does not trust the function, it lets it have no modes, and maybe no
//! address but its own.

use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        ClockSource,
        RealTime, //
    }, //
};
use prm::vport::{
    AllowedListType,
    ModifyNicVportContext,
    QueryNicVportContext,
    QueryVportState, //
};
use vdpa::RateLimit;
use virtio::{
    features::Features,
    net::{
        config::{
            self,
            ConfigSpace,
            LINK_UP, //
        },
        features,
        filter::Filter,
        is_station_address,
        MacAddress, //
    }, //
};
use zerocopy::IntoBytes;

use super::{
    offer::Offer,
    wire::port::{
        self,
        Modes, //
    }, //
};
use crate::{
    hca::{
        Batch,
        Era,
        Failure,
        Reason,
        Replies,
        Ticket, //
    },
    show::Show, //
};

pub(crate) use super::wire::port::Port;

/// What the port is like was asked for.
pub(crate) struct Asked {
    context: Ticket<QueryNicVportContext>,
    state: Ticket<QueryVportState>,
}

/// Puts into a batch the questions what the port is like.
///
/// # Errors
///
/// A [`Failure`] without memory.
pub(crate) fn ask(batch: &mut Batch) -> Result<Asked, Failure> {
    Ok(Asked {
        context: batch.push::<QueryNicVportContext>(|_| {})?,
        state: batch.push::<QueryVportState>(|_| {})?,
    })
}

impl Asked {
    /// Takes the answers.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub(crate) fn answer(self, replies: &mut Replies) -> Result<Port, Failure> {
        let context = replies.take(self.context)?;
        let state = replies.take(self.state)?;
        Ok(port::read(
            context.read::<QueryNicVportContext>()?.0,
            state.read::<QueryVportState>()?.0,
        ))
    }
}

/// Puts into a batch the question whether the link is up.
///
/// # Errors
///
/// A [`Failure`] without memory.
pub(crate) fn ask_link(batch: &mut Batch) -> Result<Ticket<QueryVportState>, Failure> {
    batch.push::<QueryVportState>(|_| {})
}

/// Takes the answer to [`ask_link`].
///
/// # Errors
///
/// The [`Failure`] of the command.
pub(crate) fn is_up(
    ticket: Ticket<QueryVportState>,
    replies: &mut Replies,
) -> Result<bool, Failure> {
    let state = replies.take(ticket)?;
    Ok(port::is_up(state.read::<QueryVportState>()?.0))
}

/// What the switch was told to send to the port.
///
/// It may need none of it: one that learns, or floods what it does not know, sends the rest as well.
/// So a failure is a message only.
pub(crate) struct Station {
    modes: Part<Modes>,
    single: Part<KVec<MacAddress>>,
    groups: Part<KVec<MacAddress>>,
    warnings: RateLimit,
}

/// A part of what the switch is told.
struct Part<T> {
    /// What it was told last, if that is known.
    told: Option<T>,
    /// Whether it does not listen.
    is_deaf: bool,
}

impl<T> Part<T> {
    /// It was told nothing yet.
    const NONE: Self = Self {
        told: None,
        is_deaf: false,
    };
}

impl Station {
    /// The switch was told nothing.
    pub(crate) fn new() -> Self {
        Self {
            modes: Part::NONE,
            single: Part::NONE,
            groups: Part::NONE,
            warnings: RateLimit::new(),
        }
    }

    /// Tells the switch what is to be sent to the function: what `filter` lets through, of a driver
    /// that can set it, to the address `mac` among others. To be called when that is received: what
    /// is sent here before is lost.
    #[inline(never)]
    pub(crate) fn tell(&mut self, era: &Era, mac: MacAddress, features: Features, filter: &Filter) {
        let filter = features.contains(features::CTRL_RX).then_some(filter);
        let is_promiscuous = filter.is_some_and(Filter::is_promiscuous);
        let told = Lists::of(era, filter, mac)
            .and_then(|lists| self.tell_lists(era, lists, is_promiscuous));
        if let Err(failure) = told {
            self.warn(era, &failure);
        }
    }

    /// Tells the switch that nothing is to be sent here any more.
    pub(crate) fn end(&mut self, era: &Era) {
        let lists = [&self.single, &self.groups];
        let was_told = self.modes.told.is_some() || lists.iter().any(|list| list.told.is_some());
        if !was_told || era.is_over() {
            return;
        }
        let nothing = Lists {
            modes: Modes {
                all: false,
                groups: false,
            },
            single: KVec::new(),
            groups: KVec::new(),
        };
        // Who does not listen has nothing to be taken back.
        if self.modes.is_deaf {
            self.modes.told = Some(nothing.modes);
        }
        for list in [&mut self.single, &mut self.groups] {
            if list.is_deaf {
                list.told = Some(KVec::new());
            }
        }
        if let Err(failure) = self.tell_lists(era, nothing, false) {
            self.warn(era, &failure);
        }
    }

    /// Addresses that are not wanted stay in the lists while everything `is_promiscuous`: a guest that
    /// starts again mostly wants the same ones a moment later.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    fn tell_lists(&mut self, era: &Era, lists: Lists, is_promiscuous: bool) -> Result<(), Failure> {
        let Lists {
            modes,
            single,
            groups,
        } = lists;
        let is_done = |told: &Option<KVec<MacAddress>>, wanted: &KVec<MacAddress>| {
            let is_enough = |told: &KVec<MacAddress>| {
                let has_all = wanted.iter().all(|address| told.contains(address));
                has_all && (is_promiscuous || told.len() == wanted.len())
            };
            told.as_ref().is_some_and(is_enough)
        };
        let mut batch = era.batch();
        let about_modes = (self.modes.told != Some(modes))
            .then(|| batch.push::<ModifyNicVportContext>(|input| port::set_modes(input, modes)))
            .transpose()?;
        let about_single = (!is_done(&self.single.told, &single))
            .then(|| put_list(&mut batch, AllowedListType::UC, &single))
            .transpose()?;
        let about_groups = (!is_done(&self.groups.told, &groups))
            .then(|| put_list(&mut batch, AllowedListType::MC, &groups))
            .transpose()?;
        if about_modes.is_none() && about_single.is_none() && about_groups.is_none() {
            return Ok(());
        }
        let mut replies = batch.run()?;
        let mut failed = Ok(());
        if let Some(ticket) = about_modes {
            failed = failed.and(self.modes.settle(modes, ticket, &mut replies));
        }
        if let Some(ticket) = about_single {
            failed = failed.and(self.single.settle(single, ticket, &mut replies));
        }
        if let Some(ticket) = about_groups {
            failed = failed.and(self.groups.settle(groups, ticket, &mut replies));
        }
        failed
    }

    fn warn(&self, era: &Era, failure: &Failure) {
        let device: &hardware::Device = era.device();
        if self.warnings.allow() {
            dev_warn!(
                device,
                "the switch is not told what to send here: {}\n",
                Show(failure)
            );
        }
    }
}

impl<T> Part<T> {
    /// Notes what came of telling `wanted`.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command, if it is news.
    fn settle(
        &mut self,
        wanted: T,
        ticket: Ticket<ModifyNicVportContext>,
        replies: &mut Replies,
    ) -> Result<(), Failure> {
        let was_deaf = self.is_deaf;
        let result = replies.take(ticket).map(drop);
        self.is_deaf = result
            .as_ref()
            .is_err_and(|failure| matches!(failure.reason, Reason::Refused { .. }));
        // Who may not tell it may not the next time either.
        self.told = (result.is_ok() || self.is_deaf).then_some(wanted);
        match was_deaf && self.is_deaf {
            true => Ok(()),
            false => result,
        }
    }
}

/// What is to come to the port.
struct Lists {
    modes: Modes,
    single: KVec<MacAddress>,
    groups: KVec<MacAddress>,
}

impl Lists {
    /// As [`port::wanted`]. Where there are more addresses than a list has room for, all come.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    fn of(era: &Era, filter: Option<&Filter>, mac: MacAddress) -> Result<Self, Failure> {
        let general = &era.capabilities().general;
        // Of 5 bits each.
        let room = |log: u8| 1usize << log.min(31);
        let (mut single, mut groups) = (KVec::new(), KVec::new());
        let (mut all, mut all_groups) = (false, false);
        let modes = port::wanted(filter, mac, |kind, address| {
            let (list, room, is_full) = match kind {
                AllowedListType::UC => (
                    &mut single,
                    room(general.log_max_current_uc_list()),
                    &mut all,
                ),
                _ => (
                    &mut groups,
                    room(general.log_max_current_mc_list()),
                    &mut all_groups,
                ),
            };
            let list: &mut KVec<MacAddress> = list;
            if list.contains(&address) {
                return Ok(());
            }
            if list.len() >= room {
                *is_full = true;
                return Ok(());
            }
            list.push(address, GFP_KERNEL)
                .map_err(|error| Failure::not_sent::<ModifyNicVportContext>(error.into()))
        })?;
        Ok(Self {
            modes: Modes {
                all: modes.all || all,
                groups: modes.groups || all_groups,
            },
            single,
            groups,
        })
    }
}

/// Puts a list of the port into a batch.
///
/// # Errors
///
/// A [`Failure`] without memory.
fn put_list(
    batch: &mut Batch,
    kind: AllowedListType,
    addresses: &[MacAddress],
) -> Result<Ticket<ModifyNicVportContext>, Failure> {
    let mut tail: KVec<u8> = KVec::new();
    for address in addresses {
        tail.extend_from_slice(port::address(*address).as_bytes(), GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<ModifyNicVportContext>(error.into()))?;
    }
    // No more than a filter has.
    let count = addresses.len() as u16;
    batch.push_with::<ModifyNicVportContext>(|input| port::set_list(input, kind, count), &tail, 0)
}

/// A larger MTU than the port had, which it has again when this value is dropped.
pub(crate) struct Mtu {
    era: Arc<Era>,
    before: u16,
}

impl Mtu {
    /// Gives the port an MTU in bytes, that of an Ethernet frame's payload, where it had `before`.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(crate) fn raise(era: &Arc<Era>, mtu: u16, before: u16) -> Result<Self, Failure> {
        set_mtu(era, mtu)?;
        Ok(Self {
            era: era.clone(),
            before,
        })
    }
}

impl Drop for Mtu {
    fn drop(&mut self) {
        if self.era.is_over() {
            return;
        }
        if let Err(failure) = set_mtu(&self.era, self.before) {
            let device: &hardware::Device = self.era.device();
            dev_warn!(device, "the port keeps its MTU: {}\n", Show(failure));
        }
    }
}

fn set_mtu(era: &Era, mtu: u16) -> Result<(), Failure> {
    let mut batch = era.batch();
    let ticket = batch.push::<ModifyNicVportContext>(|input| port::set_mtu(input, mtu))?;
    batch.run()?.take(ticket).map(drop)
}

/// The configuration space of a new device. An address that neither the administrator of the device
/// chose nor that of the board is made up, and a VMM may replace it.
pub(crate) fn config(offer: &Offer, port: &Port) -> ConfigSpace {
    let given = offer.mac.or(Some(port.mac).filter(is_station_address));
    let mut space = ConfigSpace::new(config::Attributes {
        // The time in nanoseconds, as bits.
        mac: given.unwrap_or_else(|| config::local_mac(RealTime::ktime_get() as u64)),
        mac_provisioned: given.is_some(),
        mtu: offer.mtu.unwrap_or(port.mtu),
        max_virtqueue_pairs: offer.pairs,
        rss: offer.rss(),
    });
    if !port.up {
        space.set_status(0, LINK_UP);
    }
    space
}
