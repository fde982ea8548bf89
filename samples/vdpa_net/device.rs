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
    ops::VqState,
    Device,
    Operations,
    Stats,
    Worker, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    lifecycle::{
        Event,
        Legacy,
        LegacySupport,
        Lifecycle, //
    },
    net::config,
    ring::State, //
};

use crate::{
    control::Controller,
    machine::Machine,
    port::{
        GROUP_CONTROL,
        GROUP_DATA,
        GROUP_RINGS, //
    },
    queue::MAX_SIZE,
    stats::Kind,
    switch::Switch, //
};

/// Vendor id of the devices; software has none.
const VENDOR_ID: u32 = 0;

/// A software virtio-net device.
#[pin_data(PinnedDrop)]
pub(crate) struct NetDevice {
    machine: Arc<Machine>,
    switch: Arc<Switch>,
    #[pin]
    control: Mutex<Option<Worker>>,
}

impl NetDevice {
    /// Creates a device around `machine`, with its control worker.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or no thread can be made.
    pub(crate) fn new(
        machine: Arc<Machine>,
        switch: Arc<Switch>,
        port: Arc<crate::port::Port>,
    ) -> Result<Arc<Self>> {
        let name = CString::try_from_fmt(fmt!("{}-ctrl", port.name()))?;
        let work = Controller::new(port.clone(), machine.clone())?;
        let worker = Worker::new(&name, work)?;
        machine.set_control(worker.handle());
        port.set_control(worker.handle());
        Arc::pin_init(
            pin_init!(Self {
                machine,
                switch,
                control <- new_mutex!(Some(worker)),
            }),
            GFP_KERNEL,
        )
    }

    /// Ends the device, which is no longer on the bus. May be called again.
    pub(crate) fn end(&self) {
        self.switch.disconnect(self.machine.port().number());
        self.machine.end();
        let worker = self.control.lock().take();
        // Waits for its turn.
        drop(worker);
    }

    /// What executes the lifecycle's decisions.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    fn kind(&self, index: u16) -> Kind {
        if self.machine.is_control(index) {
            Kind::Control
        } else if index % 2 == 0 {
            Kind::Receive
        } else {
            Kind::Transmit
        }
    }

    /// Reports what an operation that cannot fail could not do.
    fn ignored(&self, what: &str, result: Result) {
        if let Err(error) = result {
            let name = self.machine.port().name();
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
    const SOFTWARE: bool = true;

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
            Ok(size @ 1..=MAX_SIZE) => dev.machine.configure(index, |setup| setup.size = size),
            _ => Err(EINVAL),
        };
        dev.ignored("virtqueue size", result);
    }

    fn kick_vq(dev: &Device<Self>, index: u16) {
        dev.machine.kick(index);
    }

    fn kick_vq_with_data(dev: &Device<Self>, index: u16, _next: u16) {
        // The worker reads the index from the ring; that a kick carries it too saves nothing.
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
        let state = if dev.machine.is_packed() {
            State::packed(state.avail, state.used)
        } else {
            State::split(state.avail)
        };
        dev.machine.configure(index, |setup| setup.restore(state))
    }

    fn get_vq_state(dev: &Device<Self>, index: u16) -> Result<VqState> {
        Ok(match dev.machine.state(index) {
            State::Split { avail, .. } => VqState::split(avail),
            State::Packed { avail, used } => VqState::packed(avail.bits(), used.bits()),
        })
    }

    fn get_vendor_vq_stats(dev: &Device<Self>, index: u16, stats: &mut Stats<'_>) -> Result {
        let queue = dev.machine.port().queue(index).ok_or(EINVAL)?;
        dev.kind(index)
            .each(&queue.stats.get(), |name, value| stats.put(name, value))
    }

    fn get_vq_size(_dev: &Device<Self>, _index: u16) -> u16 {
        MAX_SIZE
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

    fn get_vq_desc_group(dev: &Device<Self>, index: u16) -> u32 {
        if dev.machine.is_control(index) {
            GROUP_CONTROL
        } else {
            GROUP_RINGS
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
        dev.machine.set_features(Features::from_bits(features))
    }

    fn get_driver_features(dev: &Device<Self>) -> u64 {
        dev.machine.ask(|life| life.acknowledged().bits())
    }

    fn get_vq_num_max(_dev: &Device<Self>) -> u16 {
        MAX_SIZE
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

    fn set_status(dev: &Device<Self>, status: u8) {
        let mapped = dev.machine.port().is_mapped();
        let mut turn = dev.machine.turn();
        let result = turn
            .event(Event::Mapped(mapped))
            .and_then(|()| turn.event(Event::SetStatus(status)));
        drop(turn);
        dev.ignored("status", result);
    }

    fn reset(dev: &Device<Self>) -> Result {
        dev.machine.event(Event::Reset)
    }

    fn suspend(dev: &Device<Self>) -> Result {
        dev.machine.event(Event::Suspend)?;
        if dev.machine.ask(|life| life.stopped()) {
            Ok(())
        } else {
            Err(ETIMEDOUT)
        }
    }

    fn resume(dev: &Device<Self>) -> Result {
        dev.machine.event(Event::Resume)
    }

    fn get_config_size(_dev: &Device<Self>) -> usize {
        config::SIZE
    }

    fn get_config(dev: &Device<Self>, offset: usize, to: &mut [u8]) {
        let order = dev.machine.ask(|life| life.config_byte_order());
        let settings = dev.machine.port().settings.lock();
        settings.config.read(offset, to, order);
    }

    fn set_config(dev: &Device<Self>, offset: usize, from: &[u8]) {
        let how = dev.machine.ask(|life| life.config_write());
        let mut settings = dev.machine.port().settings.lock();
        // The filter looks at the address in the configuration space.
        let changed = settings.config.write(offset, from, how).is_some();
        drop(settings);
        if changed {
            dev.machine.note_address();
        }
    }

    fn get_generation(dev: &Device<Self>) -> u32 {
        dev.machine.port().settings.lock().config.generation()
    }

    fn set_vq_affinity(dev: &Device<Self>, index: u16, mask: Option<&Cpumask>) -> Result {
        dev.machine.set_affinity(index, mask)
    }
}
