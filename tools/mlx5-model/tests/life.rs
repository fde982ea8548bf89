// SPDX-License-Identifier: GPL-2.0

//! The life of a function, and its port, as a driver sees them.

use mlx5_host::{
    Board,
    Failure,
    Host, //
};
use mlx5_model::{
    profile::BUILT_IN,
    refusal::Refusal, //
};
use prm::{
    cap::{
        CapType,
        CmdHcaCap,
        SetHcaCap, //
    },
    flow::{
        AllocFlowCounter,
        CreateFlowTable,
        FlowTableType, //
    },
    hca::{
        CreateUctx,
        DestroyUctx,
        DisableHca,
        EnableHca,
        InitHca,
        QueryAdapter,
        SetIssi,
        TeardownHca, //
    },
    pd::{
        AllocPd,
        DeallocPd, //
    },
    register::{
        AccessRegister,
        AccessRegisterIn,
        PmtuReg,
        RegisterAccess,
        RegisterId, //
    },
    umem::CreateUmem,
    vport::{
        AllocQCounter,
        AllowedListType,
        MacAddressLayout,
        ModifyNicVportContext,
        ModifyNicVportContextIn,
        QueryNicVportContext,
        QueryNicVportContextIn,
        QueryVportState,
        VportState, //
    },
    Layout, //
};
use zerocopy::IntoBytes;

fn host(profile: &str) -> Host {
    Board::new(1).unwrap().host(profile, 0).unwrap()
}

fn started(profile: &str) -> Host {
    let mut host = host(profile);
    host.initialize().unwrap();
    host
}

/// Asserts that a command was refused for a reason.
fn refused<T>(result: Result<T, Failure>, refusal: Refusal) {
    match result {
        Err(Failure::Refused { syndrome, .. }) => assert_eq!(syndrome, refusal.syndrome()),
        Err(other) => panic!("{other}, not refused as {refusal:?}"),
        Ok(_) => panic!("done, not refused as {refusal:?}"),
    }
}

#[test]
fn every_profile_starts_and_stops_again_and_again() {
    for (profile, _) in BUILT_IN {
        let mut host = host(profile);
        for _ in 0..3 {
            host.initialize().unwrap();
            assert!(host.pages() > 0);
            host.stop().unwrap();
            assert_eq!(host.pages(), 0);
        }
    }
}

#[test]
fn a_function_starts_with_all_its_pages_or_not() {
    let mut host = host("cx7");
    host.call::<EnableHca>(|_| {}).unwrap();
    refused(host.call::<InitHca>(|_| {}), Refusal::PagesMissing);
    let issi = host.call::<SetIssi>(|input| {
        input.set_current_issi(2);
    });
    refused(issi, Refusal::UnknownIssi);
}

#[test]
fn pages_come_back_when_nothing_needs_them() {
    let mut host = started("cx7");
    let all = host.pages();
    let pd = host.call::<AllocPd>(|_| {}).unwrap().pd();
    assert_eq!(host.take_pages(all).unwrap(), 0);
    host.call::<DeallocPd>(|input| {
        input.set_pd(pd);
    })
    .unwrap();
    assert_eq!(host.take_pages(all).unwrap(), all);
    host.call::<DisableHca>(|_| {}).unwrap();
    host.initialize().unwrap();
}

/// What a function has.
fn left(host: &Host) -> (u64, usize) {
    let report = host.function.report();
    (report.pages, report.objects.len())
}

#[test]
fn a_driver_finds_nothing_of_the_one_before() {
    for (profile, _) in BUILT_IN {
        let mut host = started(profile);
        let fresh = left(&host);
        let enabled = |host: &mut Host| {
            host.attach();
            host.initialize().unwrap();
            assert_eq!(left(host), fresh);
        };
        // It could not stop the function.
        host.call::<AllocPd>(|_| {}).unwrap();
        assert_ne!(left(&host), fresh);
        enabled(&mut host);
        // It stopped it, and could not disable it.
        host.call::<TeardownHca>(|_| {}).unwrap();
        enabled(&mut host);
        // It did not come as far as to start it.
        host.call::<EnableHca>(|_| {}).unwrap();
        enabled(&mut host);
        // It started it, failed then, and disabled it at once, as Linux does.
        host.call::<AllocPd>(|_| {}).unwrap();
        host.call::<DisableHca>(|_| {}).unwrap();
        assert_eq!(left(&host), (0, 0));
        refused(host.call::<AllocPd>(|_| {}), Refusal::NotEnabled);
        enabled(&mut host);
    }
}

#[test]
fn capabilities_are_chosen_below_the_largest() {
    let mut host = host("cx7");
    host.call::<EnableHca>(|_| {}).unwrap();
    let mut set = |group: CapType, log_max_qp| {
        let mut wanted = host.capability(CapType::GENERAL, false).unwrap();
        let mut general = CmdHcaCap::split(&wanted).unwrap().0.clone();
        general.set_log_max_qp(log_max_qp);
        wanted[..general.as_bytes().len()].copy_from_slice(general.as_bytes());
        host.call::<SetHcaCap>(|input| {
            input.set_op_mod((group as u16) << 1);
            input.capability_mut().copy_from_slice(&wanted);
        })
    };
    refused(set(CapType::GENERAL, 19), Refusal::CapabilityTooLarge);
    refused(set(CapType::VDPA_EMULATION, 18), Refusal::CapabilitiesFixed);
    set(CapType::GENERAL, 12).unwrap();
    for (current, log_max_qp) in [(true, 12), (false, 18)] {
        let general = host.capability(CapType::GENERAL, current).unwrap();
        let (general, _) = CmdHcaCap::split(&general).unwrap();
        assert_eq!(general.log_max_qp(), log_max_qp);
    }
    refused(
        host.capability(CapType::ODP, true),
        Refusal::UnknownCapabilities,
    );
}

#[test]
fn user_contexts_are_for_firmware_that_has_them() {
    let mut minimal = started("minimal");
    let mut create = |cap| {
        minimal.call::<CreateUctx>(|input| {
            input.uctx_mut().set_cap(cap);
        })
    };
    refused(create(2), Refusal::UctxNotAllowed);
    let uid = create(1).unwrap().uid();
    assert_ne!(uid, 0);
    // Commands are on behalf of one that is there, or of the driver; not each may be its.
    fn alloc(host: &mut Host, uid: u16) -> Result<(), Failure> {
        let done = host.call::<AllocPd>(|input| {
            input.set_uid(uid);
        });
        done.map(drop)
    }
    alloc(&mut minimal, uid).unwrap();
    refused(alloc(&mut minimal, uid + 1), Refusal::NeverMade(""));
    refused(
        minimal.call::<CreateUmem>(|_| {}).map(drop),
        Refusal::UctxNeeded,
    );
    minimal
        .call::<DestroyUctx>(|input| {
            input.set_uid(uid);
        })
        .unwrap();
    refused(alloc(&mut minimal, uid), Refusal::Destroyed(""));
    refused(
        started("cx7").call::<CreateUctx>(|_| {}),
        Refusal::UctxNotAllowed,
    );
    refused(
        started("minimal").call::<AllocQCounter>(|_| {}),
        Refusal::NoResources,
    );
}

#[test]
fn a_profile_says_how_many_there_are() {
    let mut host = started("cx7");
    let mut table = |level| {
        host.call::<CreateFlowTable>(|input| {
            input.set_table_type(FlowTableType::NIC_RX);
            input.flow_table_context_mut().set_level(level);
        })
    };
    table(79).unwrap();
    refused(table(80), Refusal::FlowTableLevel);
    host.call::<AllocFlowCounter>(|_| {}).unwrap();
    refused(
        started("minimal").call::<AllocFlowCounter>(|_| {}),
        Refusal::NoResources,
    );
}

#[test]
fn the_board_has_a_name() {
    let mut host = started("cx7");
    let adapter = host.call::<QueryAdapter>(|_| {}).unwrap();
    let psid = adapter.query_adapter_struct().vsd_contd_psid();
    assert_eq!(psid, b"MT_0000000891\0\0\0");
}

#[test]
fn the_port_remembers_what_it_is_told() {
    let mut host = started("cx7");
    let state = host.call::<QueryVportState>(|_| {}).unwrap();
    assert_eq!(state.state(), Ok(VportState::UP));
    let mut entry = MacAddressLayout::new();
    entry.set_address([2, 0, 0, 0, 0, 9]);
    let mut input = ModifyNicVportContextIn::new();
    input
        .field_select_mut()
        .set_mtu(true)
        .set_promisc(true)
        .set_addresses_list(true);
    input
        .nic_vport_context_mut()
        .set_mtu(9000)
        .set_promisc_mc(true)
        .set_allowed_list_size(1);
    host.execute::<ModifyNicVportContext>(&input, entry.as_bytes(), 0)
        .unwrap();
    let query = QueryNicVportContextIn::new();
    let (output, list) = host
        .execute::<QueryNicVportContext>(&query, &[], 8)
        .unwrap();
    let context = output.nic_vport_context();
    assert_eq!(context.mtu(), 9000);
    assert!(context.promisc_mc() && !context.promisc_uc());
    assert_eq!(context.allowed_list_size(), 1);
    assert_eq!(list, entry.as_bytes());

    // A multicast address is none for this list, and nothing else changes with it.
    entry.set_address([3, 0, 0, 0, 0, 9]);
    input.nic_vport_context_mut().set_mtu(1500);
    let wrong = host.execute::<ModifyNicVportContext>(&input, entry.as_bytes(), 0);
    refused(wrong, Refusal::NotOfVport);
    refused(
        host.execute::<ModifyNicVportContext>(&input, &[], 0),
        Refusal::ListTooShort,
    );
    input.nic_vport_context_mut().set_allowed_list_size(129);
    refused(
        host.execute::<ModifyNicVportContext>(&input, &[0; 8 * 129], 0),
        Refusal::TooManyAddresses,
    );
    input.nic_vport_context_mut().set_mtu(20_000);
    refused(
        host.execute::<ModifyNicVportContext>(&input, &[], 0),
        Refusal::MtuOutOfRange,
    );
    let multicast = host.call::<QueryNicVportContext>(|input| {
        input.set_allowed_list_type(AllowedListType::MC);
    });
    let multicast = multicast.unwrap();
    assert_eq!(multicast.nic_vport_context().mtu(), 9000);
    assert_eq!(multicast.nic_vport_context().allowed_list_size(), 0);

    let other = host.call::<QueryVportState>(|input| {
        input.set_other_vport(true);
    });
    refused(other, Refusal::OtherVport);
}

#[test]
fn registers_are_read() {
    let mut host = started("cx7");
    let mut read = |register: u16, access| {
        let mut input = AccessRegisterIn::new();
        input.set_op_mod(access).set_register_id(register);
        let room = PmtuReg::INFO.bytes;
        host.execute::<AccessRegister>(&input, &[], room)
            .map(|(_, register)| register)
    };
    let pmtu = read(RegisterId::PMTU as u16, RegisterAccess::READ).unwrap();
    let (pmtu, _) = PmtuReg::split(&pmtu).unwrap();
    assert_eq!(pmtu.oper_mtu(), pmtu.max_mtu());
    refused(read(0x1234, RegisterAccess::READ), Refusal::UnknownRegister);
    let write = read(RegisterId::PMTU as u16, RegisterAccess::WRITE);
    refused(write, Refusal::RegisterReadOnly);
}
