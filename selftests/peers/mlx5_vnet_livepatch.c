// SPDX-License-Identifier: GPL-2.0
/*
 * Makes mlx5_core offer the auxiliary device that mlx5_vdpa binds to.
 *
 * Whether a function gets one is decided by mlx5_vnet_supported(), which a
 * kernel without CONFIG_MLX5_VDPA_NET compiles to "no".  Debian's is one.
 * This livepatch puts a function there that asks the capabilities alone, as
 * with the option, so that the stock mlx5_core can be tested as it is.  Test
 * equipment: it taints the kernel.
 */

#include <linux/livepatch.h>
#include <linux/mlx5/driver.h>
#include <linux/mlx5/mlx5_ifc_vdpa.h>
#include <linux/module.h>

static bool vnet_supported(struct mlx5_core_dev *dev)
{
	return !mlx5_core_is_pf(dev) &&
	       MLX5_CAP_GEN_64(dev, general_obj_types) &
		       MLX5_GENERAL_OBJ_TYPES_CAP_VIRTIO_NET_Q &&
	       MLX5_CAP_DEV_VDPA_EMULATION(dev, event_mode) &
		       MLX5_VIRTIO_Q_EVENT_MODE_QP_MODE &&
	       MLX5_CAP_DEV_VDPA_EMULATION(dev, eth_frame_offload_type);
}

static struct klp_func funcs[] = {
	{
		.old_name = "mlx5_vnet_supported",
		.new_func = vnet_supported,
	},
	{ }
};

static struct klp_object objects[] = {
	{
		.name = "mlx5_core",
		.funcs = funcs,
	},
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init vnet_livepatch_init(void)
{
	return klp_enable_patch(&patch);
}

/* A livepatch goes when it is disabled in sysfs; there is nothing to undo. */
static void __exit vnet_livepatch_exit(void)
{
}

module_init(vnet_livepatch_init);
module_exit(vnet_livepatch_exit);
MODULE_DESCRIPTION("Livepatch: mlx5_core offers vDPA devices");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
