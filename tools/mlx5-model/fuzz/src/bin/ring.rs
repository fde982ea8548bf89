// SPDX-License-Identifier: GPL-2.0

//! See [`mlx5_fuzz::ring`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mlx5_fuzz::ring::run(data));
