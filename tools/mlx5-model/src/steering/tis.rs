// SPDX-License-Identifier: GPL-2.0

//! Transmit interfaces: what a virtqueue sends through.

use std::sync::RwLock;

use prm::{
    command::OutputHeader,
    tis::{
        CreateTis,
        CreateTisIn,
        CreateTisOut,
        DestroyTis,
        DestroyTisIn,
        ModifyTis,
        ModifyTisIn,
        QueryTis,
        QueryTisIn,
        QueryTisOut,
        TisContext, //
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
    object::Handle,
    pd::TransportDomain,
    refusal::Refusal,
    steering::{
        change,
        look, //
    }, //
};

/// A transmit interface.
pub struct Tis {
    context: RwLock<TisContext>,
    _transport_domain: Handle<TransportDomain>,
}

impl Execute for CreateTis {
    fn execute(
        hca: &mut Hca,
        input: &CreateTisIn,
        _tail: &[u8],
    ) -> Result<Reply<CreateTisOut>, Refusal> {
        let context = input.ctx();
        if context.tls_en() {
            return Err(Refusal::Encryption);
        }
        let transport_domain = hca.transport_domains.hold(context.transport_domain())?;
        let tisn = hca.steering.tises.add(Tis {
            context: RwLock::new(context.clone()),
            _transport_domain: transport_domain,
        })?;
        let mut output = CreateTisOut::new();
        output.set_tisn(tisn);
        Ok(output.into())
    }
}

impl Execute for ModifyTis {
    fn execute(
        hca: &mut Hca,
        input: &ModifyTisIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        let tis = hca.steering.tises.get(input.tisn())?;
        let bitmask = input.bitmask();
        // There is no bond of ports whose member could be chosen.
        if bitmask.lag_tx_port_affinity() || bitmask.strict_lag_tx_port_affinity() {
            return Err(Refusal::Unchangeable);
        }
        if bitmask.prio() {
            change(&tis.context).set_prio(input.ctx().prio());
        }
        Ok(Reply::done())
    }
}

impl Execute for DestroyTis {
    fn execute(
        hca: &mut Hca,
        input: &DestroyTisIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.steering.tises.remove(input.tisn())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryTis {
    fn execute(
        hca: &mut Hca,
        input: &QueryTisIn,
        _tail: &[u8],
    ) -> Result<Reply<QueryTisOut>, Refusal> {
        let tis = hca.steering.tises.get(input.tisn())?;
        let mut output = QueryTisOut::new();
        *output.tis_context_mut() = look(&tis.context).clone();
        Ok(output.into())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateTis>(),
    handler::<ModifyTis>(),
    handler::<DestroyTis>(),
    handler::<QueryTis>(),
];
