// SPDX-License-Identifier: GPL-2.0

//! Why the firmware refuses a command: a status, and a syndrome of its own for each reason.

use prm::Status;

macro_rules! refusals {
    ($(
        $(#[$doc:meta])*
        $name:ident $(($object:ident))? = $syndrome:literal, $status:ident;
    )*) => {
        /// Why a command is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal {
            $(
                $(#[$doc])*
                $name $((refusals!(@ $object)))?,
            )*
        }

        impl Refusal {
            /// The status the driver is told.
            pub fn status(self) -> Status {
                match self {
                    $(Self::$name $((refusals!(_ $object)))? => Status::$status,)*
                }
            }

            /// The syndrome the driver is told: one for each reason.
            pub fn syndrome(self) -> u32 {
                match self {
                    $(Self::$name $((refusals!(_ $object)))? => $syndrome,)*
                }
            }

            /// The name of the reason, as it stands in a trace.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name $((refusals!(_ $object)))? => stringify!($name),)*
                }
            }
        }

        #[cfg(test)]
        const SYNDROMES: &[u32] = &[$($syndrome),*];
    };
    (@ object) => { &'static str };
    (_ object) => { _ };
}

refusals! {
    // The command interface: 0x01....

    /// There is no such command.
    UnknownOpcode = 0x01_0001, BAD_OP_ERR;
    /// There is no such type of object.
    UnknownObjectType = 0x01_0002, BAD_OP_ERR;
    /// The input is shorter than the command's.
    InputTooShort = 0x01_0003, BAD_INP_LEN_ERR;
    /// The output does not fit.
    OutputTooShort = 0x01_0004, BAD_OUTP_LEN_ERR;
    /// The function is not enabled.
    NotEnabled = 0x01_0005, BAD_SYS_STATE_ERR;
    /// The function was not started, or was ended.
    NotStarted = 0x01_0006, BAD_SYS_STATE_ERR;
    /// The function was started already.
    AlreadyStarted = 0x01_0007, BAD_SYS_STATE_ERR;

    // Objects of any type: 0x02....

    /// The object was destroyed.
    Destroyed(object) = 0x02_0001, BAD_RES_STATE_ERR;
    /// There never was such an object.
    NeverMade(object) = 0x02_0002, BAD_RES_ERR;
    /// Another object uses it.
    InUse(object) = 0x02_0003, BAD_RES_STATE_ERR;
    /// There are no numbers left.
    NoResources = 0x02_0004, NO_RES_ERR;

    // The function: 0x03....

    /// It is about another function, and a virtual one speaks for itself alone.
    OtherFunction = 0x03_0001, BAD_PARAM_ERR;
    /// There is no such variant of the command.
    UnknownVariant = 0x03_0002, BAD_PARAM_ERR;
    /// The firmware lacks pages.
    PagesMissing = 0x03_0003, BAD_SYS_STATE_ERR;
    /// A function cannot be stopped in this way.
    UnknownTeardown = 0x03_0004, BAD_PARAM_ERR;
    /// There is no such version of the interface.
    UnknownIssi = 0x03_0005, BAD_PARAM_ERR;
    /// The firmware has no such group of capabilities.
    UnknownCapabilities = 0x03_0006, BAD_PARAM_ERR;
    /// Nothing of this group of capabilities can be chosen.
    CapabilitiesFixed = 0x03_0007, BAD_PARAM_ERR;
    /// It is more than the firmware is capable of.
    CapabilityTooLarge = 0x03_0008, BAD_PARAM_ERR;
    /// The firmware has the page already.
    PageGivenTwice = 0x03_0009, BAD_PARAM_ERR;
    /// The firmware did not ask for so many pages.
    PageNotWanted = 0x03_000a, LIM_ERR;
    /// There are no user contexts, or none that may do this.
    UctxNotAllowed = 0x03_000b, BAD_PARAM_ERR;
    /// The driver itself may not do it, only a user context.
    UctxNeeded = 0x03_000c, BAD_PARAM_ERR;
    /// There is no such register.
    UnknownRegister = 0x03_000d, BAD_PARAM_ERR;
    /// A virtual function may not write the register.
    RegisterReadOnly = 0x03_000e, BAD_PARAM_ERR;

    // Event queues, completion queues, queue pairs: 0x04....

    /// The queue has more entries than the firmware can count.
    QueueTooLarge = 0x04_0001, BAD_PARAM_ERR;
    /// The list behind the command ends before all of it is said.
    ListTooShort = 0x04_0002, BAD_INP_LEN_ERR;
    /// A page or a doorbell record does not begin where one can.
    PageNotAligned = 0x04_0003, BAD_PARAM_ERR;
    /// A queue is wanted that the firmware does not offer.
    NotOffered = 0x04_0004, BAD_PARAM_ERR;
    /// The queue pair is not in the state that the command leads from.
    QpState = 0x04_0005, BAD_QP_STATE_ERR;
    /// The function has no such interrupt vector.
    NoVector = 0x04_0006, BAD_PARAM_ERR;

    // Memory keys and umems: 0x05....

    /// The firmware cannot translate addresses in this way.
    UnknownAccessMode = 0x05_0001, BAD_PARAM_ERR;
    /// What a memory key or umem is of ends behind the last address there is.
    BadBounds = 0x05_0002, BAD_PARAM_ERR;
    /// Pages or pieces of this size do not exist.
    BadPageSize = 0x05_0003, BAD_PARAM_ERR;
    /// The list is longer than the key has room for.
    ListTooLong = 0x05_0004, BAD_PARAM_ERR;

    // Virtqueues: 0x06....

    /// Virtqueues of this type are not supported.
    QueueType = 0x06_0001, BAD_PARAM_ERR;
    /// A virtqueue cannot have this number of entries.
    QueueSize = 0x06_0002, BAD_PARAM_ERR;
    /// There are no virtqueues with an index as high as this.
    QueueIndex = 0x06_0003, BAD_PARAM_ERR;
    /// Another virtqueue has this index.
    QueueIndexTaken = 0x06_0004, BAD_PARAM_ERR;
    /// A virtqueue cannot have these features.
    QueueFeatures = 0x06_0005, BAD_PARAM_ERR;
    /// A virtqueue cannot be of this version of the standard.
    QueueVersion = 0x06_0006, BAD_PARAM_ERR;
    /// A virtqueue cannot tell of used buffers in this way.
    EventMode = 0x06_0007, BAD_PARAM_ERR;
    /// A umem has too few bytes for a virtqueue of this size, or is asked for too few.
    UmemTooSmall = 0x06_0008, BAD_PARAM_ERR;
    /// The rings cannot have a memory key of their own.
    DescGroupMkey = 0x06_0009, BAD_PARAM_ERR;
    /// Dirty pages cannot be written down.
    DirtyBitmap = 0x06_000a, BAD_PARAM_ERR;
    /// There are no devices emulated whole, nor tunnels.
    Emulation = 0x06_000b, BAD_PARAM_ERR;
    /// There is no such field to be changed.
    ModifyField = 0x06_000c, BAD_PARAM_ERR;
    /// In this state only the state can be changed.
    NotModifiable = 0x06_000d, BAD_RES_STATE_ERR;
    /// There is no such state.
    QueueState = 0x06_000e, BAD_PARAM_ERR;
    /// This state does not follow that one.
    StateTransition = 0x06_000f, BAD_RES_STATE_ERR;
    /// A suspended virtqueue cannot be made ready again.
    ResumeNotSupported = 0x06_0010, BAD_RES_STATE_ERR;
    /// The rings cannot lie or stand so.
    RingSetup = 0x06_0011, BAD_PARAM_ERR;

    // Steering: 0x07....

    /// Frames are not encrypted here.
    Encryption = 0x07_0001, BAD_PARAM_ERR;
    /// Nor merged.
    Merging = 0x07_0002, BAD_PARAM_ERR;
    /// Nor looked into for tunnels.
    Tunnels = 0x07_0003, BAD_PARAM_ERR;
    /// No field is to be changed, or one that cannot be.
    Unchangeable = 0x07_0004, BAD_PARAM_ERR;
    /// A receive interface has no queue of its own, only a table.
    DirectQueue = 0x07_0005, BAD_PARAM_ERR;
    /// There is no such hash function.
    HashFunction = 0x07_0006, BAD_PARAM_ERR;
    /// These fields cannot be hashed, or not symmetrically.
    HashFields = 0x07_0007, BAD_PARAM_ERR;
    /// A table lists something else than virtqueues.
    QueueListType = 0x07_0008, BAD_PARAM_ERR;
    /// A table lists no queues, or more than it can have.
    QueueListSize = 0x07_0009, BAD_PARAM_ERR;
    /// A virtqueue in a table does not receive.
    NotReceiving = 0x07_000a, BAD_PARAM_ERR;
    /// Flow tables are for received frames only.
    FlowTableType = 0x07_000b, BAD_PARAM_ERR;
    /// The port of another function.
    OtherPort = 0x07_000c, BAD_PARAM_ERR;
    /// A flow table that could do more than match and forward.
    FlowTableKind = 0x07_000d, BAD_PARAM_ERR;
    /// A flow table is too large.
    FlowTableSize = 0x07_000e, BAD_PARAM_ERR;
    /// A flow table would lead to one that is not of a higher level, or there is no such level.
    FlowTableLevel = 0x07_000f, BAD_PARAM_ERR;
    /// There is no such way for frames that no entry matches.
    MissAction = 0x07_0010, BAD_PARAM_ERR;
    /// A group is no range of entries of its table.
    FlowGroupRange = 0x07_0011, BAD_PARAM_ERR;
    /// Entries of a group are another group's.
    FlowGroupOverlap = 0x07_0012, BAD_RES_STATE_ERR;
    /// A group compares what cannot be compared.
    MatchCriteria = 0x07_0013, BAD_PARAM_ERR;
    /// An entry is not in the group it is said to be in.
    FlowIndex = 0x07_0014, IX_ERR;
    /// There is an entry already.
    FlowEntryExists = 0x07_0015, BAD_RES_STATE_ERR;
    /// There is no such entry.
    NoFlowEntry = 0x07_0016, BAD_RES_ERR;
    /// An entry has none or several of the ways a frame can go, or an action that is not offered.
    FlowAction = 0x07_0017, BAD_PARAM_ERR;
    /// An entry leads where it cannot lead.
    FlowDestination = 0x07_0018, BAD_PARAM_ERR;
    /// A list of an entry is too long, or there or not there against its action.
    FlowList = 0x07_0019, BAD_PARAM_ERR;
    /// Counters are made one at a time.
    FlowCounterBulk = 0x07_001a, BAD_PARAM_ERR;

    // The port: 0x08....

    /// It is about another function's port.
    OtherVport = 0x08_0001, BAD_PARAM_ERR;
    /// The port has no such list.
    UnknownList = 0x08_0002, BAD_PARAM_ERR;
    /// The list has more entries than the port has room for.
    TooManyAddresses = 0x08_0003, LIM_ERR;
    /// Frames of the port cannot be so small, or so large.
    MtuOutOfRange = 0x08_0004, BAD_PARAM_ERR;
    /// The port has no such thing, or its function may not change it.
    NotOfVport = 0x08_0005, BAD_PARAM_ERR;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_syndrome_of_its_own() {
        let mut sorted = SYNDROMES.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), SYNDROMES.len());
    }
}
