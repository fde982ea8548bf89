// SPDX-License-Identifier: GPL-2.0

//! Bindings to the parts of C that the kernel's own bindings leave out.
//!
//! Only crates below `rust/` may use this one; see `vdpa` for the safe side.

#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unknown_lints,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

pub use generated::*;

mod generated {
    use kernel::{
        bindings::*,
        ffi, //
    };

    include!(env!("RUST_VDPA_BINDINGS"));
}
