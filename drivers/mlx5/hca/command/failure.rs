// SPDX-License-Identifier: GPL-2.0

//! Why a command did not do what it should.

use core::fmt;

use prm::{
    command::Delivery,
    layout::Unknown,
    Opcode,
    Status, //
};

/// Why a command did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The command.
    pub(crate) opcode: Opcode,
    /// What happened to it.
    pub(crate) reason: Reason,
}

/// What happened to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The firmware executed it, and refused.
    Refused {
        /// The status, or a number that is none.
        status: Result<Status, Unknown>,
        /// Why, in the firmware's own numbers.
        syndrome: u32,
    },
    /// The firmware could not take it. Nothing was executed, unless it says that it failed itself.
    Undelivered(Result<Delivery, Unknown>),
    /// It was not complete in so many milliseconds. It may be executed yet.
    Timeout(u32),
    /// It was not sent: no slot became free in so many milliseconds.
    NoSlot(u32),
    /// It was not sent, or not complete yet, when the firmware was found dead.
    Dead,
    /// What came back is not an answer to it.
    Garbled,
    /// It was not sent for want of memory, or as the device is not ours any more: the error's
    /// number, above 0.
    NotSent(i32),
}

impl Reason {
    /// For an opcode.
    pub(crate) fn of(self, opcode: Opcode) -> Failure {
        Failure {
            opcode,
            reason: self,
        }
    }
}

impl Failure {
    /// Returns whether the firmware may have done all the same what it was asked for, or will yet:
    /// what it was given may be in use.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(
            self.reason,
            Reason::Timeout(_)
                | Reason::Dead
                | Reason::Garbled
                | Reason::Undelivered(Ok(Delivery::FW_ERR) | Err(_))
        )
    }

    /// Returns whether it was refused for the state that something is in, or for there is no such
    /// thing.
    pub(crate) fn is_for_state(&self) -> bool {
        let Reason::Refused { status, .. } = self.reason else {
            return false;
        };
        matches!(status, Ok(Status::BAD_RES_STATE_ERR | Status::BAD_RES_ERR))
    }

    /// Returns whether it was refused for want of something, whatever was asked for.
    pub(crate) fn is_for_want(&self) -> bool {
        let Reason::Refused { status, .. } = self.reason else {
            return false;
        };
        matches!(
            status,
            Ok(Status::LIM_ERR | Status::NO_RES_ERR | Status::RES_BUSY | Status::NOT_READY)
        )
    }

    /// Returns whether it was not done as the firmware is dead.
    pub(crate) fn is_for_death(&self) -> bool {
        matches!(self.reason, Reason::Dead)
    }

    /// The number of the nearest error that user space knows, above 0.
    pub(crate) fn errno(&self) -> i32 {
        const EIO: i32 = 5;
        const ENXIO: i32 = 6;
        const EAGAIN: i32 = 11;
        const ENOMEM: i32 = 12;
        const EBUSY: i32 = 16;
        const EINVAL: i32 = 22;
        const EOPNOTSUPP: i32 = 95;
        const ETIMEDOUT: i32 = 110;
        match self.reason {
            Reason::Refused { status, .. } => match status {
                Ok(Status::BAD_OP_ERR) => EOPNOTSUPP,
                Ok(
                    Status::BAD_PARAM_ERR
                    | Status::BAD_RES_ERR
                    | Status::BAD_RES_STATE_ERR
                    | Status::IX_ERR
                    | Status::BAD_QP_STATE_ERR
                    | Status::BAD_PKT_ERR
                    | Status::BAD_SIZE_OUTS_CQES_ERR,
                ) => EINVAL,
                Ok(Status::RES_BUSY) => EBUSY,
                Ok(Status::LIM_ERR) => ENOMEM,
                Ok(Status::NOT_READY | Status::NO_RES_ERR) => EAGAIN,
                _ => EIO,
            },
            Reason::Undelivered(_) | Reason::Garbled => EIO,
            Reason::Timeout(_) | Reason::NoSlot(_) => ETIMEDOUT,
            Reason::Dead => ENXIO,
            Reason::NotSent(errno) => errno,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opcode = self.opcode;
        write!(f, "{} ({:#x}) ", opcode.name(), opcode as u16)?;
        match self.reason {
            Reason::Refused { status, syndrome } => {
                match status {
                    Ok(status) => write!(f, "refused: {} ({:#x})", status.name(), status as u8)?,
                    Err(Unknown(number)) => write!(f, "refused: status {number:#x}")?,
                }
                write!(f, ", syndrome {syndrome:#x}")
            }
            Reason::Undelivered(Ok(delivery)) => write!(
                f,
                "not taken by the firmware: {} ({:#x})",
                delivery.name(),
                delivery as u8
            ),
            Reason::Undelivered(Err(Unknown(number))) => {
                write!(f, "not taken by the firmware: {number:#x}")
            }
            Reason::Timeout(ms) => write!(f, "not complete after {ms} ms"),
            Reason::NoSlot(ms) => write!(f, "not sent: no slot free for {ms} ms"),
            Reason::Dead => f.write_str("not done: the firmware is dead"),
            Reason::Garbled => f.write_str("answered with something else"),
            Reason::NotSent(errno) => write!(f, "not sent: error {errno}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_what_it_knows() {
        let refused = |number| Reason::Refused {
            status: Status::try_from(number),
            syndrome: 0x12ab,
        };
        for (reason, text) in [
            (
                refused(8),
                "CREATE_EQ (0x301) refused: LIM_ERR (0x8), syndrome 0x12ab",
            ),
            (
                refused(0xee),
                "CREATE_EQ (0x301) refused: status 0xee, syndrome 0x12ab",
            ),
            (
                Reason::Undelivered(Delivery::try_from(2)),
                "CREATE_EQ (0x301) not taken by the firmware: TOK_ERR (0x2)",
            ),
            (
                Reason::Timeout(60_000),
                "CREATE_EQ (0x301) not complete after 60000 ms",
            ),
        ] {
            assert_eq!(reason.of(Opcode::CREATE_EQ).to_string(), text);
        }
    }

    #[test]
    fn a_failure_is_an_error_of_the_system() {
        for status in Status::ALL {
            let failure = Reason::Refused {
                status: Ok(*status),
                syndrome: 0,
            };
            assert!(failure.of(Opcode::NOP).errno() > 0);
        }
        assert_eq!(Reason::Timeout(1).of(Opcode::NOP).errno(), 110);
        assert_eq!(Reason::NotSent(12).of(Opcode::NOP).errno(), 12);
    }

    #[test]
    fn what_was_refused_or_not_sent_is_not_in_doubt() {
        let refused = Reason::Refused {
            status: Ok(Status::LIM_ERR),
            syndrome: 0,
        };
        for (reason, doubt) in [
            (Reason::Timeout(1), true),
            (Reason::Dead, true),
            (Reason::Garbled, true),
            (Reason::Undelivered(Ok(Delivery::FW_ERR)), true),
            (Reason::Undelivered(Err(Unknown(0x7f))), true),
            (Reason::Undelivered(Ok(Delivery::TOK_ERR)), false),
            (Reason::NoSlot(1), false),
            (Reason::NotSent(12), false),
            (refused, false),
        ] {
            assert_eq!(reason.of(Opcode::NOP).is_in_doubt(), doubt, "{reason:?}");
        }
    }

    #[test]
    fn who_asks_for_what_is_not_there_is_wrong_about_it() {
        for status in Status::ALL {
            let reason = Reason::Refused {
                status: Ok(*status),
                syndrome: 0,
            };
            let expected = matches!(*status, Status::BAD_RES_ERR | Status::BAD_RES_STATE_ERR);
            assert_eq!(
                reason.of(Opcode::NOP).is_for_state(),
                expected,
                "{reason:?}"
            );
        }
    }
}
