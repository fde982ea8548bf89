// SPDX-License-Identifier: GPL-2.0

//! Memory that the driver registers for the firmware to keep an object's state in (umem).
//!
//! Virtqueues of the model keep their state elsewhere: they hold their umems, so that a driver that
//! takes them back too early is told. The receive queue of a queue pair can lie in one.

use prm::{
    cap::CmdHcaCap,
    command::OutputHeader,
    umem::{
        CreateUmem,
        CreateUmemIn,
        CreateUmemOut,
        DestroyUmem,
        DestroyUmemIn, //
    },
    Layout, //
};

use crate::{
    buffer::{
        addresses,
        Buffer,
        PAGE_SHIFT, //
    },
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    object::{
        self,
        Table, //
    },
    refusal::Refusal, //
};

/// Registered memory.
#[derive(Debug)]
pub struct Umem {
    buffer: Buffer,
    size: u64,
}

impl Umem {
    /// Its memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// The registered memory of a function.
pub type Umems = Table<Umem>;

/// A function's table of umems, empty.
pub fn umems(general: &CmdHcaCap) -> Umems {
    Table::new("umem", 1, object::count(general.log_max_umem()))
}

impl Execute for CreateUmem {
    fn execute(
        hca: &mut Hca,
        input: &CreateUmemIn,
        tail: &[u8],
    ) -> Result<Reply<CreateUmemOut>, Refusal> {
        if input.uid() == 0 && !hca.platform.profile.general.umem_uid_0() {
            return Err(Refusal::UctxNeeded);
        }
        let umem = input.umem();
        let start = u64::from(umem.page_offset());
        let size = umem
            .num_of_mtt()
            .checked_mul(1 << (PAGE_SHIFT + u32::from(umem.log_page_size())))
            .and_then(|pages| pages.checked_sub(start))
            .ok_or(Refusal::BadBounds)?;
        // The last bits of a page's address say what is allowed.
        let list: Vec<u8> = addresses(tail)
            .flat_map(|page| (page & !0xff).to_be_bytes())
            .collect();
        let id = hca.umems.add(Umem {
            buffer: Buffer::new(&list, umem.log_page_size(), start, size)?,
            size,
        })?;
        let mut output = CreateUmemOut::new();
        output.set_umem_id(id);
        Ok(output.into())
    }
}

impl Execute for DestroyUmem {
    fn execute(
        hca: &mut Hca,
        input: &DestroyUmemIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.umems.remove(input.umem_id())?;
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[handler::<CreateUmem>(), handler::<DestroyUmem>()];
