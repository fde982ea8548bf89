// SPDX-License-Identifier: GPL-2.0

//! Memory keys: what part of the driver's memory an object may use, at which addresses.
//!
//! ```text
//!   virtqueue ── Space(key, pd) ── addr ──> Key: bounds, rights, domain
//!                                            │ PA    addr is a bus address
//!                                            │ MTT   a list of pages ──> bus address
//!                                            └ KLM   a list of pieces of other keys ──> Key ...
//! ```
//!
//! A key is named by its number at every use, by queues and by lists of pieces alike, and nobody
//! is asked when it is destroyed: what used it faults from then on.

mod key;
mod space;

pub use self::{
    key::Key,
    space::Space, //
};

use std::sync::{
    atomic::{
        AtomicU64,
        Ordering, //
    },
    Arc,
    Mutex,
    RwLock,
    Weak, //
};

use prm::{
    command::{
        InputHeader,
        OutputHeader, //
    },
    mkey::{
        CreateMkey,
        CreateMkeyIn,
        CreateMkeyOut,
        DestroyMkey,
        DestroyMkeyIn,
        QueryMkey,
        QueryMkeyIn,
        QueryMkeyOut,
        QuerySpecialContexts,
        QuerySpecialContextsOut, //
    },
    Layout, //
};

use self::{
    key::Run,
    space::Gate, //
};
use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    memory::DmaSpace,
    object::{
        self,
        Handle,
        Table, //
    },
    pd::Pd,
    refusal::Refusal, //
};

/// The key that stands for holes in lists of pieces: whoever goes there faults.
pub const NULL_KEY: u32 = 0x100;

/// The index of the first key that is given out.
const FIRST: u32 = 2;

/// How many keys an address may lead through before it must have led to memory.
const DEPTH: usize = 4;

/// The memory keys of a function.
pub struct Mkeys {
    memory: Arc<DmaSpace>,
    keys: RwLock<Table<Key>>,
    /// Counts the keys that are gone: what was looked up before may not be so any more.
    gone: AtomicU64,
    /// Who is using keys.
    gates: Mutex<Vec<Weak<Gate>>>,
}

impl Mkeys {
    /// Makes a function's memory keys, none yet, for `memory`; `log_max` is the logarithm of how
    /// many there can be.
    pub fn new(memory: Arc<DmaSpace>, log_max: u8) -> Self {
        Self {
            memory,
            keys: RwLock::new(Table::new("memory key", FIRST, object::count(log_max))),
            gone: AtomicU64::new(0),
            gates: Mutex::default(),
        }
    }

    /// Opens a key for an object of protection domain `pd` that reads and writes through it, as an
    /// address space.
    ///
    /// The key is looked up by its number at each use: one that was never made or is destroyed
    /// faults, and so does what it refers to.
    pub fn open(self: &Arc<Self>, key: u32, pd: u32) -> Space {
        let gate = Arc::default();
        let mut gates = self.gates.lock().unwrap();
        gates.retain(|gate| gate.strong_count() > 0);
        gates.push(Arc::downgrade(&gate));
        Space::new(self.clone(), key, pd, gate)
    }

    /// Makes a key of protection domain `pd` and returns its index: the upper 24 bits of its
    /// number.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that the driver is told.
    pub fn create(
        &self,
        input: &CreateMkeyIn,
        list: &[u8],
        pd: Handle<Pd>,
    ) -> Result<u32, Refusal> {
        let key = Key::new(input, list, pd)?;
        self.keys.write().unwrap().add(key)
    }

    /// Takes a key away. Nothing is read or written through it when this returns.
    ///
    /// # Errors
    ///
    /// As [`Table::remove`].
    pub fn destroy(&self, index: u32) -> Result<(), Refusal> {
        self.keys.write().unwrap().remove(index)?;
        self.forget();
        Ok(())
    }

    /// Takes every key away, used or not. Nothing is read or written through one when this
    /// returns.
    pub fn clear(&self) {
        self.keys.write().unwrap().clear();
        self.forget();
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.read().unwrap().len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sees to it that every access from now on looks its key up again, and that those before are
    /// over: an access is one bounded copy.
    fn forget(&self) {
        self.gone.fetch_add(1, Ordering::SeqCst);
        let gates: Vec<_> = self.gates.lock().unwrap().clone();
        for gate in gates.iter().filter_map(Weak::upgrade) {
            gate.pass();
        }
    }

    /// Looks up where `addr` of `key` leads for an object of `pd`: nothing if it leads nowhere.
    fn find(&self, key: u32, pd: u32, addr: u64) -> Option<Run> {
        let keys = self.keys.read().unwrap();
        find(&keys, key, pd, addr, DEPTH)
    }
}

fn find(keys: &Table<Key>, number: u32, pd: u32, addr: u64, depth: usize) -> Option<Run> {
    let key = keys.get(number >> 8).ok()?;
    if !key.is(number, pd) {
        return None;
    }
    key.find(addr, |piece, addr| {
        find(keys, piece, pd, addr, depth.checked_sub(1)?)
    })
}

impl Execute for CreateMkey {
    fn execute(
        hca: &mut Hca,
        input: &CreateMkeyIn,
        tail: &[u8],
    ) -> Result<Reply<CreateMkeyOut>, Refusal> {
        let pd = hca.pds.hold(input.memory_key_mkey_entry().pd())?;
        let index = hca.platform.mkeys.create(input, tail, pd)?;
        let mut output = CreateMkeyOut::new();
        output.set_mkey_index(index);
        Ok(output.into())
    }
}

impl Execute for DestroyMkey {
    fn execute(
        hca: &mut Hca,
        input: &DestroyMkeyIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.platform.mkeys.destroy(input.mkey_index())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryMkey {
    fn execute(
        hca: &mut Hca,
        input: &QueryMkeyIn,
        _: &[u8],
    ) -> Result<Reply<QueryMkeyOut>, Refusal> {
        let keys = hca.platform.mkeys.keys.read().unwrap();
        Ok(keys.get(input.mkey_index())?.query().into())
    }
}

impl Execute for QuerySpecialContexts {
    fn execute(
        _: &mut Hca,
        _: &InputHeader,
        _: &[u8],
    ) -> Result<Reply<QuerySpecialContextsOut>, Refusal> {
        let mut output = QuerySpecialContextsOut::new();
        output.set_null_mkey(NULL_KEY);
        Ok(output.into())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateMkey>(),
    handler::<DestroyMkey>(),
    handler::<QueryMkey>(),
    handler::<QuerySpecialContexts>(),
];

#[cfg(test)]
mod tests;
