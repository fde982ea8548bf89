// SPDX-License-Identifier: GPL-2.0

//! Protection domains and transport domains.

use prm::{
    cap::CmdHcaCap,
    command::{
        InputHeader,
        OutputHeader, //
    },
    pd::{
        AllocPd,
        AllocPdOut,
        AllocTransportDomain,
        AllocTransportDomainOut,
        DeallocPd,
        DeallocPdIn,
        DeallocTransportDomain,
        DeallocTransportDomainIn, //
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
    object::{
        self,
        Table, //
    },
    refusal::Refusal, //
};

/// A protection domain: what memory keys and queues must share to be used together.
#[derive(Debug)]
pub struct Pd;

/// A transport domain: what receive and transmit interfaces belong to.
#[derive(Debug)]
pub struct TransportDomain;

/// A function's table of protection domains, empty.
pub fn pds(general: &CmdHcaCap) -> Table<Pd> {
    Table::new("protection domain", 1, object::count(general.log_max_pd()))
}

/// A function's table of transport domains, empty.
pub fn transport_domains(general: &CmdHcaCap) -> Table<TransportDomain> {
    let count = object::count(general.log_max_transport_domain());
    Table::new("transport domain", 1, count)
}

impl Execute for AllocPd {
    fn execute(hca: &mut Hca, _: &InputHeader, _: &[u8]) -> Result<Reply<AllocPdOut>, Refusal> {
        let pd = hca.pds.add(Pd)?;
        let mut output = AllocPdOut::new();
        output.set_pd(pd);
        Ok(output.into())
    }
}

impl Execute for DeallocPd {
    fn execute(
        hca: &mut Hca,
        input: &DeallocPdIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.pds.remove(input.pd())?;
        Ok(Reply::done())
    }
}

impl Execute for AllocTransportDomain {
    fn execute(
        hca: &mut Hca,
        _: &InputHeader,
        _: &[u8],
    ) -> Result<Reply<AllocTransportDomainOut>, Refusal> {
        let id = hca.transport_domains.add(TransportDomain)?;
        let mut output = AllocTransportDomainOut::new();
        output.set_transport_domain(id);
        Ok(output.into())
    }
}

impl Execute for DeallocTransportDomain {
    fn execute(
        hca: &mut Hca,
        input: &DeallocTransportDomainIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.transport_domains.remove(input.transport_domain())?;
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<AllocPd>(),
    handler::<DeallocPd>(),
    handler::<AllocTransportDomain>(),
    handler::<DeallocTransportDomain>(),
];
