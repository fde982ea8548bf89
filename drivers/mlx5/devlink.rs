// SPDX-License-Identifier: GPL-2.0

//! What devlink shows of a function, and a reporter of its firmware's health.

use hardware::devlink::{
    Devlink,
    Info,
    Operations,
    Report, //
};
use kernel::{
    device::Bound,
    new_mutex,
    pci,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

use crate::{
    hca::{
        Client,
        Era,
        Function,
        Membership,
        Stage, //
    },
    show::Show,
};

/// What a function says of itself.
struct Card(Arc<Function>);

/// A text of something that is shown.
fn text(what: impl core::fmt::Display) -> Result<CString> {
    CString::try_from_fmt(fmt!("{}", Show(what)))
}

impl Operations for Card {
    const REPORTER: &'static CStr = c"fw";

    fn info(&self, info: &mut Info<'_>) -> Result {
        let device = self.0.device();
        // Who has none says nothing.
        if let Ok(serial) = device.serial_number() {
            info.serial_number(&serial)?;
        }
        if let Ok(serial) = device.board_serial_number() {
            info.board_serial_number(&serial)?;
        }
        let condition = self.0.condition();
        info.fixed(c"fw.psid", &text(condition.board)?)?;
        if condition.stage == Stage::Running {
            let version = text(condition.version)?;
            info.running(c"fw.version", &version)?;
            info.running(c"fw", &version)?;
        }
        Ok(())
    }

    fn recover(&self) -> Result {
        self.0.revive()
    }

    fn is_well(&self) -> Result<bool> {
        match self.0.condition().stage {
            Stage::Running => Ok(true),
            Stage::Ended => Err(ENODEV),
            _ => Ok(false),
        }
    }

    fn diagnose(&self, report: &mut Report<'_>) -> Result {
        let condition = self.0.condition();
        report.text(c"stage", &text(condition.stage)?);
        report.number(c"lives", condition.lives);
        if let Some(death) = condition.death {
            report.text(c"last death", &text(death)?);
        }
        report.number(c"syndrome", condition.reading.syndrome.into());
        report.number(c"counter", condition.reading.counter.into());
        Ok(())
    }
}

/// Tells devlink of the firmware's death and life.
#[pin_data]
struct Reporter {
    function: Arc<Function>,
    /// `None` behind the end.
    #[pin]
    devlink: Mutex<Option<Devlink<Card>>>,
    /// Whether a death was told of.
    ill: Atomic<bool>,
}

impl Client for Reporter {
    fn died(&self) {
        let condition = self.function.condition();
        if condition.stage == Stage::Paused {
            return;
        }
        let why = condition.death.map(text).transpose().ok().flatten();
        let why = why.as_deref().unwrap_or(c"the firmware died");
        if let Some(devlink) = &*self.devlink.lock() {
            self.ill.store(true, Relaxed);
            if !devlink.ill(why) {
                self.function.hold();
            }
        }
    }

    fn lives(&self, _era: &Arc<Era>) {
        if self.ill.xchg(false, Relaxed) {
            if let Some(devlink) = &*self.devlink.lock() {
                devlink.well();
            }
        }
    }
}

/// A function that devlink knows, until this is dropped.
pub(crate) struct Known {
    /// Dropped first: nobody reports any more.
    _membership: Membership,
    reporter: Arc<Reporter>,
}

impl Known {
    /// Makes a function known.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(pdev: &pci::Device<Bound>, function: &Arc<Function>) -> Result<Self> {
        let card = Arc::new(Card(function.clone()), GFP_KERNEL)?;
        let devlink = Devlink::new(pdev, card)?;
        let reporter = Arc::pin_init(
            pin_init!(Reporter {
                function: function.clone(),
                devlink <- new_mutex!(Some(devlink)),
                ill: Atomic::new(false),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self {
            _membership: function.join(reporter.clone())?,
            reporter,
        })
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let devlink = self.reporter.devlink.lock().take();
        drop(devlink);
    }
}
