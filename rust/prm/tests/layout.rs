// SPDX-License-Identifier: GPL-2.0

//! Fields are read as they were written, and writing one leaves the others alone.

use prm::{
    layout::{
        bits,
        set_bits, //
    },
    Layout,
    Status, //
};
use proptest::prelude::*;

prm::layout! {
    /// A structure inside of another.
    pub struct Inner = "inner", 0x8 {
        /// Across two bytes.
        across: u16 @ 0x06, 9;
        /// To the very end.
        last: u32 @ 0x21, 31;
    }

    /// One of each kind of field.
    pub struct Outer = "outer", 0x20 {
        /// A single bit.
        flag: bool @ 0x00, 1;
        /// A number with names.
        status: Status @ 0x08, 8;
        /// As wide as can be, and not aligned.
        wide: u64 @ 0x13, 64;
        /// Another structure.
        inner: &Inner @ 0x80;
        /// Bytes.
        label: [u8; 8] @ 0xc0;
    }
}

proptest! {
    #[test]
    fn bits_are_read_as_they_were_written(
        before in proptest::collection::vec(any::<u8>(), 24),
        offset in 0usize..128,
        width in 1usize..=64,
        value in any::<u64>(),
    ) {
        let mut after = before.clone();
        set_bits(&mut after, offset, width, value);
        let low = value & (u64::MAX >> (64 - width));
        prop_assert_eq!(bits(&after, offset, width), low);
        for bit in (0..192).filter(|bit| !(offset..offset + width).contains(bit)) {
            prop_assert_eq!(bits(&before, bit, 1), bits(&after, bit, 1));
        }
    }

    #[test]
    fn what_is_beyond_the_end_is_0_and_stays_away(
        len in 0usize..8,
        offset in 0usize..128,
        width in 1usize..=64,
    ) {
        let mut bytes = vec![0xff; len];
        let read = bits(&bytes, offset, width);
        let there = (8 * len).saturating_sub(offset).min(width);
        prop_assert_eq!(read.count_ones() as usize, there);
        set_bits(&mut bytes, offset, width, 0);
        let left: usize = bytes.iter().map(|byte| byte.count_ones() as usize).sum();
        prop_assert_eq!(left, 8 * len - there);
    }

    #[test]
    fn fields_do_not_touch_each_other(
        flag in any::<bool>(),
        wide in any::<u64>(),
        across in 0u16..1 << 9,
        last in 0u32..1 << 31,
        label in any::<[u8; 8]>(),
    ) {
        let mut outer = Outer::new();
        outer.set_flag(flag).set_status(Status::LIM_ERR).set_wide(wide);
        outer.inner_mut().set_across(across).set_last(last);
        *outer.label_mut() = label;
        prop_assert_eq!(outer.flag(), flag);
        prop_assert_eq!(outer.status(), Ok(Status::LIM_ERR));
        prop_assert_eq!(outer.wide(), wide);
        prop_assert_eq!(outer.inner().across(), across);
        prop_assert_eq!(outer.inner().last(), last);
        prop_assert_eq!(outer.label(), &label);
    }
}

#[test]
fn a_table_is_sound() {
    for info in prm::LAYOUTS.iter().copied().flatten() {
        assert!(info.is_sound(), "{}", info.name);
    }
    let inner = Outer::INFO.field("inner").unwrap();
    assert_eq!((inner.offset, inner.width), (0x80, 64));
    assert!(Outer::INFO.field("outer").is_none());
}

#[test]
fn a_number_without_a_name_is_no_value() {
    let mut outer = Outer::new();
    set_bits(zerocopy::IntoBytes::as_mut_bytes(&mut outer), 8, 8, 0x77);
    assert_eq!(outer.status().unwrap_err().0, 0x77);
}
