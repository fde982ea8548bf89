// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the vDPA bus.
//!
//! C header: [`include/linux/vdpa.h`](srctree/include/linux/vdpa.h)
