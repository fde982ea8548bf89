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
    /// The function is enabled already.
    AlreadyEnabled = 0x01_0006, BAD_SYS_STATE_ERR;
    /// The function was not started, or was ended.
    NotStarted = 0x01_0007, BAD_SYS_STATE_ERR;
    /// The function was started already.
    AlreadyStarted = 0x01_0008, BAD_SYS_STATE_ERR;

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
    /// There is no such register.
    UnknownRegister = 0x03_000c, BAD_PARAM_ERR;
    /// A virtual function may not write the register.
    RegisterReadOnly = 0x03_000d, BAD_PARAM_ERR;

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

    // Steering: 0x07....

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
