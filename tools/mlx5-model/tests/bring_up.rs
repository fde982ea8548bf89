// SPDX-License-Identifier: GPL-2.0

//! A driver brings functions up and takes them down again.

use mlx5_host::{
    Board,
    Host, //
};
use mlx5_model::profile::BUILT_IN;

/// Up and down, with everything given back.
fn up_and_down(host: &mut Host) {
    let available = host.memory.available();
    host.start().unwrap();
    assert!(host.pages() > 0, "the firmware wants no pages");
    host.wait_by_event(true);
    let issi = host.call::<prm::hca::QueryIssi>(|_| {}).unwrap();
    assert_eq!(issi.current_issi(), 1);
    host.stop().unwrap();
    assert_eq!(host.pages(), 0);
    assert_eq!(host.memory.available(), available);
}

#[test]
fn every_profile_comes_up_and_goes_ten_times() {
    for (number, (profile, _)) in BUILT_IN.iter().enumerate() {
        let board = Board::new(1).unwrap();
        let mut host = board.host(profile, number as u16).unwrap();
        for _ in 0..10 {
            up_and_down(&mut host);
        }
    }
}
