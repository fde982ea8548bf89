// SPDX-License-Identifier: GPL-2.0
/*
 * Has KVM take no event for one that is being delivered on a processor that is
 * emulated.
 *
 * When a guest accesses a device, svm_check_emulate_instruction() of Linux 7.3
 * gives it up if EXITINTINFO of the VMCB names a type of event; whether it says
 * that it is valid is not looked at.  QEMU's software emulation takes away that
 * bit alone when it has delivered an exception, and leaves the type.  So a guest
 * whose first write to a doorbell follows a page fault, without an exit between
 * them, ends in "KVM internal error. Suberror: 3".  Here EXITINTINFO is cleared
 * before it is looked at, unless it is valid.  Test equipment.
 */

#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <asm/svm.h>

/* How struct vcpu_svm begins, which kvm_amd has to itself. */
struct vcpu_begin {
	struct kvm_vcpu vcpu;
	struct vmcb *vmcb;
};

static int before_check(struct kprobe *probe, struct pt_regs *regs)
{
	struct vcpu_begin *svm = (struct vcpu_begin *)regs->di;
	u32 *info = &svm->vmcb->control.exit_int_info;

	if (!(*info & SVM_EXITINTINFO_VALID))
		*info = 0;
	return 0;
}

static struct kprobe probe = {
	.symbol_name = "svm_check_emulate_instruction",
	.pre_handler = before_check,
};

static int __init exit_info_init(void)
{
	return register_kprobe(&probe);
}

static void __exit exit_info_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(exit_info_init);
module_exit(exit_info_exit);
MODULE_DESCRIPTION("KVM on a processor that QEMU emulates: events that are over");
MODULE_LICENSE("GPL");
