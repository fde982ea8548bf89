// SPDX-License-Identifier: GPL-2.0
//! How the threads of a test wake each other.

use std::{
    sync::mpsc::{
        Receiver,
        RecvTimeoutError,
        SyncSender, //
    },
    time::Duration, //
};

/// Rings somebody up; once is enough until they look.
pub(crate) fn ring_up(bell: &SyncSender<()>) {
    let _ = bell.try_send(());
}

/// Waits to be rung up, and returns whether anybody is left to do so.
pub(crate) fn sleep(bell: &Receiver<()>, who: &str) -> bool {
    match bell.recv_timeout(Duration::from_secs(20)) {
        Ok(()) => true,
        Err(RecvTimeoutError::Disconnected) => false,
        Err(RecvTimeoutError::Timeout) => panic!("the {who} is not woken"),
    }
}
