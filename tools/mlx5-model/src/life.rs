// SPDX-License-Identifier: GPL-2.0

//! The life of a function: enabled, started, stopped, disabled.
//!
//! ```text
//!              ENABLE_HCA             INIT_HCA
//!   Disabled ─────────────> Enabled ────────────> Running
//!            <─────────────         <────────────
//!              DISABLE_HCA            TEARDOWN_HCA
//! ```
//!
//! A driver that fails does not always go back the way it came: Linux disables a function that it
//! has started if it fails right after that, and leaves one alone that it cannot stop. So
//! DISABLE_HCA leads out of every stage, and ENABLE_HCA begins a new life in every one. What is
//! left behind is reported.

use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    object::Table,
    pages::Pages,
    refusal::Refusal, //
};
use prm::{
    command::OutputHeader,
    hca::{
        CreateUctx,
        CreateUctxIn,
        CreateUctxOut,
        DestroyUctx,
        DestroyUctxIn,
        DisableHca,
        DisableHcaIn,
        EnableHca,
        EnableHcaIn,
        InitHca,
        InitHcaIn,
        Nop,
        NopIn,
        QueryAdapter,
        QueryAdapterIn,
        QueryAdapterOut,
        QueryIssi,
        QueryIssiIn,
        QueryIssiOut,
        SetDriverVersion,
        SetDriverVersionIn,
        SetIssi,
        SetIssiIn,
        TeardownHca,
        TeardownHcaIn,
        TeardownHcaOut,
        TeardownProfile, //
    },
    Layout,
    Opcode, //
};

/// The versions of the interface there are, a bit each. Version 0 is that of older devices.
const ISSIS: u32 = 0b11;

/// Who makes ConnectX boards, as the IEEE and as PCI number them.
const IEEE_VENDOR: u32 = 0x02c9;
const PCI_VENDOR: u16 = 0x15b3;

/// How far a driver has come with a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing was done: ENABLE_HCA comes first.
    Disabled,
    /// It is enabled: what it can do is asked and chosen, and pages are given.
    Enabled,
    /// It is started: objects can be made.
    Running,
}

/// The life of one function.
#[derive(Clone, Debug)]
pub struct Life {
    /// How far the driver has come.
    pub stage: Stage,
    issi: u16,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            stage: Stage::Disabled,
            issi: 0,
        }
    }
}

impl Life {
    /// Says whether a command can be done as far as the function has come.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn permits(&self, opcode: Opcode) -> Result<(), Refusal> {
        match (self.stage, opcode) {
            (Stage::Disabled, Opcode::ENABLE_HCA) => Ok(()),
            (Stage::Disabled, _) => Err(Refusal::NotEnabled),
            (Stage::Running, Opcode::INIT_HCA | Opcode::SET_HCA_CAP | Opcode::SET_ISSI) => {
                Err(Refusal::AlreadyStarted)
            }
            (Stage::Running, _) => Ok(()),
            (
                Stage::Enabled,
                Opcode::ENABLE_HCA
                | Opcode::QUERY_HCA_CAP
                | Opcode::SET_HCA_CAP
                | Opcode::QUERY_ADAPTER
                | Opcode::INIT_HCA
                | Opcode::DISABLE_HCA
                | Opcode::QUERY_PAGES
                | Opcode::MANAGE_PAGES
                | Opcode::QUERY_ISSI
                | Opcode::SET_ISSI
                | Opcode::SET_DRIVER_VERSION
                | Opcode::ACCESS_REG
                | Opcode::NOP,
            ) => Ok(()),
            (Stage::Enabled, _) => Err(Refusal::NotStarted),
        }
    }
}

/// Refuses a function number other than the caller's own, which is 0: a virtual function speaks
/// for itself alone.
///
/// # Errors
///
/// [`Refusal::OtherFunction`].
pub fn own_function(number: u16, other: bool) -> Result<(), Refusal> {
    if number != 0 || other {
        return Err(Refusal::OtherFunction);
    }
    Ok(())
}

impl Execute for EnableHca {
    fn execute(
        hca: &mut Hca,
        input: &EnableHcaIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        own_function(input.function_id(), input.embedded_cpu_function())?;
        if hca.life.stage != Stage::Disabled {
            hca.renew("ENABLE_HCA");
        }
        hca.life.stage = Stage::Enabled;
        hca.pages = Pages::new(&hca.platform.profile);
        Ok(Reply::done())
    }
}

impl Execute for DisableHca {
    fn execute(
        hca: &mut Hca,
        input: &DisableHcaIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        own_function(input.function_id(), input.embedded_cpu_function())?;
        hca.renew("DISABLE_HCA");
        Ok(Reply::done())
    }
}

impl Execute for InitHca {
    fn execute(hca: &mut Hca, _: &InitHcaIn, _: &[u8]) -> Result<Reply<OutputHeader>, Refusal> {
        if !hca.pages.are_enough() {
            return Err(Refusal::PagesMissing);
        }
        hca.life.stage = Stage::Running;
        Ok(Reply::done())
    }
}

impl Execute for TeardownHca {
    fn execute(
        hca: &mut Hca,
        input: &TeardownHcaIn,
        _: &[u8],
    ) -> Result<Reply<TeardownHcaOut>, Refusal> {
        let forced = match input.profile() {
            Ok(TeardownProfile::GRACEFUL_CLOSE) => false,
            Ok(TeardownProfile::FORCE_CLOSE) if hca.platform.profile.general.force_teardown() => {
                true
            }
            _ => return Err(Refusal::UnknownTeardown),
        };
        if forced {
            // The driver has not taken anything away, nor will it ask for its pages.
            hca.pages.forget();
        } else {
            hca.report("TEARDOWN_HCA", false);
        }
        hca.clear();
        hca.life.stage = Stage::Enabled;
        Ok(Reply::done())
    }
}

impl Execute for QueryIssi {
    fn execute(hca: &mut Hca, _: &QueryIssiIn, _: &[u8]) -> Result<Reply<QueryIssiOut>, Refusal> {
        let mut output = QueryIssiOut::new();
        output
            .set_current_issi(hca.life.issi)
            .set_supported_issi_dw0(ISSIS);
        Ok(output.into())
    }
}

impl Execute for SetIssi {
    fn execute(hca: &mut Hca, input: &SetIssiIn, _: &[u8]) -> Result<Reply<OutputHeader>, Refusal> {
        let issi = input.current_issi();
        if ISSIS.checked_shr(issi.into()).unwrap_or(0) & 1 == 0 {
            return Err(Refusal::UnknownIssi);
        }
        hca.life.issi = issi;
        Ok(Reply::done())
    }
}

impl Execute for SetDriverVersion {
    fn execute(
        hca: &mut Hca,
        _: &SetDriverVersionIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        if !hca.platform.profile.general.driver_version() {
            return Err(Refusal::UnknownOpcode);
        }
        // The trace has it.
        Ok(Reply::done())
    }
}

impl Execute for Nop {
    fn execute(_: &mut Hca, _: &NopIn, _: &[u8]) -> Result<Reply<OutputHeader>, Refusal> {
        Ok(Reply::done())
    }
}

impl Execute for QueryAdapter {
    fn execute(
        hca: &mut Hca,
        _: &QueryAdapterIn,
        _: &[u8],
    ) -> Result<Reply<QueryAdapterOut>, Refusal> {
        let mut output = QueryAdapterOut::new();
        let adapter = output.query_adapter_struct_mut();
        adapter
            .set_ieee_vendor_id(IEEE_VENDOR)
            .set_vsd_vendor_id(PCI_VENDOR);
        *adapter.vsd_contd_psid_mut() = hca.platform.profile.psid;
        Ok(output.into())
    }
}

/// A user context: on whose behalf commands are.
#[derive(Debug)]
pub struct Uctx;

/// A function's table of user contexts, empty.
pub fn uctxs() -> Table<Uctx> {
    Table::new("user context", 1, u16::MAX.into())
}

impl Execute for CreateUctx {
    fn execute(
        hca: &mut Hca,
        input: &CreateUctxIn,
        _: &[u8],
    ) -> Result<Reply<CreateUctxOut>, Refusal> {
        let general = &hca.platform.profile.general;
        if general.log_max_uctx() == 0 || input.uctx().cap() & !general.uctx_cap() != 0 {
            return Err(Refusal::UctxNotAllowed);
        }
        if hca.uctxs.len() >> general.log_max_uctx() != 0 {
            return Err(Refusal::NoResources);
        }
        let uid = hca.uctxs.add(Uctx)?;
        let mut output = CreateUctxOut::new();
        // The numbers of the table are of 16 bits.
        output.set_uid(uid as u16);
        Ok(output.into())
    }
}

impl Execute for DestroyUctx {
    fn execute(
        hca: &mut Hca,
        input: &DestroyUctxIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.uctxs.remove(input.uid().into())?;
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<EnableHca>(),
    handler::<DisableHca>(),
    handler::<InitHca>(),
    handler::<TeardownHca>(),
    handler::<QueryIssi>(),
    handler::<SetIssi>(),
    handler::<SetDriverVersion>(),
    handler::<Nop>(),
    handler::<QueryAdapter>(),
    handler::<CreateUctx>(),
    handler::<DestroyUctx>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_permits_what_belongs_to_it() {
        let at = |stage| Life {
            stage,
            ..Life::default()
        };
        for opcode in Opcode::ALL.iter().copied() {
            let disabled = at(Stage::Disabled).permits(opcode);
            assert_eq!(disabled.is_ok(), opcode == Opcode::ENABLE_HCA, "{opcode:?}");
        }
        for (opcode, enabled, running) in [
            (Opcode::INIT_HCA, Ok(()), Err(Refusal::AlreadyStarted)),
            (Opcode::ENABLE_HCA, Ok(()), Ok(())),
            (Opcode::DISABLE_HCA, Ok(()), Ok(())),
            (Opcode::SET_HCA_CAP, Ok(()), Err(Refusal::AlreadyStarted)),
            (Opcode::TEARDOWN_HCA, Err(Refusal::NotStarted), Ok(())),
            (Opcode::CREATE_EQ, Err(Refusal::NotStarted), Ok(())),
            (Opcode::MANAGE_PAGES, Ok(()), Ok(())),
            (Opcode::QUERY_HCA_CAP, Ok(()), Ok(())),
        ] {
            assert_eq!(at(Stage::Enabled).permits(opcode), enabled, "{opcode:?}");
            assert_eq!(at(Stage::Running).permits(opcode), running, "{opcode:?}");
        }
    }
}
