// SPDX-License-Identifier: GPL-2.0

//! Receive interfaces: how frames are spread over the queues of a table.

use std::sync::{
    Arc,
    RwLock, //
};

use prm::{
    command::OutputHeader,
    tir::{
        CreateTir,
        CreateTirIn,
        CreateTirOut,
        DestroyTir,
        DestroyTirIn,
        DispType,
        L3ProtType,
        L4ProtType,
        ModifyTir,
        ModifyTirIn,
        QueryTir,
        QueryTirIn,
        QueryTirOut,
        RxHashFn,
        TirContext,
        HASH_DST_IP,
        HASH_L4_DPORT,
        HASH_L4_SPORT,
        HASH_SRC_IP, //
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
        headers::Headers,
        look,
        rqt::Rqt,
        toeplitz::{
            toeplitz,
            INPUT_BYTES,
            KEY_BYTES, //
        },
        ReceiveQueue, //
    }, //
};

/// The fields of a frame that can be hashed.
const HASH_FIELDS: u32 = HASH_SRC_IP | HASH_DST_IP | HASH_L4_SPORT | HASH_L4_DPORT;

/// How the hash of a frame is made.
pub(super) struct Hash {
    key: [u8; KEY_BYTES],
    symmetric: bool,
    l3: L3ProtType,
    l4: L4ProtType,
    /// Bits `HASH_*`.
    fields: u32,
}

impl Hash {
    /// Reads how the hash is made; nothing if there is none.
    ///
    /// # Errors
    ///
    /// [`Refusal::HashFunction`] or [`Refusal::HashFields`] if it is one that is not offered.
    pub(super) fn new(context: &TirContext) -> Result<Option<Self>, Refusal> {
        match context.rx_hash_fn() {
            Ok(RxHashFn::NONE) => return Ok(None),
            Ok(RxHashFn::TOEPLITZ) => (),
            _ => return Err(Refusal::HashFunction),
        }
        let select = context.rx_hash_field_selector_outer();
        let (Ok(l3), Ok(l4)) = (select.l3_prot_type(), select.l4_prot_type()) else {
            return Err(Refusal::HashFields);
        };
        let fields = select.selected_fields();
        let symmetric = context.rx_hash_symmetric();
        let both = |pair: u32| fields & pair == 0 || fields & pair == pair;
        // Of a pair of which one is left out, both directions cannot look the same.
        let paired = both(HASH_SRC_IP | HASH_DST_IP) && both(HASH_L4_SPORT | HASH_L4_DPORT);
        if fields & !HASH_FIELDS != 0 || symmetric && !paired {
            return Err(Refusal::HashFields);
        }
        Ok(Some(Self {
            key: *context.rx_hash_toeplitz_key(),
            symmetric,
            l3,
            l4,
            fields,
        }))
    }

    /// Hashes a frame. One of another network protocol than the chosen one has the hash 0; of one
    /// of another transport protocol, or of a fragment, ports do not count.
    ///
    /// For a symmetric hash, addresses are put in order before, and so are ports.
    pub(super) fn of(&self, headers: &Headers) -> u32 {
        let addresses = match self.l3 {
            L3ProtType::IPV4 => headers.ipv4(),
            L3ProtType::IPV6 => headers.ipv6(),
        };
        let Some(addresses) = addresses else {
            return 0;
        };
        let ports = match self.l4 {
            L4ProtType::TCP => headers.tcp(),
            L4ProtType::UDP => headers.udp(),
        };
        let mut input = [0; INPUT_BYTES];
        let mut len = 0;
        let mut add = |field: u32, bytes: &[u8]| {
            if self.fields & field != 0 {
                input[len..len + bytes.len()].copy_from_slice(bytes);
                len += bytes.len();
            }
        };
        let ordered = |pair: (_, _)| {
            if self.symmetric && pair.0 > pair.1 {
                (pair.1, pair.0)
            } else {
                pair
            }
        };
        let (source, destination) = ordered(addresses);
        add(HASH_SRC_IP, source);
        add(HASH_DST_IP, destination);
        if let Some((source, destination)) = ports.map(ordered) {
            add(HASH_L4_SPORT, source);
            add(HASH_L4_DPORT, destination);
        }
        toeplitz(&self.key, &input[..len])
    }
}

/// What of a receive interface can change.
struct State {
    context: TirContext,
    hash: Option<Hash>,
}

/// A receive interface.
pub struct Tir {
    rqt: Handle<Rqt>,
    state: RwLock<State>,
    _transport_domain: Handle<TransportDomain>,
}

impl Tir {
    /// Makes a receive interface.
    ///
    /// # Errors
    ///
    /// The refusal of what the context asks for and is not offered.
    pub(super) fn new(
        context: TirContext,
        rqt: Handle<Rqt>,
        transport_domain: Handle<TransportDomain>,
    ) -> Result<Self, Refusal> {
        if context.tls_en() {
            return Err(Refusal::Encryption);
        }
        if context.tunneled_offload_en() {
            return Err(Refusal::Tunnels);
        }
        if context.packet_merge_mask() != 0 {
            return Err(Refusal::Merging);
        }
        let hash = Hash::new(&context)?;
        Ok(Self {
            rqt,
            state: RwLock::new(State { context, hash }),
            _transport_domain: transport_domain,
        })
    }

    /// Shows the queue that a frame is for to `then`.
    pub(super) fn with_queue(&self, headers: &Headers, then: impl FnOnce(&Arc<dyn ReceiveQueue>)) {
        let hash = if self.rqt.is_single() {
            0
        } else {
            let state = look(&self.state);
            state.hash.as_ref().map_or(0, |hash| hash.of(headers))
        };
        self.rqt.with_queue(hash, then);
    }
}

impl Execute for CreateTir {
    fn execute(
        hca: &mut Hca,
        input: &CreateTirIn,
        _tail: &[u8],
    ) -> Result<Reply<CreateTirOut>, Refusal> {
        let context = input.ctx();
        // The queues there are are virtqueues, and those are only reached through a table.
        if context.disp_type() != Ok(DispType::INDIRECT) {
            return Err(Refusal::DirectQueue);
        }
        let rqt = hca.steering.rqts.hold(context.indirect_table())?;
        let transport_domain = hca.transport_domains.hold(context.transport_domain())?;
        let tir = Tir::new(context.clone(), rqt, transport_domain)?;
        let mut output = CreateTirOut::new();
        output.set_tirn(hca.steering.tirs.add(tir)?);
        Ok(output.into())
    }
}

impl Execute for ModifyTir {
    fn execute(
        hca: &mut Hca,
        input: &ModifyTirIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        let tir = hca.steering.tirs.get(input.tirn())?;
        let bitmask = input.bitmask();
        let wanted = input.ctx();
        if bitmask.packet_merge() && wanted.packet_merge_mask() != 0 {
            return Err(Refusal::Merging);
        }
        let mut state = change(&tir.state);
        let mut context = state.context.clone();
        if bitmask.hash() {
            let function = wanted.rx_hash_fn().map_err(|_| Refusal::HashFunction)?;
            context
                .set_rx_hash_fn(function)
                .set_rx_hash_symmetric(wanted.rx_hash_symmetric());
            *context.rx_hash_toeplitz_key_mut() = *wanted.rx_hash_toeplitz_key();
            *context.rx_hash_field_selector_outer_mut() =
                wanted.rx_hash_field_selector_outer().clone();
        }
        if bitmask.self_lb_en() {
            context.set_self_lb_block(wanted.self_lb_block());
        }
        state.hash = Hash::new(&context)?;
        state.context = context;
        Ok(Reply::done())
    }
}

impl Execute for DestroyTir {
    fn execute(
        hca: &mut Hca,
        input: &DestroyTirIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.steering.tirs.remove(input.tirn())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryTir {
    fn execute(
        hca: &mut Hca,
        input: &QueryTirIn,
        _tail: &[u8],
    ) -> Result<Reply<QueryTirOut>, Refusal> {
        let tir = hca.steering.tirs.get(input.tirn())?;
        let mut output = QueryTirOut::new();
        *output.tir_context_mut() = look(&tir.state).context.clone();
        Ok(output.into())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateTir>(),
    handler::<ModifyTir>(),
    handler::<DestroyTir>(),
    handler::<QueryTir>(),
];
