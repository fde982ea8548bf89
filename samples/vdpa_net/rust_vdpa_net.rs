// SPDX-License-Identifier: GPL-2.0

//! Software virtio-net devices on the vDPA bus, joined by a switch.

use kernel::prelude::*;

module! {
    type: VdpaNet,
    name: "rust_vdpa_net",
    authors: ["The rust-vdpa project"],
    description: "Software virtio-net vDPA devices",
    license: "GPL",
}

struct VdpaNet;

impl kernel::Module for VdpaNet {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded\n");
        Ok(Self)
    }
}
