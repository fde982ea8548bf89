/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions that stand for what has no symbol in C: inline functions and
 * macros.  They hold no logic of their own.
 */
#ifndef _RUST_VDPA_HELPERS_H
#define _RUST_VDPA_HELPERS_H

#include <linux/types.h>

struct eventfd_ctx;

void rust_vdpa_eventfd_get(struct eventfd_ctx *ctx);

#endif /* _RUST_VDPA_HELPERS_H */
