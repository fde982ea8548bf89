// SPDX-License-Identifier: GPL-2.0

//! The device on the vDPA bus.

use kernel::{
    cpumask::Cpumask,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use vdpa::{
    executor::Execute,
    memory::Snapshot,
    ops::VqState,
    worker::Worker,
    Device,
    NotificationArea,
    Operations,
    Setup,
    Stats, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    lifecycle::{
        status,
        Config,
        Event,
        Legacy,
        LegacySupport,
        Lifecycle, //
    },
    net::{
        config,
        features,
        MacAddress, //
    }, //
};

use super::{
    control::Controller,
    machine::{
        Inner,
        Machine,
        Parts,
        GROUP_CONTROL,
        GROUP_DATA,
        GROUP_RINGS, //
    },
    mgmt::Place,
    objects::{
        Objects,
        SIZE, //
    },
    offer::Offer,
    port,
    relay::Relays,
    trouble::Trouble,
    view::{
        Calls,
        Queues,
        QueuesFile, //
    },
    watch::{
        Alarm,
        Watch, //
    }, //
};
use crate::{
    hca::{
        Function,
        Membership, //
    },
    show::Show, //
};

/// The vendor of the hardware: Mellanox.
const VENDOR_ID: u32 = 0x15b3;

/// A network device of a function.
#[pin_data(PinnedDrop)]
pub(crate) struct NetDevice {
    machine: Arc<Machine>,
    calls: Arc<Calls>,
    /// What ends before the device's data do.
    #[pin]
    running: Mutex<Option<Running>>,
}

/// What a device has while it is on the bus.
struct Running {
    /// What debugfs shows of its virtqueues.
    file: Option<QueuesFile>,
    /// Among who is told of the firmware's death and life.
    membership: Membership,
    /// Looks at what happens by itself.
    watch: Worker,
    /// Serves the control queue.
    control: Worker,
    /// Its place among the devices of the function.
    place: Place,
}

impl NetDevice {
    /// Makes a device called `name` of a function, which offers what `offer` says. `setup` is what
    /// the bus will have of it.
    ///
    /// # Errors
    ///
    /// `ENODEV` while the firmware is dead; what a command that failed is as a number, which is in
    /// the log; `EINVAL`, `ENOMEM`, and what C reports if no thread can be made.
    #[inline(never)]
    pub(crate) fn new(
        name: &CStr,
        function: &Arc<Function>,
        place: Place,
        offer: &Offer,
        setup: &Setup,
    ) -> Result<Arc<Self>> {
        let era = function.era().ok_or(ENODEV)?;
        let device: &hardware::Device = function.device();
        let doorbell = era.doorbell().ok_or(EINVAL)?.clone();
        let callbacks = setup.callbacks();
        let spaces = setup.spaces().ok_or(EINVAL)?;

        let alarm = Alarm::new()?;
        let relays = Relays::new(offer.pairs, callbacks, spaces, doorbell, alarm.clone())?;
        let mut vectors = KVec::with_capacity((2 * offer.pairs).into(), GFP_KERNEL)?;
        for index in 0..2 * offer.pairs {
            let mut vector = function.take_vector();
            if era.capabilities().msix_mode() {
                vector.serve(relays.clone(), index)?;
            }
            vectors.push(vector, GFP_KERNEL)?;
        }
        let (objects, port, legacy) = Objects::new(&era, offer, &vectors, &relays, &alarm, None)
            .inspect_err(|failure| {
                dev_err!(device, "{}: not made: {}\n", name, Show(failure));
            })?;
        let life = Lifecycle::new(Config {
            queues: offer.queues(),
            offered: offer.features,
            required: Features::NONE,
            legacy,
            // By relays, to which the hardware is a little-endian legacy device.
            big_endian: legacy,
            check: features::check,
        });
        if !legacy && offer.legacy != Legacy::Off {
            dev_info!(device, "{}: the firmware serves no legacy drivers\n", name);
        }

        function.has_served();
        let machine = Machine::new(Parts {
            name: CString::try_from(name)?,
            relays,
            life,
            offer: *offer,
            config: port::config(offer, &port),
            objects,
            mtu: port.mtu,
            vectors,
            alarm: alarm.clone(),
            function: function.clone(),
        })?;
        let thread = CString::try_from_fmt(fmt!("{}-ctrl", name))?;
        let control = Worker::new(&thread, Controller::new(machine.clone())?)?;
        machine.set_control(control.handle());
        let thread = CString::try_from_fmt(fmt!("{}-watch", name))?;
        let watch = Arc::new(Watch(machine.clone()), GFP_KERNEL)?;
        let watch = Worker::new(&thread, watch)?;
        alarm.set_handle(watch.handle());
        let membership = function.join(alarm.clone())?;
        // What happened before is not told of.
        alarm.ring();
        let calls = Calls::new(offer.queues())?;
        let queues = Queues {
            machine: machine.clone(),
            calls: calls.clone(),
        };
        let file = function
            .dir()
            .map(|dir| queues.show(&dir.subdir(name)))
            .transpose()?;
        let running = Running {
            file,
            membership,
            watch,
            control,
            place,
        };
        Arc::pin_init(
            pin_init!(Self {
                machine,
                calls,
                running <- new_mutex!(Some(running)),
            }),
            GFP_KERNEL,
        )
    }

    /// Ends the device, which is no longer on the bus. May be called again.
    pub(crate) fn end(&self) {
        let running = self.running.lock().take();
        let Some(Running {
            file,
            membership,
            watch,
            control,
            place,
        }) = running
        else {
            return;
        };
        drop(file);
        drop(membership);
        // These wait for their turns: nothing is made anew behind the end.
        drop(watch);
        drop(control);
        self.machine.end();
        drop(place);
    }

    /// Takes a MAC address from the administrator.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is stopped; what a command that failed is as a number. The address
    /// is that of before then.
    pub(crate) fn set_mac(&self, mac: MacAddress) -> Result {
        let mut turn = self.machine.turn();
        // The driver is told at the end of the turn.
        turn.event(Event::ConfigChange)?;
        self.move_address(&mut turn, mac)?;
        self.machine.settings().lock().config.set_mac(mac);
        Ok(())
    }

    /// Takes an MTU from the administrator.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is stopped.
    pub(crate) fn set_mtu(&self, mtu: u16) -> Result {
        let mut turn = self.machine.turn();
        turn.event(Event::ConfigChange)?;
        self.machine.settings().lock().config.set_mtu(mtu);
        Ok(())
    }

    /// Takes a write to the configuration space. An address that comes with it is shown when frames
    /// for it are received.
    fn write_config(&self, offset: usize, from: &[u8]) -> Result {
        let mut turn = self.machine.turn();
        let how = self.machine.ask(Lifecycle::config_write);
        // Only who has a turn changes it.
        let mut config = self.machine.settings().lock().config.clone();
        if let Some(mac) = config.write(offset, from, how) {
            self.move_address(&mut turn, mac).inspect_err(|_| {
                // It came byte by byte maybe, and what is there of it is an address of nobody.
                let config = &mut self.machine.settings().lock().config;
                config.set_driver_mac(config.mac());
            })?;
        }
        self.machine.settings().lock().config = config;
        Ok(())
    }

    /// Has frames for the address `mac` received, if a driver runs.
    fn move_address(&self, inner: &mut Inner, mac: MacAddress) -> Result {
        let moved = self.machine.move_address(inner, mac);
        moved.map_err(|trouble| {
            self.machine.warn(&trouble);
            Error::from(trouble)
        })
    }

    /// Makes an address space what `map` says, and has queues that run use that.
    fn set_map(&self, asid: u32, map: Snapshot) -> Result {
        let mut turn = self.machine.turn();
        let before = turn.map.want(asid, map)?;
        self.machine.alarm().ring_later();
        let moving = self.machine.moving(&turn);
        if moving.is_empty() || !turn.map.concerns_hardware(asid) {
            return Ok(());
        }
        let mut replaced = None;
        let result = self.machine.remap(&mut turn, moving, &mut replaced);
        result.map_err(|trouble: Trouble| {
            self.machine.warn(&trouble);
            // The VMM is told that it is not mapped. There is room for what was there before.
            let _ = turn.map.want(asid, before);
            // A fault is never refused.
            let _ = turn.event(Event::Fault);
            Error::from(trouble)
        })
        // The keys of before end here, when no queue uses them.
    }

    /// Reports what an operation that cannot fail could not do.
    fn ignored(&self, what: &str, result: Result) {
        if let Err(error) = result {
            let name = self.machine.name();
            pr_debug!("{}: {} refused ({})\n", name, what, error.to_errno());
        }
    }
}

#[pinned_drop]
impl PinnedDrop for NetDevice {
    fn drop(self: Pin<&mut Self>) {
        // A device that could not be registered.
        self.end();
    }
}

#[vtable]
impl Operations for NetDevice {
    fn set_vq_address(
        dev: &Device<Self>,
        index: u16,
        desc: u64,
        driver: u64,
        device: u64,
    ) -> Result {
        dev.machine.configure(index, |setup| {
            setup.desc = desc;
            setup.driver = driver;
            setup.device = device;
        })
    }

    fn set_vq_num(dev: &Device<Self>, index: u16, num: u32) {
        let result = match u16::try_from(num) {
            Ok(size @ 1..=SIZE) => dev.machine.configure(index, |setup| setup.size = size),
            _ => Err(EINVAL),
        };
        dev.ignored("virtqueue size", result);
    }

    fn kick_vq(dev: &Device<Self>, index: u16) {
        dev.calls.add(index);
        dev.machine.kick(index);
    }

    fn set_vq_ready(dev: &Device<Self>, index: u16, ready: bool) {
        let result = dev.machine.event(Event::SetReady(index, ready));
        dev.ignored("virtqueue enable", result);
    }

    fn get_vq_ready(dev: &Device<Self>, index: u16) -> bool {
        dev.machine.ask(|life| life.ready(index))
    }

    fn set_vq_state(dev: &Device<Self>, index: u16, state: VqState) -> Result {
        dev.machine
            .configure(index, |setup| setup.index = Some(state.avail))
    }

    fn get_vq_state(dev: &Device<Self>, index: u16) -> Result<VqState> {
        dev.machine.index(index).map(VqState::split)
    }

    fn get_vendor_vq_stats(dev: &Device<Self>, index: u16, stats: &mut Stats<'_>) -> Result {
        if dev.machine.is_control(index) {
            stats.refuse(c"the control queue is served in software, which does not count");
            return Err(EOPNOTSUPP);
        }
        dev.machine
            .count(index, |name, value| stats.put(name, value))
    }

    fn get_vq_irq(dev: &Device<Self>, index: u16) -> Option<u32> {
        // Who asks although the device did not start would never be told that it stopped.
        let runs = dev
            .machine
            .ask(|life| life.status() & status::DRIVER_OK != 0);
        if !runs || dev.machine.is_control(index) || dev.machine.is_to_relay(index) {
            return None;
        }
        dev.machine.vector(index)?.irq()
    }

    fn get_vq_notification(dev: &Device<Self>, index: u16) -> NotificationArea<'_> {
        dev.machine.doorbell_page(index).unwrap_or_default()
    }

    fn hears_doorbell(dev: &Device<Self>, index: u16) -> bool {
        // Which one the driver serves itself depends on how many pairs the guest's knows of. What
        // is relayed the hardware has nothing of to look at.
        !dev.machine.is_control(index) && !dev.machine.is_to_relay(index)
    }

    fn get_vq_align(_dev: &Device<Self>) -> u32 {
        // Of legacy rings, which are one piece of memory.
        PAGE_SIZE as u32
    }

    fn get_vq_group(dev: &Device<Self>, index: u16) -> u32 {
        if dev.machine.is_control(index) {
            GROUP_CONTROL
        } else {
            GROUP_DATA
        }
    }

    fn get_device_features(dev: &Device<Self>) -> u64 {
        dev.machine.ask(|life| life.offered().bits())
    }

    fn get_backend_features(_dev: &Device<Self>) -> u64 {
        vdpa::ENABLE_AFTER_DRIVER_OK
    }

    fn get_legacy_support(dev: &Device<Self>) -> LegacySupport {
        dev.machine.ask(Lifecycle::legacy_support)
    }

    fn get_legacy(dev: &Device<Self>) -> Legacy {
        dev.machine.ask(Lifecycle::legacy)
    }

    fn set_legacy(dev: &Device<Self>, legacy: Legacy) -> Result {
        dev.machine.event(Event::SetLegacy(legacy))
    }

    fn get_byte_order(dev: &Device<Self>, index: Option<u16>) -> ByteOrder {
        dev.machine.ask(|life| match index {
            Some(index) => life.legacy_queue_byte_order(index),
            None => life.legacy_byte_order(),
        })
    }

    fn set_byte_order(dev: &Device<Self>, index: Option<u16>, order: ByteOrder) -> Result {
        dev.machine.event(match index {
            Some(index) => Event::SetQueueByteOrder(index, order),
            None => Event::SetByteOrder(order),
        })
    }

    fn set_driver_features(dev: &Device<Self>, features: u64) -> Result {
        dev.machine
            .event(Event::SetFeatures(Features::from_bits(features)))
    }

    fn get_driver_features(dev: &Device<Self>) -> u64 {
        dev.machine.ask(|life| life.acknowledged().bits())
    }

    fn get_vq_num_max(_dev: &Device<Self>) -> u16 {
        SIZE
    }

    fn get_device_id(_dev: &Device<Self>) -> u32 {
        vdpa::ID_NET
    }

    fn get_vendor_id(_dev: &Device<Self>) -> u32 {
        VENDOR_ID
    }

    fn get_status(dev: &Device<Self>) -> u8 {
        dev.machine.ask(|life| life.status())
    }

    fn set_status(dev: &Device<Self>, value: u8) {
        let before = dev.machine.ask(|life| life.status());
        let begins = value & !before & status::DRIVER_OK != 0;
        if begins {
            // For a driver that was here before maybe. Nobody else waits with this.
            dev.machine.function().wait_anew();
        }
        let mut turn = dev.machine.turn();
        if begins {
            dev.machine.catch_up(&mut turn);
        }
        turn.user = dev.user();
        let mapped = turn.map.has_user_map();
        let result = turn
            .event(Event::Mapped(mapped))
            .and_then(|()| turn.event(Event::SetStatus(value)));
        drop(turn);
        dev.ignored("status", result);
    }

    fn reset(dev: &Device<Self>) -> Result {
        dev.machine.event(Event::Reset)
    }

    fn compat_reset(dev: &Device<Self>, clean_map: bool) -> Result {
        dev.machine.event(Event::Reset)?;
        if clean_map {
            for asid in 0..dev.asids() {
                dev.set_map(asid, Snapshot::EMPTY)?;
            }
        }
        Ok(())
    }

    fn suspend(dev: &Device<Self>) -> Result {
        dev.machine.event(Event::Suspend)?;
        if dev.machine.ask(|life| life.stopped()) {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    fn resume(dev: &Device<Self>) -> Result {
        dev.machine.event(Event::Resume)?;
        if dev.machine.ask(|life| life.broken()) {
            Err(EIO)
        } else {
            Ok(())
        }
    }

    fn get_config_size(_dev: &Device<Self>) -> usize {
        config::SIZE
    }

    fn get_config(dev: &Device<Self>, offset: usize, to: &mut [u8]) {
        let order = dev.machine.ask(|life| life.config_byte_order());
        let settings = dev.machine.settings().lock();
        settings.config.read(offset, to, order);
    }

    fn set_config(dev: &Device<Self>, offset: usize, from: &[u8]) {
        let result = dev.write_config(offset, from);
        dev.ignored("configuration", result);
    }

    fn get_generation(dev: &Device<Self>) -> u32 {
        dev.machine.settings().lock().config.generation()
    }

    fn set_vq_affinity(dev: &Device<Self>, index: u16, mask: Option<&Cpumask>) -> Result {
        if dev.machine.is_control(index) {
            return Ok(());
        }
        dev.machine
            .vector(index)
            .map_or(Ok(()), |vector| vector.set_affinity(mask))
    }

    fn set_map(dev: &Device<Self>, asid: u32, map: &Snapshot) -> Result {
        NetDevice::set_map(dev, asid, map.clone())
    }

    fn reset_map(dev: &Device<Self>, asid: u32) -> Result {
        NetDevice::set_map(dev, asid, Snapshot::EMPTY)
    }

    fn set_group_asid(dev: &Device<Self>, group: u32, asid: u32) -> Result {
        let mut turn = dev.machine.turn();
        turn.map.set_group(group, asid);
        if group == GROUP_DATA {
            turn.map.set_group(GROUP_RINGS, asid);
        }
        Ok(())
    }
}
