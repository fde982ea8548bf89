// SPDX-License-Identifier: GPL-2.0

//! What debugfs shows of a function, in `rust_mlx5_vdpa/<PCI address>`.

use core::fmt;

use kernel::{
    debugfs::{
        File,
        Writer, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::hca::Function;

/// How it is.
struct Health(Arc<Function>);

impl Writer for Health {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.condition())
    }
}

/// What became of its commands.
struct Commands(Arc<Function>);

impl Writer for Commands {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.tally().commands(f)
    }
}

/// What there is in its firmware.
struct Objects(Arc<Function>);

impl Writer for Objects {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.tally().objects(f)
    }
}

/// The files of a function, which are gone when this is.
#[pin_data]
pub(crate) struct Files {
    #[pin]
    health: File<Health>,
    #[pin]
    commands: File<Commands>,
    #[pin]
    objects: File<Objects>,
}

impl Files {
    /// Makes the files of a function; `None` where nobody could see them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(function: &Arc<Function>) -> Result<Option<Pin<KBox<Self>>>> {
        let Some(dir) = function.dir() else {
            return Ok(None);
        };
        let function = || function.clone();
        KBox::pin_init(
            try_pin_init!(Self {
                health <- dir.read_only_file(c"health", Health(function())),
                commands <- dir.read_only_file(c"commands", Commands(function())),
                objects <- dir.read_only_file(c"objects", Objects(function())),
            }),
            GFP_KERNEL,
        )
        .map(Some)
    }
}
