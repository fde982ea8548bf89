// SPDX-License-Identifier: GPL-2.0

//! Pages of doorbells (user access regions) in the BAR, and who hears what is written there.

use prm::{
    command::{
        InputHeader,
        OutputHeader, //
    },
    uar::{
        AllocUar,
        AllocUarOut,
        CqDoorbell,
        DeallocUar,
        DeallocUarIn,
        EqDoorbell,
        CQ_ARM,
        EQ_ARM,
        EQ_UPDATE, //
    },
    Layout, //
};

use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    object::Table,
    platform::Platform,
    refusal::Refusal, //
};

/// The index of the first page: it lies behind what has a place of its own in the BAR.
pub const FIRST: u32 = 0x10;

/// How many pages there are: up to the table of interrupt vectors.
pub const COUNT: u32 = 0x102 - FIRST;

/// The size of a page in bytes.
pub const PAGE_SIZE: u64 = 0x1000;

/// A page of doorbells.
#[derive(Debug)]
pub struct Uar;

/// A function's table of pages of doorbells, empty.
pub fn uars() -> Table<Uar> {
    Table::new("UAR", FIRST, COUNT)
}

/// The driver wrote `data` at `offset` of page `uar`.
///
/// A queue hears only the page it was made with. What nobody hears is lost, as on hardware; so is
/// the doorbell of a completion queue if it is not written in one piece, as 64-bit drivers do. Takes
/// no lock but those of the queues, and never waits for more than one entry to be written.
pub fn doorbell(platform: &Platform, uar: u32, offset: u64, data: &[u8]) {
    match offset {
        EQ_ARM | EQ_UPDATE => {
            if let Some((doorbell, _)) = EqDoorbell::split(data) {
                platform.events.doorbell(uar, doorbell, offset == EQ_ARM);
            }
        }
        CQ_ARM => {
            if let Some((doorbell, _)) = CqDoorbell::split(data) {
                platform.cqs.doorbell(platform, uar, doorbell);
            }
        }
        _ => {}
    }
}

impl Execute for AllocUar {
    fn execute(hca: &mut Hca, _: &InputHeader, _: &[u8]) -> Result<Reply<AllocUarOut>, Refusal> {
        let uar = hca.uars.add(Uar)?;
        let mut output = AllocUarOut::new();
        output.set_uar(uar);
        Ok(output.into())
    }
}

impl Execute for DeallocUar {
    fn execute(
        hca: &mut Hca,
        input: &DeallocUarIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.uars.remove(input.uar())?;
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[handler::<AllocUar>(), handler::<DeallocUar>()];
