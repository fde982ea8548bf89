// SPDX-License-Identifier: GPL-2.0

//! Interrupts on their way out, where faults may lose them.

use std::sync::{
    atomic::Ordering,
    Arc, //
};

use super::{
    Fault,
    Faults, //
};
use crate::{
    platform::Interrupts,
    trace::Journal, //
};

/// Interrupt vectors behind the faults of their function.
pub struct Guarded {
    vectors: Arc<dyn Interrupts>,
    faults: Arc<Faults>,
    journal: Arc<Journal>,
}

impl Guarded {
    /// Puts the faults of a function before its vectors.
    pub fn new(vectors: Arc<dyn Interrupts>, faults: Arc<Faults>, journal: Arc<Journal>) -> Self {
        Self {
            vectors,
            faults,
            journal,
        }
    }
}

impl Interrupts for Guarded {
    fn count(&self) -> u16 {
        self.vectors.count()
    }

    fn raise(&self, vector: u16) {
        if self.faults.lets_through(vector) {
            self.journal.stats.interrupts.add(1);
            self.vectors.raise(vector);
        }
    }
}

impl Faults {
    /// Returns whether an interrupt is raised, and counts it if it is lost.
    fn lets_through(&self, vector: u16) -> bool {
        if !self.interrupts.load(Ordering::Relaxed) {
            return true;
        }
        if self.is_gone() {
            return false;
        }
        for entry in self.active().faults.values_mut() {
            let Fault::LoseInterrupts {
                vector: which,
                count,
            } = &entry.fault
            else {
                continue;
            };
            if which.is_none_or(|which| which == vector)
                && count.is_none_or(|count| entry.hits < count)
            {
                entry.hits = entry.hits.saturating_add(1);
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Mutex;

    #[derive(Default)]
    struct Raised(Mutex<Vec<u16>>);

    impl Interrupts for Raised {
        fn count(&self) -> u16 {
            8
        }

        fn raise(&self, vector: u16) {
            self.0.lock().unwrap().push(vector);
        }
    }

    #[test]
    fn interrupts_are_lost_as_often_as_asked_for() {
        let raised = Arc::new(Raised::default());
        let faults = Arc::new(Faults::default());
        let journal = Arc::new(Journal::default());
        let guarded = Guarded::new(raised.clone(), faults.clone(), journal.clone());
        let id = faults
            .add(Fault::LoseInterrupts {
                vector: Some(2),
                count: Some(1),
            })
            .unwrap();
        for vector in [1, 2, 2] {
            guarded.raise(vector);
        }
        assert_eq!(*raised.0.lock().unwrap(), [1, 2]);
        assert_eq!(faults.list()[0].hits, 1);
        assert_eq!(journal.stats.interrupts.get(), 2);

        faults.remove(id).unwrap();
        let gone = faults.add(Fault::Gone {}).unwrap();
        guarded.raise(3);
        faults.remove(gone).unwrap();
        guarded.raise(4);
        assert_eq!(*raised.0.lock().unwrap(), [1, 2, 4]);
    }
}
