// SPDX-License-Identifier: GPL-2.0

//! Objects of the firmware: numbered, and in use or not.

use std::{
    collections::{
        BTreeMap,
        VecDeque, //
    },
    fmt,
    ops::Deref,
    sync::Arc, //
};

use parking_lot::{
    RwLock,
    RwLockReadGuard,
    RwLockWriteGuard, //
};

use crate::refusal::Refusal;

/// How many other numbers are given out before one is given out again.
const QUARANTINE: usize = 64;

/// No number of an object has more bits.
const NUMBER_BITS: u32 = 24;

/// How many objects a capability allows that is their logarithm.
pub fn count(log_max: u8) -> u32 {
    1 << u32::from(log_max).min(NUMBER_BITS)
}

/// An object that another one uses: as long as a `Handle` lives, the object is not destroyed.
pub struct Handle<T> {
    object: Arc<T>,
    id: u32,
    /// Counts the users; the table has one of its own.
    _users: Arc<()>,
}

impl<T> Handle<T> {
    /// The number of the object.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The object, without being counted as a user.
    pub fn share(&self) -> Arc<T> {
        self.object.clone()
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:#x}", self.id)
    }
}

struct Entry<T> {
    object: Arc<T>,
    users: Arc<()>,
}

/// The objects of one type in one function.
pub struct Table<T> {
    /// What an object is called in messages.
    name: &'static str,
    first: u32,
    next: u32,
    /// One more than the largest number.
    end: u32,
    entries: BTreeMap<u32, Entry<T>>,
    /// Numbers that were given back, oldest first.
    freed: VecDeque<u32>,
}

impl<T> Table<T> {
    /// Makes a table that gives out the numbers `first` to `first + count - 1`, as far as they
    /// have 24 bits.
    pub fn new(name: &'static str, first: u32, count: u32) -> Self {
        Self {
            name,
            first,
            next: first,
            end: first.saturating_add(count).min(1 << NUMBER_BITS),
            entries: BTreeMap::new(),
            freed: VecDeque::new(),
        }
    }

    /// What an object is called in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds an object and returns its number: a fresh one, or else the one that was given back
    /// longest ago.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoResources`] if there are no numbers left.
    pub fn add(&mut self, object: T) -> Result<u32, Refusal> {
        self.add_with(|_| object)
    }

    /// Adds an object that knows its own number, which is returned too: see [`Table::add`].
    ///
    /// # Errors
    ///
    /// [`Refusal::NoResources`] if there are no numbers left.
    pub fn add_with(&mut self, make: impl FnOnce(u32) -> T) -> Result<u32, Refusal> {
        let fresh = self.next < self.end;
        let id = if fresh && self.freed.len() < QUARANTINE {
            let id = self.next;
            self.next += 1;
            id
        } else if let Some(id) = self.freed.pop_front() {
            id
        } else {
            return Err(Refusal::NoResources);
        };
        let entry = Entry {
            object: Arc::new(make(id)),
            users: Arc::new(()),
        };
        self.entries.insert(id, entry);
        Ok(id)
    }

    fn entry(&self, id: u32) -> Result<&Entry<T>, Refusal> {
        self.entries
            .get(&id)
            .ok_or(if (self.first..self.next).contains(&id) {
                Refusal::Destroyed(self.name)
            } else {
                Refusal::NeverMade(self.name)
            })
    }

    /// Looks at an object.
    ///
    /// # Errors
    ///
    /// [`Refusal::Destroyed`] if it was destroyed, [`Refusal::NeverMade`] if it never was.
    pub fn get(&self, id: u32) -> Result<&Arc<T>, Refusal> {
        self.entry(id).map(|entry| &entry.object)
    }

    /// Uses an object: it stays until the handle is dropped.
    ///
    /// # Errors
    ///
    /// As [`Table::get`].
    pub fn hold(&self, id: u32) -> Result<Handle<T>, Refusal> {
        let entry = self.entry(id)?;
        Ok(Handle {
            object: entry.object.clone(),
            id,
            _users: entry.users.clone(),
        })
    }

    /// Takes an object away and returns it.
    ///
    /// # Errors
    ///
    /// As [`Table::get`]; [`Refusal::InUse`] if another object uses it.
    pub fn remove(&mut self, id: u32) -> Result<Arc<T>, Refusal> {
        if Arc::strong_count(&self.entry(id)?.users) > 1 {
            return Err(Refusal::InUse(self.name));
        }
        self.freed.push_back(id);
        match self.entries.remove(&id) {
            Some(entry) => Ok(entry.object),
            None => Err(Refusal::NeverMade(self.name)),
        }
    }

    /// Takes every object away, used or not, and begins to count anew.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.freed.clear();
        self.next = self.first;
    }

    /// The objects there are, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.entries.iter().map(|(id, entry)| (*id, &entry.object))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A table that traffic and doorbells look into too, without the lock that commands are under.
pub struct Shared<T>(RwLock<Table<T>>);

impl<T> From<Table<T>> for Shared<T> {
    fn from(table: Table<T>) -> Self {
        Self(RwLock::new(table))
    }
}

impl<T> Shared<T> {
    /// The table, which does not change meanwhile.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Table<T>> {
        self.0.read()
    }

    /// The table, which nobody else looks into meanwhile.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Table<T>> {
        self.0.write()
    }

    /// Uses an object: it stays until the handle is dropped.
    ///
    /// # Errors
    ///
    /// As [`Table::get`].
    pub fn hold(&self, id: u32) -> Result<Handle<T>, Refusal> {
        self.read().hold(id)
    }

    /// Takes every object away, used or not, each after `end` was called with it.
    pub(crate) fn clear_with(&self, end: impl Fn(&T)) {
        let mut table = self.write();
        table.iter().for_each(|(_, object)| end(object));
        table.clear();
    }
}

/// What has objects.
pub trait Census {
    /// Adds how many objects there are of each type, with what they are called.
    fn count(&self, add: &mut dyn FnMut(&'static str, usize));
}

impl<T> Census for Table<T> {
    fn count(&self, add: &mut dyn FnMut(&'static str, usize)) {
        add(self.name, self.len());
    }
}

impl<T> Census for Shared<T> {
    fn count(&self, add: &mut dyn FnMut(&'static str, usize)) {
        self.read().count(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_in_use_stays() {
        let mut table = Table::new("thing", 1, 8);
        let id = table.add("a").unwrap();
        let user = table.hold(id).unwrap();
        assert_eq!(table.remove(id), Err(Refusal::InUse("thing")));
        drop(user);
        assert_eq!(*table.remove(id).unwrap(), "a");
        assert_eq!(table.remove(id), Err(Refusal::Destroyed("thing")));
        assert_eq!(table.get(7), Err(Refusal::NeverMade("thing")));
    }

    #[test]
    fn numbers_come_back_late_and_run_out() {
        let mut table = Table::new("thing", 5, 3);
        let ids: Vec<_> = (0..3).map(|n| table.add(n).unwrap()).collect();
        assert_eq!(ids, [5, 6, 7]);
        assert_eq!(table.add(9), Err(Refusal::NoResources));
        table.remove(6).unwrap();
        table.remove(5).unwrap();
        assert_eq!(table.add(9), Ok(6));
        assert_eq!(table.add(9), Ok(5));
    }
}
