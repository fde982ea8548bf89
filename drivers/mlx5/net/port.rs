// SPDX-License-Identifier: GPL-2.0

//! The port of the function on its switch: its address, its MTU and its link.
//!
//! What is behind the port, the switch is told by the list of single stations of the port. A
//! function that its administrator does not trust may not change it: frames for an address of the
//! guest's own are not sent to it then, unless the switch learns.

use kernel::{
    prelude::*,
    time::{
        ClockSource,
        RealTime, //
    }, //
};
use prm::vport::{
    ModifyNicVportContext,
    QueryNicVportContext,
    QueryVportState, //
};
use virtio::net::{
    config::{
        self,
        ConfigSpace,
        LINK_UP, //
    },
    is_station_address,
    MacAddress, //
};
use zerocopy::IntoBytes;

use super::{
    offer::Offer,
    wire::port, //
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

/// The address that the switch knows to be behind the port.
pub(crate) struct Station {
    /// What it was when the device was added.
    own: MacAddress,
    /// What the switch was told last, or was found not to listen to.
    told: MacAddress,
}

impl Station {
    /// The switch knows the function by `own`.
    pub(crate) fn new(own: MacAddress) -> Self {
        Self { own, told: own }
    }

    /// Tells the switch that frames for the address `mac` are for the function. To be called when
    /// they are received: what is sent here before that is lost.
    ///
    /// The device works without where the switch learns, or floods what it does not know, so a
    /// failure is a message only.
    pub(crate) fn tell(&mut self, era: &Era, mac: MacAddress) {
        if self.told == mac {
            return;
        }
        let result = set_station(era, mac);
        if let Err(failure) = &result {
            pr_warn!("the switch is not told of an address: {}\n", Show(failure));
        }
        // Who may not tell it may not the next time either.
        let is_final = match result {
            Ok(()) => true,
            Err(failure) => matches!(failure.reason, Reason::Refused { .. }),
        };
        if is_final {
            self.told = mac;
        }
    }

    /// Tells the switch what it knew before there was a device.
    pub(crate) fn end(mut self, era: &Era) {
        self.tell(era, self.own);
    }
}

fn set_station(era: &Era, mac: MacAddress) -> Result<(), Failure> {
    let list = [port::address(mac)];
    let mut batch = era.batch();
    let ticket = batch.push_with::<ModifyNicVportContext>(
        |input| port::set_stations(input, 1),
        list.as_bytes(),
        0,
    )?;
    batch.run()?.take(ticket).map(drop)
}

/// Puts an MTU in bytes into a batch, that of an Ethernet frame's payload.
///
/// # Errors
///
/// A [`Failure`] without memory.
pub(crate) fn set_mtu(
    batch: &mut Batch,
    mtu: u16,
) -> Result<Ticket<ModifyNicVportContext>, Failure> {
    batch.push::<ModifyNicVportContext>(|input| port::set_mtu(input, mtu))
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
