// SPDX-License-Identifier: GPL-2.0

//! The machine as its real callers drive it: QEMU over vhost-vdpa, virtio_vdpa in the kernel, and
//! an administrator.

use super::{device, LEGACY, MODERN, OFFERED};
use crate::byte_order::ByteOrder;
use crate::features::Features;
use crate::lifecycle::{
    status, Actions, Config, ConfigWrite, Driver, Event, Kick, Legacy, LegacySupport, Lifecycle,
    QueueSet, Refusal, RefusalKind, MAX_QUEUES,
};
use crate::net;

const RX: u16 = 0;
const TX: u16 = 1;
const CTRL: u16 = 2;

fn ok(device: &mut Lifecycle, event: Event) -> Actions {
    match device.handle(event) {
        Ok(actions) => {
            assert_eq!(actions.refused, None, "{event:?}");
            actions
        }
        Err(refusal) => panic!("{event:?}: {refusal}"),
    }
}

fn set(queues: &[u16]) -> QueueSet {
    queues.iter().fold(QueueSet::EMPTY, |set, &queue| {
        set.union(QueueSet::one(queue))
    })
}

/// QEMU starts the device for a guest whose driver acknowledged these features.
fn qemu_starts(device: &mut Lifecycle, features: Features) {
    ok(device, Event::SetFeatures(features));
    ok(device, Event::SetStatus(status::FEATURES_OK));
    assert_eq!(device.status(), status::FEATURES_OK);
    for queue in [RX, TX] {
        for _ in ["NUM", "BASE", "ADDR"] {
            ok(device, Event::Configure(queue));
        }
        // The guest kicked long before; its eventfd is signalled when it is handed over.
        assert_eq!(device.kick(queue), Kick::Latch);
    }
    ok(device, Event::Configure(CTRL));
    ok(device, Event::Mapped(true));
    let actions = ok(device, Event::SetStatus(0xc));
    assert_eq!(device.status(), 0xc);
    assert!(actions.start.is_empty());
    let actions = ok(device, Event::SetReady(CTRL, true));
    assert_eq!(actions.start, set(&[CTRL]));
    for queue in [RX, TX] {
        assert_eq!(device.kick(queue), Kick::Latch);
        let actions = ok(device, Event::SetReady(queue, true));
        assert_eq!(
            (actions.start, actions.kick),
            (set(&[queue]), set(&[queue]))
        );
        assert_eq!(device.kick(queue), Kick::Deliver);
    }
}

/// QEMU finds out what the device can do, before there is a guest.
fn qemu_probes(device: &mut Lifecycle) {
    ok(device, Event::SetFeatures(Features::NONE));
    ok(device, Event::SetStatus(3));
    let offered = device.offered();
    ok(device, Event::SetFeatures(offered));
    ok(device, Event::SetStatus(0xb));
    assert_eq!(device.status(), 0xb);
    ok(device, Event::SetStatus(0));
    assert_eq!(device.config_write(), ConfigWrite::ApplyUnlessProvisioned);
    ok(device, Event::Reset);
}

#[test]
fn one_device_serves_legacy_and_modern_guests_in_turn() {
    let mut device = device(3);
    qemu_probes(&mut device);
    for features in [LEGACY, MODERN, LEGACY] {
        qemu_starts(&mut device, features);
        let legacy = features == LEGACY;
        let driver = if legacy {
            Driver::Legacy
        } else {
            Driver::Modern
        };
        assert_eq!(device.driver(), Some(driver));
        assert_eq!(device.features().legacy(), legacy);
        assert_eq!(
            device.features().contains(Features::ACCESS_PLATFORM),
            !legacy
        );
        let write = if legacy {
            ConfigWrite::Apply
        } else {
            ConfigWrite::Ignore
        };
        assert_eq!(device.config_write(), write);

        let actions = ok(&mut device, Event::Suspend);
        assert!(actions.halt);
        assert_eq!(actions.stop, set(&[RX, TX, CTRL]));
        assert_eq!(device.kick(TX), Kick::Latch);
        ok(&mut device, Event::StopDone);
        assert_eq!(device.status(), 0xc, "a call that waits shows nothing");
        ok(&mut device, Event::Reset);
        ok(&mut device, Event::SetStatus(3));
        assert_eq!(device.driver(), None);
        ok(&mut device, Event::SetStatus(0));
    }
}

#[test]
fn a_legacy_driver_needs_no_features_ok() {
    let mut device = device(2);
    ok(&mut device, Event::Mapped(true));
    assert_eq!(device.kick(RX), Kick::Latch);
    ok(&mut device, Event::SetReady(RX, true));
    let actions = ok(&mut device, Event::SetStatus(status::DRIVER_OK));
    assert_eq!((actions.start, actions.kick), (set(&[RX]), set(&[RX])));
    assert_eq!(device.driver(), Some(Driver::Legacy));
    assert_eq!(device.kick(TX), Kick::Latch);
}

#[test]
fn reading_the_configuration_first_decides_nothing() {
    let mut device = device(2);
    for _ in 0..3 {
        ok(&mut device, Event::SetFeatures(Features::NONE));
        assert_eq!(device.driver(), None);
    }
    ok(&mut device, Event::SetFeatures(LEGACY));
    ok(&mut device, Event::SetFeatures(Features::NONE));
    assert_eq!(device.acknowledged(), Features::NONE);
    ok(&mut device, Event::SetFeatures(MODERN));
    ok(&mut device, Event::SetStatus(0xb));
    assert_eq!(device.driver(), Some(Driver::Modern));
    let late = device.handle(Event::SetFeatures(Features::NONE));
    assert_eq!(late, Err(Refusal::FeaturesFixed));
    ok(&mut device, Event::SetFeatures(MODERN));
}

#[test]
fn virtio_vdpa_enables_queues_first() {
    let mut device = device(2);
    ok(&mut device, Event::Reset);
    ok(&mut device, Event::SetStatus(1));
    ok(&mut device, Event::SetStatus(3));
    ok(&mut device, Event::SetFeatures(MODERN));
    ok(&mut device, Event::SetStatus(0xb));
    for queue in [RX, TX] {
        assert!(!device.ready(queue));
        ok(&mut device, Event::Configure(queue));
        assert!(ok(&mut device, Event::SetReady(queue, true))
            .start
            .is_empty());
    }
    let actions = ok(&mut device, Event::SetStatus(0xf));
    assert_eq!(actions.start, set(&[RX, TX]));
    // It disables them one by one after a reset.
    assert_eq!(ok(&mut device, Event::Reset).stop, set(&[RX, TX]));
    assert_eq!(ok(&mut device, Event::SetReady(RX, false)), Actions::NONE);
}

#[test]
fn physical_addresses_without_a_map_are_refused() {
    for features in [net::features::MAC, Features::VERSION_1] {
        let mut device = device(2);
        ok(&mut device, Event::SetFeatures(features));
        ok(&mut device, Event::SetStatus(0xb));
        let actions = device.handle(Event::SetStatus(0xf)).unwrap();
        assert_eq!(actions.refused, Some(Refusal::NoMap));
        assert!(actions.start.is_empty());
        assert_eq!(device.status(), 0xb | status::NEEDS_RESET);
        assert_eq!(device.kick(RX), Kick::Drop);

        ok(&mut device, Event::Reset);
        ok(&mut device, Event::Mapped(true));
        ok(&mut device, Event::SetFeatures(features));
        ok(&mut device, Event::SetStatus(0xf));
        assert_eq!(device.status(), 0xf);
    }
}

#[test]
fn features_not_offered_are_refused_but_for_the_one_vmms_force() {
    let mut device = Lifecycle::new(Config {
        queues: 2,
        offered: OFFERED - Features::ACCESS_PLATFORM,
        required: Features::NONE,
        legacy: true,
        big_endian: false,
        check: net::features::check,
    });
    ok(&mut device, Event::SetFeatures(MODERN));
    let refusal = device.handle(Event::SetFeatures(MODERN | Features::IN_ORDER));
    assert_eq!(refusal, Err(Refusal::NotOffered(Features::IN_ORDER)));
    assert_eq!(refusal.unwrap_err().kind(), RefusalKind::Invalid);
    assert_eq!(device.acknowledged(), MODERN);
}

#[test]
fn features_that_make_no_sense_leave_features_ok_clear() {
    let mut device = device(2);
    ok(&mut device, Event::SetFeatures(MODERN | net::features::MQ));
    let actions = device.handle(Event::SetStatus(0xb)).unwrap();
    assert!(matches!(actions.refused, Some(Refusal::Unmet(_))));
    assert_eq!((device.status(), device.driver()), (3, None));
    // The driver may try again with less.
    ok(&mut device, Event::SetFeatures(MODERN));
    ok(&mut device, Event::SetStatus(0xb));
    assert_eq!(device.status(), 0xb);
}

#[test]
fn features_that_the_platform_needs_are_insisted_on() {
    let mut device = Lifecycle::new(Config {
        queues: 2,
        offered: OFFERED | Features::ORDER_PLATFORM,
        required: Features::ORDER_PLATFORM,
        legacy: true,
        big_endian: false,
        check: net::features::check,
    });
    for features in [LEGACY, MODERN] {
        ok(&mut device, Event::SetFeatures(features));
        let actions = device.handle(Event::SetStatus(0xb)).unwrap();
        assert_eq!(
            actions.refused,
            Some(Refusal::Required(Features::ORDER_PLATFORM))
        );
        assert_eq!(device.status(), 3);
    }
}

#[test]
fn the_administrator_lets_in_whom_he_likes() {
    let mut device = device(2);
    assert_eq!(device.legacy_support(), LegacySupport::AnyEndian);

    ok(&mut device, Event::SetLegacy(Legacy::Off));
    assert_eq!(device.legacy_support(), LegacySupport::None);
    assert_eq!(
        device.handle(Event::SetFeatures(LEGACY)),
        Err(Refusal::LegacyOff)
    );
    ok(&mut device, Event::SetFeatures(Features::NONE));
    ok(&mut device, Event::SetFeatures(MODERN));
    ok(&mut device, Event::SetStatus(status::FEATURES_OK));
    assert!(device.handle(Event::SetLegacy(Legacy::Allow)).is_err());

    ok(&mut device, Event::Reset);
    ok(&mut device, Event::SetLegacy(Legacy::Require));
    assert!(device.offered().legacy());
    assert_eq!(
        device.handle(Event::SetFeatures(MODERN)),
        Err(Refusal::LegacyRequired)
    );
    ok(&mut device, Event::SetFeatures(LEGACY));
    ok(&mut device, Event::SetStatus(status::DRIVER_OK));
    assert_eq!(device.driver(), Some(Driver::Legacy));
}

#[test]
fn a_driver_that_is_not_let_in_any_more_is_refused_at_the_next_step() {
    for (features, legacy, refusal) in [
        (LEGACY, Legacy::Off, Refusal::LegacyOff),
        (MODERN, Legacy::Require, Refusal::LegacyRequired),
    ] {
        for step in [status::FEATURES_OK, status::DRIVER_OK] {
            let mut device = device(2);
            ok(&mut device, Event::SetFeatures(features));
            ok(&mut device, Event::SetLegacy(legacy));
            let actions = device.handle(Event::SetStatus(step | 3)).unwrap();
            assert_eq!(actions.refused, Some(refusal));
            assert_eq!(device.status() & step, 0);
            assert_eq!(device.driver(), None);
        }
    }
}

#[test]
fn a_device_that_serves_one_kind_of_driver_stays_so() {
    let config = device(2).config;
    let mut modern = Lifecycle::new(Config {
        legacy: false,
        big_endian: false,
        ..config
    });
    assert_eq!(modern.legacy(), Legacy::Off);
    assert_eq!(modern.legacy_support(), LegacySupport::None);
    for legacy in [Legacy::Allow, Legacy::Require] {
        let refusal = modern.handle(Event::SetLegacy(legacy)).unwrap_err();
        assert_eq!(refusal, Refusal::NoLegacy);
        assert_eq!(refusal.kind(), RefusalKind::Unsupported);
        assert!(refusal.lasts());
    }
    ok(&mut modern, Event::SetLegacy(Legacy::Off));

    let mut old = Lifecycle::new(Config {
        offered: OFFERED - Features::VERSION_1,
        ..config
    });
    assert_eq!(old.legacy(), Legacy::Allow);
    let refusal = old.handle(Event::SetLegacy(Legacy::Off)).unwrap_err();
    assert_eq!(refusal, Refusal::NoModern);
    assert_eq!(refusal.kind(), RefusalKind::Unsupported);
    ok(&mut old, Event::SetLegacy(Legacy::Require));
    ok(&mut old, Event::SetLegacy(Legacy::Allow));
}

#[test]
fn byte_order_is_the_legacy_drivers_alone() {
    let mut device = device(2);
    ok(&mut device, Event::SetByteOrder(ByteOrder::Big));
    assert_eq!(
        device.config_byte_order(),
        ByteOrder::Little,
        "nobody knows yet"
    );
    ok(&mut device, Event::SetFeatures(MODERN));
    ok(&mut device, Event::SetStatus(0xf));
    assert_eq!(device.config_byte_order(), ByteOrder::Little);
    assert_eq!(device.queue_byte_order(RX), ByteOrder::Little);
    let late = device.handle(Event::SetByteOrder(ByteOrder::Little));
    assert_eq!(late.unwrap_err().kind(), RefusalKind::Busy);

    ok(&mut device, Event::Reset);
    ok(&mut device, Event::SetFeatures(LEGACY));
    assert_eq!(device.config_byte_order(), ByteOrder::Big);
    ok(&mut device, Event::SetQueueByteOrder(TX, ByteOrder::Little));
    ok(&mut device, Event::SetStatus(0xf));
    assert_eq!(device.queue_byte_order(RX), ByteOrder::Big);
    assert_eq!(device.queue_byte_order(TX), ByteOrder::Little);
    assert_eq!(device.legacy_queue_byte_order(TX), ByteOrder::Little);
    // The device's own is as it was set, and goes for what is no virtqueue.
    assert_eq!(device.legacy_byte_order(), ByteOrder::Big);
    assert_eq!(device.legacy_queue_byte_order(2), ByteOrder::Big);
}

#[test]
fn big_endian_is_refused_early_where_it_cannot_be_served() {
    let mut device = Lifecycle::new(Config {
        big_endian: false,
        ..device(2).config
    });
    assert_eq!(device.legacy_support(), LegacySupport::LittleEndian);
    let refusal = device
        .handle(Event::SetByteOrder(ByteOrder::Big))
        .unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Unsupported);
    assert!(refusal.lasts());
    ok(&mut device, Event::SetByteOrder(ByteOrder::Little));
}

/// A device of two queues that runs both.
fn running() -> Lifecycle {
    let mut device = device(2);
    ok(&mut device, Event::SetFeatures(MODERN));
    for queue in [RX, TX] {
        ok(&mut device, Event::SetReady(queue, true));
    }
    ok(&mut device, Event::SetStatus(0xf));
    device
}

#[test]
fn stop_is_shown_when_it_is_done_and_resume_goes_on() {
    for by_call in [true, false] {
        let mut device = running();
        let actions = ok(&mut device, Event::SetStatus(0x1f));
        assert!(actions.halt);
        assert_eq!(actions.stop, set(&[RX, TX]));
        assert_eq!(device.status(), 0xf);
        assert_eq!(device.handle(Event::Configure(RX)), Err(Refusal::Stopping));
        assert_eq!(device.handle(Event::ConfigChange), Err(Refusal::Stopping));

        assert!(ok(&mut device, Event::StopDone).notify_config);
        assert_eq!(device.status(), 0x1f);
        assert_eq!(device.handle(Event::ConfigChange), Err(Refusal::Stopped));
        assert_eq!(device.config_write(), ConfigWrite::Ignore);
        assert_eq!(device.kick(TX), Kick::Latch);
        ok(&mut device, Event::Configure(RX));
        ok(&mut device, Event::SetReady(TX, false));
        // Adding bits, as in-kernel drivers do, keeps the device stopped.
        ok(&mut device, Event::SetStatus(0x9f));
        assert!(device.stopped());

        let resume = if by_call {
            Event::Resume
        } else {
            Event::SetStatus(0x8f)
        };
        let actions = ok(&mut device, resume);
        assert_eq!((actions.start, actions.kick), (set(&[RX]), set(&[RX])));
        assert_eq!(device.status(), 0x8f);
        let actions = ok(&mut device, Event::SetReady(TX, true));
        assert_eq!((actions.start, actions.kick), (set(&[TX]), set(&[TX])));
    }
}

#[test]
fn a_stop_that_failed_is_told_and_blocks_the_next_until_it_was_seen() {
    for by_call in [true, false] {
        let mut device = running();
        ok(&mut device, Event::SetStatus(0x1f));
        let actions = ok(&mut device, Event::StopFailed);
        assert!(actions.notify_config);
        assert_eq!(
            (actions.start, actions.kick),
            (set(&[RX, TX]), set(&[RX, TX]))
        );
        assert_eq!(device.status(), 0x2f);
        assert_eq!(ok(&mut device, Event::SetStatus(0x3f)), Actions::NONE);
        assert_eq!(device.handle(Event::Suspend), Err(Refusal::StopFailed));

        let seen = if by_call {
            Event::Resume
        } else {
            Event::SetStatus(0xf)
        };
        assert_eq!(ok(&mut device, seen), Actions::NONE);
        assert_eq!(device.status(), 0xf);
        assert!(ok(&mut device, Event::SetStatus(0x1f)).halt);
    }
}

#[test]
fn stops_and_resumes_at_the_wrong_time_are_refused() {
    let mut device = device(2);
    assert_eq!(device.handle(Event::Suspend), Err(Refusal::NotRunning));
    assert_eq!(device.handle(Event::Resume), Err(Refusal::NotRunning));
    assert_eq!(device.handle(Event::StopDone), Err(Refusal::NotRunning));
    ok(&mut device, Event::SetStatus(0x13));
    assert_eq!(device.status(), 3, "there is nothing to stop");

    let mut device = running();
    ok(&mut device, Event::Suspend);
    assert_eq!(device.handle(Event::Suspend), Err(Refusal::Stopping));
    assert_eq!(device.handle(Event::Resume), Err(Refusal::Stopping));
    // The reset comes in between; the late outcome means nothing any more.
    ok(&mut device, Event::Reset);
    assert_eq!(device.handle(Event::StopDone), Err(Refusal::NotRunning));

    let mut device = running();
    ok(&mut device, Event::Suspend);
    ok(&mut device, Event::StopDone);
    assert_eq!(ok(&mut device, Event::Suspend), Actions::NONE);
    // A stop by status of a device that a call has stopped only has to be shown.
    assert!(ok(&mut device, Event::SetStatus(0x1f)).notify_config);
    assert_eq!(device.status(), 0x1f);
}

#[test]
fn a_broken_device_says_so_once_and_waits_for_a_reset() {
    let mut device = running();
    let actions = ok(&mut device, Event::Fault);
    assert!(actions.notify_config);
    assert_eq!(actions.stop, set(&[RX, TX]));
    assert_eq!(device.status(), 0x4f);
    assert_eq!(ok(&mut device, Event::Fault), Actions::NONE);
    assert_eq!(device.handle(Event::Suspend), Err(Refusal::Broken));
    assert!(ok(&mut device, Event::SetStatus(0xcf)).start.is_empty());
    assert!(ok(&mut device, Event::SetReady(RX, true)).start.is_empty());
    ok(&mut device, Event::Reset);
    assert_eq!(device.status(), 0);
}

#[test]
fn only_driver_ok_begins() {
    let mut device = device(3);
    ok(&mut device, Event::SetFeatures(MODERN));
    ok(&mut device, Event::Mapped(true));
    ok(&mut device, Event::SetReady(RX, true));
    let actions = ok(&mut device, Event::SetStatus(0xf));
    assert!(actions.begin && actions.start == set(&[RX]));
    let actions = ok(&mut device, Event::SetReady(TX, true));
    assert!(!actions.begin && actions.start == set(&[TX]));
    ok(&mut device, Event::Suspend);
    ok(&mut device, Event::StopDone);
    let actions = ok(&mut device, Event::Resume);
    assert!(!actions.begin && actions.start == set(&[RX, TX]));
}

#[test]
fn a_start_that_failed_takes_driver_ok_back() {
    let mut device = running();
    let actions = ok(&mut device, Event::StartFailed);
    assert_eq!(actions.stop, set(&[RX, TX]));
    assert_eq!(device.status(), 0xb | status::NEEDS_RESET);
}

#[test]
fn queues_that_are_not_there_are_refused() {
    let mut device = device(2);
    for event in [
        Event::SetReady(2, true),
        Event::Configure(u16::MAX),
        Event::SetQueueByteOrder(2, ByteOrder::Big),
    ] {
        assert!(matches!(device.handle(event), Err(Refusal::NoSuchQueue(_))));
    }
    assert_eq!(device.kick(2), Kick::Drop);
    let many = Lifecycle::new(Config {
        queues: u16::MAX,
        ..device.config
    });
    assert_eq!(many.queues(), MAX_QUEUES);
}
