/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The headers bindgen reads for what the kernel's own bindings leave out:
 * the vDPA bus, the vhost IOTLB, virtio's mapping operations, kthread
 * workers and devlink.  Types the kernel's bindings have are taken from there.
 */

#include <linux/hrtimer_types.h>

#include <linux/device.h>
#include <linux/eventfd.h>
#include <linux/kthread.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/vdpa.h>
#include <linux/vhost_iotlb.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <net/devlink.h>
#include <net/net_namespace.h>
#include <net/netlink.h>
#include <uapi/linux/vdpa.h>
#include <uapi/linux/vhost_types.h>
#include <uapi/linux/virtio_ids.h>

#include "helpers.h"
