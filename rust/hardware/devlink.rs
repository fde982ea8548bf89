// SPDX-License-Identifier: GPL-2.0

//! A device's instance of devlink: what it is, and how it is.
//!
//! C header: [`include/net/devlink.h`](srctree/include/net/devlink.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings::{
        self,
        netlink_ext_ack, //
    },
    device::{
        self,
        Bound, //
    },
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    io::poll::read_poll_timeout,
    pci,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc, //
    },
    time::Delta, //
};
use vdpa_bindings::{
    devlink,
    devlink_fmsg,
    devlink_health_reporter,
    devlink_health_reporter_ops,
    devlink_info_req,
    devlink_ops, //
    DEVLINK_HEALTH_REPORTER_STATE_HEALTHY as HEALTHY,
};

/// What a driver says of its device, and does for it.
///
/// All of it may sleep, and is called with the instance's lock held, by which [`Devlink::drop`] waits
/// for it: what it waits for must not wait for that.
pub trait Operations: Send + Sync + 'static {
    /// The name of the reporter of the device's health.
    const REPORTER: &'static CStr;

    /// Says what the device is.
    ///
    /// # Errors
    ///
    /// As the functions of [`Info`].
    fn info(&self, info: &mut Info<'_>) -> Result;

    /// Begins to have the device recover, which was [ill](Devlink::ill): the administrator asks for
    /// it. Does not wait for the end.
    ///
    /// # Errors
    ///
    /// Whatever is in the way.
    fn recover(&self) -> Result;

    /// Whether the device has recovered.
    ///
    /// # Errors
    ///
    /// What it is that says it will not.
    fn is_well(&self) -> Result<bool>;

    /// Says how the device is.
    ///
    /// # Errors
    ///
    /// Whatever is in the way.
    fn diagnose(&self, report: &mut Report<'_>) -> Result;
}

/// What a device is, to be filled in.
pub struct Info<'a> {
    request: *mut devlink_info_req,
    lent: PhantomData<&'a mut devlink_info_req>,
}

impl Info<'_> {
    /// The serial number of the device.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room.
    pub fn serial_number(&mut self, serial: &CStr) -> Result {
        // SAFETY: The request is valid for the lifetime of this value; the string is copied.
        to_result(unsafe {
            vdpa_bindings::devlink_info_serial_number_put(self.request, serial.as_char_ptr())
        })
    }

    /// The serial number of the board that the device is on.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room.
    pub fn board_serial_number(&mut self, serial: &CStr) -> Result {
        // SAFETY: As in `serial_number`.
        to_result(unsafe {
            vdpa_bindings::devlink_info_board_serial_number_put(self.request, serial.as_char_ptr())
        })
    }

    /// A version that cannot change.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room.
    pub fn fixed(&mut self, what: &CStr, version: &CStr) -> Result {
        // SAFETY: As in `serial_number`.
        to_result(unsafe {
            vdpa_bindings::devlink_info_version_fixed_put(
                self.request,
                what.as_char_ptr(),
                version.as_char_ptr(),
            )
        })
    }

    /// The version of something that runs.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if there is no room.
    pub fn running(&mut self, what: &CStr, version: &CStr) -> Result {
        // SAFETY: As in `serial_number`.
        to_result(unsafe {
            vdpa_bindings::devlink_info_version_running_put(
                self.request,
                what.as_char_ptr(),
                version.as_char_ptr(),
            )
        })
    }
}

/// How a device is, to be filled in. What there is no room for is missing; devlink sees that by
/// itself.
pub struct Report<'a> {
    message: *mut devlink_fmsg,
    lent: PhantomData<&'a mut devlink_fmsg>,
}

impl Report<'_> {
    /// A text.
    pub fn text(&mut self, name: &CStr, value: &CStr) {
        // SAFETY: The message is valid for the lifetime of this value; the strings are copied.
        unsafe {
            vdpa_bindings::devlink_fmsg_string_pair_put(
                self.message,
                name.as_char_ptr(),
                value.as_char_ptr(),
            )
        };
    }

    /// A number.
    pub fn number(&mut self, name: &CStr, value: u64) {
        // SAFETY: As in `text`.
        unsafe {
            vdpa_bindings::devlink_fmsg_u64_pair_put(self.message, name.as_char_ptr(), value)
        };
    }
}

/// What C has a pointer to.
struct Shared<T: Operations> {
    operations: Arc<T>,
    /// The administrator has the device recover.
    recovering: Atomic<bool>,
    /// An illness is being reported.
    reporting: Atomic<bool>,
}

impl<T: Operations> Shared<T> {
    /// Has the device recover, and waits for that.
    fn wait(&self) -> Result {
        self.operations.recover()?;
        read_poll_timeout(
            || {
                if self.reporting.load(Acquire) {
                    // Who reports waits for the lock that is held here.
                    return Err(EAGAIN);
                }
                self.operations.is_well()
            },
            |is_well| *is_well,
            STEP,
            PATIENCE,
        )
        .map(drop)
    }
}

/// How long a recovery is waited for that the administrator asked for, and how often it is looked
/// at. The device may need longer, and says so by itself then.
const PATIENCE: Delta = Delta::from_secs(10);
const STEP: Delta = Delta::from_millis(20);

/// The private data of an instance.
struct Private<T: Operations>(*const Shared<T>);

/// A registered instance. Dropped, it is gone, and nothing of [`Operations`] runs any more.
pub struct Devlink<T: Operations> {
    devlink: NonNull<devlink>,
    reporter: NonNull<devlink_health_reporter>,
    shared: Arc<Shared<T>>,
}

// SAFETY: What is done with an instance and its reporter may be done by any task.
unsafe impl<T: Operations> Send for Devlink<T> {}
// SAFETY: As above; who reports does so one at a time, as its functions ask for.
unsafe impl<T: Operations> Sync for Devlink<T> {}

impl<T: Operations> Devlink<T> {
    const OPS: devlink_ops = devlink_ops {
        info_get: Some(Self::info_get),
        // SAFETY: All other fields are operations, none of which is there then, and masks.
        ..unsafe { core::mem::zeroed() }
    };

    const HEALTH: devlink_health_reporter_ops = devlink_health_reporter_ops {
        name: T::REPORTER.to_bytes_with_nul().as_ptr().cast_mut().cast(),
        recover: Some(Self::recover),
        dump: None,
        diagnose: Some(Self::diagnose),
        test: None,
        default_graceful_period: 0,
        default_burst_period: 0,
    };

    /// Registers an instance for `pdev`, whose driver drops it before the device is unbound.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(pdev: &pci::Device<Bound>, operations: Arc<T>) -> Result<Self> {
        // They live as long as the module's code.
        let (ops, health): (&'static devlink_ops, &'static devlink_health_reporter_ops) =
            (&Self::OPS, &Self::HEALTH);
        let shared = Arc::new(
            Shared {
                operations,
                recovering: Atomic::new(false),
                reporting: Atomic::new(false),
            },
            GFP_KERNEL,
        )?;
        let dev: &device::Device<Bound> = pdev.as_ref();
        let dev: *const device::Device<Bound> = dev;
        // SAFETY: `device::Device` is transparent; the device is valid and has a driver. C takes a
        // reference to it.
        let devlink = unsafe {
            vdpa_bindings::devlink_alloc_ns(
                ops,
                size_of::<Private<T>>(),
                &raw mut bindings::init_net,
                dev.cast_mut().cast(),
            )
        };
        let devlink = NonNull::new(devlink).ok_or(ENOMEM)?;
        let data: *const Shared<T> = &*shared;
        // SAFETY: The instance is valid, and has as much room, which is aligned for any pointer.
        unsafe {
            vdpa_bindings::devlink_priv(devlink.as_ptr())
                .cast::<Private<T>>()
                .write(Private(data))
        };
        // SAFETY: The instance is valid. The data live until the reporter is gone: `drop`.
        let reporter = from_err_ptr(unsafe {
            vdpa_bindings::devlink_health_reporter_create(
                devlink.as_ptr(),
                health,
                data.cast_mut().cast(),
            )
        })
        .and_then(|reporter| NonNull::new(reporter).ok_or(ENOMEM))
        .inspect_err(|_| {
            // SAFETY: The instance was not registered, and is not used after this.
            unsafe { vdpa_bindings::devlink_free(devlink.as_ptr()) }
        })?;
        // SAFETY: The instance is valid, and everything it has is there.
        unsafe { vdpa_bindings::devlink_register(devlink.as_ptr()) };
        Ok(Self {
            devlink,
            reporter,
            shared,
        })
    }

    /// The device fell ill. Returns whether it is to recover by itself: the administrator may have
    /// reserved that.
    ///
    /// One at a time, nor at once with [`Self::well`]. May sleep.
    pub fn ill(&self, why: &CStr) -> bool {
        let mut wanted = false;
        // From here on nobody waits for a recovery with the lock that this takes.
        self.shared.reporting.store(true, Release);
        // SAFETY: The reporter is there until this value is dropped; `recover` gets the pointer while
        // this call lasts.
        unsafe {
            vdpa_bindings::devlink_health_report(
                self.reporter.as_ptr(),
                why.as_char_ptr(),
                (&raw mut wanted).cast(),
            )
        };
        self.shared.reporting.store(false, Release);
        wanted
    }

    /// The device recovered.
    ///
    /// One at a time, nor at once with [`Self::ill`].
    pub fn well(&self) {
        let reporter = self.reporter.as_ptr();
        // Whom the administrator asked for it counts by himself.
        if !self.shared.recovering.load(Relaxed) {
            // SAFETY: The reporter is there until this value is dropped.
            unsafe { vdpa_bindings::devlink_health_reporter_recovery_done(reporter) };
        }
        // SAFETY: As above.
        unsafe { vdpa_bindings::devlink_health_reporter_state_update(reporter, HEALTHY) };
    }

    /// # Safety
    ///
    /// For C to call, as an operation of such an instance.
    unsafe extern "C" fn info_get(
        devlink: *mut devlink,
        request: *mut devlink_info_req,
        _extack: *mut netlink_ext_ack,
    ) -> c_int {
        from_result(|| {
            // SAFETY: C calls this for a registered instance, the private data of which were written
            // before, and which `drop` waits for.
            let shared =
                unsafe { &*(*vdpa_bindings::devlink_priv(devlink).cast::<Private<T>>()).0 };
            let mut info = Info {
                request,
                lent: PhantomData,
            };
            shared.operations.info(&mut info)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For C to call, with a reporter of such an instance.
    unsafe fn shared<'a>(reporter: *mut devlink_health_reporter) -> &'a Shared<T> {
        // SAFETY: The data are what the reporter was made with, and there until it is gone.
        unsafe { &*vdpa_bindings::devlink_health_reporter_priv(reporter).cast::<Shared<T>>() }
    }

    /// # Safety
    ///
    /// For C to call, as an operation of such an instance.
    unsafe extern "C" fn recover(
        reporter: *mut devlink_health_reporter,
        context: *mut c_void,
        _extack: *mut netlink_ext_ack,
    ) -> c_int {
        from_result(|| {
            if !context.is_null() {
                // SAFETY: It is the context that `ill` passes, which waits for this.
                unsafe { *context.cast::<bool>() = true };
                // The driver is at it, and says when it is done.
                return Err(EINPROGRESS);
            }
            // SAFETY: C calls this for a reporter of ours.
            let shared = unsafe { Self::shared(reporter) };
            shared.recovering.store(true, Release);
            let result = shared.wait();
            shared.recovering.store(false, Release);
            result.map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// For C to call, as an operation of such an instance.
    unsafe extern "C" fn diagnose(
        reporter: *mut devlink_health_reporter,
        message: *mut devlink_fmsg,
        _extack: *mut netlink_ext_ack,
    ) -> c_int {
        from_result(|| {
            // SAFETY: C calls this for a reporter of ours.
            let shared = unsafe { Self::shared(reporter) };
            let mut report = Report {
                message,
                lent: PhantomData,
            };
            shared.operations.diagnose(&mut report)?;
            Ok(0)
        })
    }
}

impl<T: Operations> Drop for Devlink<T> {
    fn drop(&mut self) {
        // SAFETY: All of it is there, and not used after this. Unregistering waits for operations.
        unsafe {
            vdpa_bindings::devlink_unregister(self.devlink.as_ptr());
            vdpa_bindings::devlink_health_reporter_destroy(self.reporter.as_ptr());
            vdpa_bindings::devlink_free(self.devlink.as_ptr());
        }
    }
}
