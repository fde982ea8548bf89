// SPDX-License-Identifier: GPL-2.0

//! Capabilities of one function: what its profile allows, and what of it the driver chose.

use prm::{
    cap::{
        CapMode,
        CapType,
        CmdHcaCap,
        FlowTableNicCap,
        QueryHcaCap,
        QueryHcaCapIn,
        QueryHcaCapOut,
        SetHcaCap,
        SetHcaCapIn,
        VirtioEmulationCap, //
    },
    command::OutputHeader,
    layout::{
        bits,
        Info,
        Shape, //
    },
    Layout, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    life::own_function,
    profile::Profile,
    refusal::Refusal, //
};

/// The capabilities in use. Only general ones can be chosen.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// The general ones.
    pub general: CmdHcaCap,
}

impl Capabilities {
    /// As they are before the driver chose: the largest.
    pub fn new(profile: &Profile) -> Self {
        Self {
            general: profile.general.clone(),
        }
    }
}

/// The groups that a profile can have, and what is in them.
pub const GROUPS: &[(CapType, &Info)] = &[
    (CapType::GENERAL, &CmdHcaCap::INFO),
    (CapType::FLOW_TABLE, &FlowTableNicCap::INFO),
    (CapType::VDPA_EMULATION, &VirtioEmulationCap::INFO),
];

/// The group that `op_mod` is about.
///
/// # Errors
///
/// [`Refusal::UnknownCapabilities`] if the reference has none of the kind.
pub fn group(op_mod: u16) -> Result<CapType, Refusal> {
    CapType::try_from(op_mod >> 1).map_err(|_| Refusal::UnknownCapabilities)
}

/// Says whether no field of a structure is larger than the same one of another, and no bit set
/// outside of fields that is not set there.
fn within(info: &Info, wanted: &[u8], largest: &[u8]) -> bool {
    let mut rest: Vec<u8> = wanted.to_vec();
    let fields_fit = info.fields.iter().all(|field| match field.shape {
        Shape::Bits(_) => {
            prm::layout::set_bits(&mut rest, field.offset, field.width, 0);
            bits(wanted, field.offset, field.width) <= bits(largest, field.offset, field.width)
        }
        // Compared with the rest.
        Shape::Bytes | Shape::Part(_) => true,
    });
    let mut largest = largest.iter().copied().chain(std::iter::repeat(0));
    fields_fit
        && rest
            .iter()
            .all(|byte| byte & !largest.next().unwrap_or(0) == 0)
}

impl Execute for QueryHcaCap {
    fn execute(
        hca: &mut Hca,
        input: &QueryHcaCapIn,
        _: &[u8],
    ) -> Result<Reply<QueryHcaCapOut>, Refusal> {
        own_function(input.function_id(), input.other_function())?;
        let group = group(input.op_mod())?;
        let largest = hca.platform.profile.capabilities(group);
        let largest = largest.ok_or(Refusal::UnknownCapabilities)?;
        let bytes = if group == CapType::GENERAL && input.op_mod() & 1 == CapMode::GET_CUR as u16 {
            hca.capabilities.general.as_bytes()
        } else {
            largest
        };
        let mut output = QueryHcaCapOut::new();
        for (to, from) in output.capability_mut().iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(output.into())
    }
}

impl Execute for SetHcaCap {
    fn execute(
        hca: &mut Hca,
        input: &SetHcaCapIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        own_function(input.function_id(), input.other_function())?;
        if group(input.op_mod())? != CapType::GENERAL {
            return Err(Refusal::CapabilitiesFixed);
        }
        let largest = hca.platform.profile.general.as_bytes();
        if !within(&CmdHcaCap::INFO, input.capability(), largest) {
            return Err(Refusal::CapabilityTooLarge);
        }
        if let Ok((general, _)) = CmdHcaCap::read_from_prefix(input.capability()) {
            hca.capabilities.general = general;
        }
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[handler::<QueryHcaCap>(), handler::<SetHcaCap>()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_chosen_beyond_the_largest() {
        let largest = Profile::load("cx7").unwrap().general;
        let fits = |change: fn(&mut CmdHcaCap)| {
            let mut wanted = largest.clone();
            change(&mut wanted);
            within(&CmdHcaCap::INFO, wanted.as_bytes(), largest.as_bytes())
        };
        assert!(fits(|_| {}));
        assert!(fits(|wanted| {
            wanted.set_log_max_qp(17).set_umem_uid_0(false);
        }));
        assert!(!fits(|wanted| {
            wanted.set_log_max_qp(19);
        }));
        assert!(!fits(|wanted| {
            wanted.set_roce(true);
        }));
        // Bit 0 is of no field.
        assert!(!fits(|wanted| {
            wanted.as_mut_bytes()[0] |= 0x80;
        }));
    }

    #[test]
    fn what_is_behind_the_group_must_be_0() {
        let largest = Profile::load("cx7").unwrap().general;
        let mut wanted = largest.as_bytes().to_vec();
        wanted.resize(0x1000, 0);
        assert!(within(&CmdHcaCap::INFO, &wanted, largest.as_bytes()));
        wanted[0xfff] = 1;
        assert!(!within(&CmdHcaCap::INFO, &wanted, largest.as_bytes()));
    }
}
