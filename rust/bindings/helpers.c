// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of C as functions Rust can call.
 */

#include <linux/eventfd.h>
#include <linux/kref.h>

#include "helpers.h"

/*
 * Takes a reference to an eventfd context, given back by eventfd_ctx_put().
 * The kernel has no function for it.  Its reference count is the first
 * member of struct eventfd_ctx, which is private to fs/eventfd.c.
 */
void rust_vdpa_eventfd_get(struct eventfd_ctx *ctx)
{
	kref_get((struct kref *)ctx);
}
