// SPDX-License-Identifier: GPL-2.0

//! Interrupts of a device.

use kernel::{
    bindings,
    cpumask::Cpumask,
    device::{
        self,
        Bound, //
    },
    devres::Devres,
    error::to_result,
    irq::{
        self,
        Flags,
        IrqRequest,
        IrqReturn, //
    },
    pci::{
        self,
        IrqType,
        IrqTypes,
        IrqVectorRegistration, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::Device;

/// What is done when a vector is raised.
pub trait Handler: Send + Sync + 'static {
    /// The vector was raised. Called with interrupts off, never twice at once for one vector.
    fn interrupt(&self);
}

/// The MSI-X vectors that a device was given.
pub struct Vectors {
    registration: Devres<IrqVectorRegistration<'static>>,
    len: u16,
    device: Arc<Device>,
}

impl Vectors {
    /// Allocates between `least` and `most` vectors of `pdev`, which is `device`: that it is bound for
    /// the length of the call is what the type says. Whoever knows only by [`Device::bound`] may be
    /// late: what the device was given to keep is being released then, and nothing can be added.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is another device, `ENOSPC` if there are too few vectors, `ENOMEM`, and what C
    /// reports.
    pub fn new(
        device: &Arc<Device>,
        pdev: &pci::Device<Bound>,
        least: u16,
        most: u16,
    ) -> Result<Arc<Self>> {
        if !device.is(pdev) {
            return Err(EINVAL);
        }
        // SAFETY: The registration is dropped at the latest when the device is unbound, which is
        // what `Devres` is for.
        let lasting = unsafe { lasting(pdev) };
        let types = IrqTypes::default().with(IrqType::MsiX);
        let registration = lasting.alloc_irq_vectors(least.into(), most.into(), types)?;
        let len = u16::try_from(registration.len())?;
        let this = Self {
            registration: Devres::new(pdev.as_ref(), Ok::<_, Error>(registration)?)?,
            len,
            device: device.clone(),
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is one at least")]
    pub fn len(&self) -> u16 {
        self.len
    }
}

/// Forgets that a device may be unbound.
///
/// # Safety
///
/// What is made of the reference must be gone before the device is unbound.
unsafe fn lasting(pdev: &pci::Device<Bound>) -> &'static pci::Device<Bound> {
    let pdev: *const pci::Device<Bound> = pdev;
    // SAFETY: By the function requirements.
    unsafe { &*pdev }
}

/// Has an interrupt of `dev` raised on a processor of its own, as far as there are enough.
fn spread(dev: &device::Device<Bound>, irq: u32, index: u16) {
    let dev: *const device::Device<Bound> = dev;
    // Where it cannot be chosen, it is raised on any.
    // SAFETY: `device::Device` is transparent; the device is valid, and the interrupt its own.
    let _ =
        unsafe { vdpa_bindings::rust_vdpa_irq_spread(dev.cast_mut().cast(), irq, index.into()) };
}

/// Calls the handler, which others have too.
struct Shared<H: Handler>(Arc<H>);

impl<H: Handler> irq::Handler for Shared<H> {
    fn handle(&self) -> IrqReturn {
        self.0.interrupt();
        IrqReturn::Handled
    }
}

/// A vector with its handler, which is not called any more when this value was dropped.
///
/// To be dropped where one may sleep: a handler that runs is waited for.
///
/// What its device is given to keep is released in reverse order, and so is this: whoever relies on
/// the handler to the last is given to the device after it.
pub struct Vector<H: Handler> {
    _registration: Devres<irq::Registration<'static, Shared<H>>>,
    index: u16,
    irq: u32,
    /// Dropped after the handler.
    vectors: Arc<Vectors>,
}

impl<H: Handler> Vector<H> {
    /// Has vector `index` of `pdev` call `handler`. Vectors are spread over the processors, from those
    /// near the device on; that can be changed as for any interrupt.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such vector, or it is another device; `ENOMEM`, and what C reports.
    pub fn new(
        vectors: &Arc<Vectors>,
        pdev: &pci::Device<Bound>,
        index: u16,
        name: &'static CStr,
        handler: Arc<H>,
    ) -> Result<Self> {
        if index >= vectors.len || !vectors.device.is(pdev) {
            return Err(EINVAL);
        }
        let registered: *const IrqVectorRegistration<'static> =
            vectors.registration.access(pdev.as_ref())?;
        // SAFETY: The vectors are there for longer than what is made of this reference: it is gone
        // at the latest when the device is unbound, which is what `Devres` is for; and before the
        // vectors are: those were given to the device before it, and are kept by `vectors`
        // otherwise.
        let registered = unsafe { &*registered };
        let request: IrqRequest<'static> = registered.index(index.into())?.into();
        let irq = request.irq();
        // SAFETY: The registration is not leaked: `Devres` drops it.
        let registration = unsafe {
            irq::Registration::new(
                request,
                Flags::TRIGGER_NONE,
                name,
                Ok::<_, Error>(Shared(handler)),
            )
        };
        let registration = Devres::new(pdev.as_ref(), registration)?;
        spread(pdev.as_ref(), irq, index);
        Ok(Self {
            _registration: registration,
            index,
            irq,
            vectors: vectors.clone(),
        })
    }

    /// The number of the interrupt in the system.
    pub fn irq(&self) -> u32 {
        self.irq
    }

    /// Has the interrupt raised on processors of `mask`; on one of the driver's choice with `None`,
    /// as it was at first.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not bound any more, and what C reports where it cannot be chosen.
    pub fn set_affinity(&self, mask: Option<&Cpumask>) -> Result {
        self.vectors.device.bound(|pdev| {
            let Some(mask) = mask else {
                spread(pdev.as_ref(), self.irq, self.index);
                return Ok(());
            };
            // SAFETY: The device is bound, and so the interrupt its own; the mask is copied.
            to_result(unsafe { bindings::irq_set_affinity(self.irq, mask.as_raw()) })
        })
    }

    /// Waits until a handler that runs has returned. Not to be called by the handler, nor with a lock
    /// held that it takes.
    pub fn synchronize(&self) {
        // SAFETY: Any number may be asked for: where there is no such interrupt, none is waited for.
        unsafe { bindings::synchronize_irq(self.irq) };
    }
}
