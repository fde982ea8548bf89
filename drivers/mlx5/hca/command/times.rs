// SPDX-License-Identifier: GPL-2.0

//! What became of commands, kind by kind.

use core::fmt;

use prm::{
    ObjectType,
    Opcode, //
};

/// A kind of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The command.
    pub(crate) opcode: Opcode,
    /// The type of object it is for, if it is one for many.
    pub(crate) object: Option<ObjectType>,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.opcode.name())?;
        match self.object {
            Some(object) => write!(f, " {}", object.name()),
            None => Ok(()),
        }
    }
}

/// What a command that was done changes of what there is in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There is one more of something.
    Made(&'static str),
    /// There is one less.
    Ended(&'static str),
}

impl Kind {
    /// What it changes of what there is in the firmware, if anything.
    pub(crate) fn change(&self) -> Option<Change> {
        let name = self.opcode.name();
        // Its counterpart has no name of the kind.
        if self.opcode == Opcode::SET_FLOW_TABLE_ENTRY {
            return Some(Change::Made("FLOW_TABLE_ENTRY"));
        }
        let made = ["CREATE_", "ALLOC_"];
        let ended = ["DESTROY_", "DEALLOC_", "DELETE_"];
        let what = |prefixes: &[&str]| {
            let rest = prefixes
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))?;
            Some(self.object.map_or(rest, ObjectType::name))
        };
        what(&made)
            .map(Change::Made)
            .or_else(|| what(&ended).map(Change::Ended))
    }
}

/// How a command that was sent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was done.
    Done,
    /// The firmware refused it.
    Refused,
    /// It was not answered: not in time, not as an answer looks, or as the firmware died.
    Lost,
}

/// What became of the commands of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// The kind.
    pub(crate) kind: Kind,
    done: u64,
    refused: u64,
    lost: u64,
    total_us: u64,
    most_us: u64,
    /// How many were done when the present life of the firmware began.
    before: u64,
}

impl Times {
    /// No command yet.
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            done: 0,
            refused: 0,
            lost: 0,
            total_us: 0,
            most_us: 0,
            before: 0,
        }
    }

    /// Counts a command that took `us` microseconds.
    pub(crate) fn add(&mut self, end: End, us: u64) {
        let count = match end {
            End::Done => &mut self.done,
            End::Refused => &mut self.refused,
            End::Lost => &mut self.lost,
        };
        *count = count.saturating_add(1);
        self.total_us = self.total_us.saturating_add(us);
        self.most_us = self.most_us.max(us);
    }

    /// The firmware begins another life, in which it has nothing.
    pub(crate) fn begin(&mut self) {
        self.before = self.done;
    }

    /// How many were done in the present life of the firmware.
    pub(crate) fn done_since(&self) -> u64 {
        self.done - self.before
    }

    /// The head of a table, of which each line is one value.
    pub(crate) const HEAD: &'static str = "    done  refused     lost         us  most us  command";
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8} {:>8} {:>8} {:>10} {:>8}  {}",
            self.done, self.refused, self.lost, self.total_us, self.most_us, self.kind
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn kind(opcode: Opcode) -> Kind {
        Kind {
            opcode,
            object: None,
        }
    }

    const MAKES_A_QUEUE: Kind = Kind {
        opcode: Opcode::CREATE_GENERAL_OBJECT,
        object: Some(ObjectType::VIRTIO_NET_Q),
    };

    #[test]
    fn what_commands_change() {
        for (opcode, change) in [
            (Opcode::CREATE_EQ, Some(Change::Made("EQ"))),
            (Opcode::DESTROY_EQ, Some(Change::Ended("EQ"))),
            (Opcode::ALLOC_PD, Some(Change::Made("PD"))),
            (Opcode::DEALLOC_PD, Some(Change::Ended("PD"))),
            (
                Opcode::SET_FLOW_TABLE_ENTRY,
                Some(Change::Made("FLOW_TABLE_ENTRY")),
            ),
            (
                Opcode::DELETE_FLOW_TABLE_ENTRY,
                Some(Change::Ended("FLOW_TABLE_ENTRY")),
            ),
            (Opcode::QUERY_ADAPTER, None),
            (Opcode::MANAGE_PAGES, None),
        ] {
            assert_eq!(kind(opcode).change(), change, "{opcode:?}");
        }
        assert_eq!(MAKES_A_QUEUE.change(), Some(Change::Made("VIRTIO_NET_Q")));
        // What can be made can be ended, and the other way round.
        let changes = |made: bool| {
            let mut all: Vec<_> = Opcode::ALL
                .iter()
                .filter_map(|opcode| match kind(*opcode).change()? {
                    Change::Made(what) => made.then_some(what),
                    Change::Ended(what) => (!made).then_some(what),
                })
                .collect();
            all.sort_unstable();
            all
        };
        assert_eq!(changes(true), changes(false));
    }

    #[test]
    fn commands_are_counted() {
        let mut times = Times::new(MAKES_A_QUEUE);
        times.add(End::Done, 30);
        times.add(End::Refused, 10);
        times.add(End::Lost, 500_000);
        assert_eq!(times.done_since(), 1);
        times.begin();
        assert_eq!(times.done_since(), 0);
        times.add(End::Done, 2);
        assert_eq!(times.done_since(), 1);
        assert_eq!(
            times.to_string(),
            "       2        1        1     500042   500000  CREATE_GENERAL_OBJECT VIRTIO_NET_Q"
        );
        assert_eq!(
            Times::HEAD.find("  command"),
            times.to_string().find("  CREATE")
        );
    }
}
