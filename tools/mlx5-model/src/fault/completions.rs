// SPDX-License-Identifier: GPL-2.0

//! Completions, and events that tell of them, where faults may be in the way.

use std::sync::atomic::Ordering;

use prm::cq::CqeOpcode;

use super::{
    Fault,
    FaultError,
    Faults,
    Name, //
};

/// The opcode of a completion, of four bits.
///
/// # Errors
///
/// If there is none of that name, or it is too large.
pub(super) fn opcode(name: &Name) -> Result<u8, FaultError> {
    const MOST: u8 = 0xf;
    let opcode = name.resolve_u8("opcode", CqeOpcode::ALL, CqeOpcode::name)?;
    if opcode > MOST {
        return Err(FaultError::TooLarge {
            what: "opcode",
            number: opcode.into(),
            most: MOST.into(),
        });
    }
    Ok(opcode)
}

/// Whether a fault is one of these.
pub(super) fn is_one(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::LoseEvents { .. } | Fault::CompletionOpcode { .. }
    )
}

impl Faults {
    /// Returns whether an event of a completion queue that interrupts by `vector` is lost, and counts
    /// it.
    pub(crate) fn loses_event(&self, vector: u16) -> bool {
        let lost = self.strikes(|fault| match fault {
            Fault::LoseEvents {
                vector: which,
                count,
            } if is_for(*which, vector) => Some(((), *count)),
            _ => None,
        });
        lost.is_some()
    }

    /// The opcode of a message in a completion queue that interrupts by `vector`, if it is not as it
    /// should be, which is counted.
    pub(crate) fn opcode(&self, vector: u16) -> Option<u8> {
        self.strikes(|fault| match fault {
            Fault::CompletionOpcode {
                opcode: name,
                vector: which,
                count,
            } if is_for(*which, vector) => Some((opcode(name).ok()?, *count)),
            _ => None,
        })
    }

    /// What the first fault does that is meant: `what` says that, and how often it does it.
    fn strikes<T>(&self, what: impl Fn(&Fault) -> Option<(T, Option<u64>)>) -> Option<T> {
        if !self.completions.load(Ordering::Relaxed) {
            return None;
        }
        let mut active = self.active();
        active.faults.values_mut().find_map(|entry| {
            let (done, count) = what(&entry.fault)?;
            if count.is_some_and(|count| entry.hits >= count) {
                return None;
            }
            entry.hits = entry.hits.saturating_add(1);
            Some(done)
        })
    }
}

fn is_for(which: Option<u16>, vector: u16) -> bool {
    which.is_none_or(|which| which == vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_struck_as_often_as_asked_for() {
        let faults = Faults::default();
        assert!(!faults.loses_event(1) && faults.opcode(1).is_none());
        let lost = faults.add(Fault::LoseEvents {
            vector: Some(1),
            count: Some(2),
        });
        let hits = [0, 1, 1, 1].map(|vector| faults.loses_event(vector));
        assert_eq!(hits, [false, true, true, false]);
        assert_eq!(faults.opcode(1), None);
        faults.remove(lost.unwrap()).unwrap();
        let other = faults.add(Fault::CompletionOpcode {
            opcode: Name::Number(3),
            vector: None,
            count: Some(1),
        });
        assert_eq!([0, 1].map(|vector| faults.opcode(vector)), [Some(3), None]);
        assert!(!faults.loses_event(1));
        faults.remove(other.unwrap()).unwrap();
    }
}
