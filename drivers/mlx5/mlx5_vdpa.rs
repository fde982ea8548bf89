// SPDX-License-Identifier: GPL-2.0

//! vDPA devices of ConnectX virtual functions.
//!
//! The driver has the whole function, from its PCI registers up; `mlx5_core` is not needed. It is
//! for virtual functions of ConnectX-6 Dx and later ([`FUNCTIONS`]).
//!
//! Other drivers want the same functions: `mlx5_core`, to make network interfaces of them, and
//! `vfio-pci`, to hand them to virtual machines. So this one leaves a function alone unless it is
//! told to take it:
//!
//! * by name, function for function. That is also the only way to take one from another driver:
//!
//!   ```sh
//!   echo rust_mlx5_vdpa > /sys/bus/pci/devices/0000:03:00.2/driver_override
//!   echo 0000:03:00.2 > /sys/bus/pci/drivers_probe
//!   ```
//!
//! * by the module's parameter `claim`, all that no driver has, where this host has no other use
//!   for them.
//!
//! Everything of the hardware is below [`hca`].

use kernel::{
    device::Core,
    new_mutex,
    pci,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use vdpa::{
    mgmt::{
        self,
        Attached, //
    },
    worker::Stay, //
};

mod devlink;
mod hca;
mod net;
mod show;
mod views;

module! {
    type: Module,
    name: "rust_mlx5_vdpa",
    authors: ["The rust-vdpa project"],
    description: "vDPA devices of ConnectX virtual functions",
    license: "GPL",
    params: {
        claim: bool {
            default: false,
            description: "Take all virtual functions that no driver has, not only those with a driver_override",
        },
        command_timeout_ms: u32 {
            default: 60000,
            description: "Milliseconds after which a firmware command is given up (100 to 600000)",
        },
    },
}

/// What this driver is called, wherever a name is asked for.
const NAME: &CStr = c"rust_mlx5_vdpa";

/// The module: its PCI driver.
#[pin_data]
struct Module {
    #[pin]
    driver: kernel::driver::Registration<hardware::Adapter<Driver>>,
    /// What debugfs shows of functions.
    _views: hardware::Views,
    /// For the threads of functions; dropped when the driver has none any more.
    _stay: Stay,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // In this order: functions are bound while the driver is registered.
        try_pin_init!(Self {
            _stay: Stay::new(),
            _views: hardware::Views::new(NAME),
            driver <- kernel::driver::Registration::new(
                <Self as kernel::ModuleMetadata>::NAME,
                module,
            ),
        })
    }
}

/// The virtual functions by their PCI device id; the name is that of the family.
///
/// From ConnectX-6 Dx on all virtual functions have the same id.
const FUNCTIONS: [(u32, &str); 1] = [(0x101e, "ConnectX-6 Dx or later")];

kernel::pci_device_table!(
    TABLE,
    <Driver as pci::Driver>::IdInfo,
    [(
        pci::DeviceId::from_id(pci::Vendor::MELLANOX, FUNCTIONS[0].0),
        ()
    )]
);

/// The PCI driver, and what it has of a function.
#[pin_data]
struct Driver {
    /// Where devices are added; none if the function cannot be one.
    #[pin]
    management: Mutex<Option<Attached<net::Manager>>>,
    /// What the administrator sees of it.
    #[pin]
    shown: Mutex<Option<Shown>>,
    function: Arc<hca::Function>,
}

/// What the administrator sees of a function.
struct Shown {
    _devlink: devlink::Known,
    _files: Option<Pin<KBox<views::Files>>>,
}

impl Driver {
    fn bring_up(pdev: &pci::Device<Core<'_>>) -> Result<Arc<hca::Function>> {
        let chosen = hardware::Device::is_chosen(pdev);
        if !chosen && !*module_parameters::claim.value_ref() {
            // Not an error: the core asks drivers one after the other.
            return Err(ENODEV);
        }
        let device = u32::from(pdev.device_id());
        if pdev.vendor_id() != pci::Vendor::MELLANOX
            || !FUNCTIONS.iter().any(|(id, _)| *id == device)
        {
            dev_err!(
                pdev,
                "{:#x} is no virtual function of {}\n",
                device,
                FUNCTIONS[0].1
            );
            return Err(ENODEV);
        }
        let timeout = (*module_parameters::command_timeout_ms.value_ref()).clamp(100, 600_000);
        hca::bring_up(pdev, timeout)
    }

    fn manage(
        pdev: &pci::Device<Core<'_>>,
        function: &Arc<hca::Function>,
    ) -> Result<Option<Attached<net::Manager>>> {
        // Why there can be no device is in the log.
        let Ok((manager, attributes)) = net::Manager::new(function) else {
            return Ok(None);
        };
        mgmt::attach(pdev.as_ref(), attributes, manager).map(Some)
    }
}

impl Shown {
    fn new(pdev: &pci::Device<Core<'_>>, function: &Arc<hca::Function>) -> Result<Self> {
        Ok(Self {
            _devlink: devlink::Known::new(pdev, function)?,
            _files: views::Files::new(function)?,
        })
    }
}

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = Self;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        try_pin_init!(Self {
            function: Self::bring_up(pdev)?,
            shown <- new_mutex!(Some(Shown::new(pdev, function)?)),
            management <- new_mutex!(Self::manage(pdev, function)?),
        })
    }

    fn unbind<'bound>(_pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        // Here, and not when the data are dropped: the device is still the driver's in all respects,
        // with its memory mapped for it and its bridges awake.
        let management = this.management.lock().take();
        // Waits for the users of devices.
        drop(management);
        this.function.end();
        let shown = this.shown.lock().take();
        drop(shown);
    }
}

impl hardware::Driver for Driver {
    fn pause(this: Pin<&Self::Data<'_>>) {
        this.function.pause();
    }

    fn resume(this: Pin<&Self::Data<'_>>) {
        this.function.resume();
    }

    fn shutdown(this: Pin<&Self::Data<'_>>) {
        this.function.shutdown();
    }
}
