// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of C as functions Rust can call.
 */

#include <linux/bottom_half.h>
#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/etherdevice.h>
#include <linux/eventfd.h>
#include <linux/gfp.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/iommu.h>
#include <linux/jiffies.h>
#include <linux/kref.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio_net.h>
#include <linux/wait.h>
#include <linux/wait_bit.h>
#include <net/gso.h>
#include <net/net_namespace.h>

#include "helpers.h"

#ifdef CONFIG_HIGHMEM
#error "memory outside the direct map is not supported"
#endif

/*
 * Takes a reference to an eventfd context, given back by eventfd_ctx_put().
 * The kernel has no function for it.  Its reference count is the first
 * member of struct eventfd_ctx, which is private to fs/eventfd.c.
 */
void rust_vdpa_eventfd_get(struct eventfd_ctx *ctx)
{
	kref_get((struct kref *)ctx);
}

/* Returns whether bottom halves were disabled, and so are to be enabled. */
bool rust_vdpa_bh_disable(void)
{
	if (in_hardirq() || irqs_disabled())
		return false;
	local_bh_disable();
	return true;
}

void rust_vdpa_bh_enable(void)
{
	local_bh_enable();
}

void rust_vdpa_count_leave(int *count)
{
	atomic_dec_and_wake_up((atomic_t *)count);
}

bool rust_vdpa_count_wait(int *count, unsigned int ms)
{
	atomic_t *v = (atomic_t *)count;

	return wait_var_event_timeout(v, !atomic_read_acquire(v),
				      msecs_to_jiffies(ms));
}

void rust_vdpa_synchronize_tasks(void)
{
	synchronize_rcu_tasks();
}

/* The memory at an address that has a page in use; NULL if it has none. */
void *rust_vdpa_phys_to_virt(u64 pa)
{
	if (pa >> PAGE_SHIFT > ULONG_MAX || !pfn_valid(PHYS_PFN(pa)))
		return NULL;
	return phys_to_virt(pa);
}

/* Holes, registers, firmware and the kernel's image are reserved, if a page. */
static bool ram(unsigned long pfn)
{
	struct page *page = pfn_to_online_page(pfn);

	return page && (!PageReserved(page) || is_zero_pfn(pfn));
}

/*
 * How many bytes from this address on, at most max, are memory that was given
 * to the page allocator, or the zero page.
 */
size_t rust_vdpa_ram(u64 pa, size_t max)
{
	size_t len = 0;

	while (len < max && (pa + len) >> PAGE_SHIFT <= ULONG_MAX &&
	       ram(PHYS_PFN(pa + len)))
		len += PAGE_SIZE - offset_in_page(pa + len);
	return min(len, max);
}

/*
 * Takes one reference to the folio the page is in.  Returns how many of the
 * pages from this one on are in it, at most max; 0 on failure.
 */
size_t rust_vdpa_folio_get(size_t pfn, size_t max)
{
	struct folio *folio;
	struct page *page;

	if (!pfn_valid(pfn))
		return 0;
	page = pfn_to_page(pfn);
	folio = page_folio(page);
	/* Far below where the count saturates; see try_get_page(). */
	if (WARN_ON_ONCE(folio_ref_count(folio) <= 0))
		return 0;
	folio_get(folio);
	return min(max, folio_nr_pages(folio) - folio_page_idx(folio, page));
}

size_t rust_vdpa_folio_put(size_t pfn, size_t max)
{
	struct page *page = pfn_to_page(pfn);
	struct folio *folio = page_folio(page);
	size_t count;

	count = min(max, folio_nr_pages(folio) - folio_page_idx(folio, page));
	folio_put(folio);
	return count;
}

u64 rust_vdpa_page_to_phys(struct page *page)
{
	return page_to_phys(page);
}

void *rust_vdpa_alloc(size_t size, dma_addr_t *addr, gfp_t gfp)
{
	void *vaddr = alloc_pages_exact(size, gfp | __GFP_ZERO);

	if (vaddr)
		*addr = virt_to_phys(vaddr);
	return vaddr;
}

void rust_vdpa_free(void *vaddr, size_t size)
{
	free_pages_exact(vaddr, size);
}

/* Where an address of the DMA API leads for a device; 0 if nowhere. */
u64 rust_vdpa_dma_to_phys(struct device *dev, dma_addr_t addr)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);

	return domain ? iommu_iova_to_phys(domain, addr) :
			dma_to_phys(dev, addr);
}

void rust_vdpa_init_work(struct kthread_work *work, kthread_work_func_t fn)
{
	kthread_init_work(work, fn);
}

void rust_vdpa_init_delayed_work(struct kthread_delayed_work *work,
				 kthread_work_func_t fn)
{
	kthread_init_delayed_work(work, fn);
}

/* A packet of len bytes, the headers of which are in one piece. */
struct sk_buff *rust_vdpa_skb_alloc(size_t len)
{
	size_t linear = min_t(size_t, len, SKB_MAX_HEAD(0));
	struct sk_buff *skb;
	int err;

	skb = alloc_skb_with_frags(linear, len - linear,
				   PAGE_ALLOC_COSTLY_ORDER, &err, GFP_KERNEL);
	if (!skb)
		return NULL;
	skb_put(skb, linear);
	skb->data_len = len - linear;
	skb->len += len - linear;
	return skb;
}

/*
 * Makes an Ethernet frame, with what a sender's header says of it, a packet
 * the network stack can work on.  The header is little-endian.
 */
int rust_vdpa_skb_set_header(struct sk_buff *skb,
			     const struct virtio_net_hdr *hdr)
{
	int depth;

	if (!pskb_may_pull(skb, ETH_HLEN))
		return -EINVAL;
	/* Some of the stack looks at the device's features. */
	skb->dev = init_net.loopback_dev;
	skb_reset_mac_header(skb);
	skb->protocol = eth_hdr(skb)->h_proto;
	skb_set_network_header(skb, ETH_HLEN);
	if (eth_type_vlan(skb->protocol) &&
	    vlan_get_protocol_and_depth(skb, skb->protocol, &depth))
		skb_set_network_header(skb, depth);
	return virtio_net_hdr_to_skb(skb, hdr, true);
}

/* The segments of a packet, with their checksums; as skb_gso_segment(). */
struct sk_buff *rust_vdpa_skb_segment(struct sk_buff *skb)
{
	return skb_gso_segment(skb, NETIF_F_SG);
}

/* Takes the first packet out of a list, and returns what follows. */
struct sk_buff *rust_vdpa_skb_unlink_next(struct sk_buff *skb)
{
	struct sk_buff *next = skb->next;

	skb_mark_not_on_list(skb);
	return next;
}

unsigned int rust_vdpa_skb_len(const struct sk_buff *skb)
{
	return skb->len;
}

bool rust_vdpa_skb_is_gso(const struct sk_buff *skb)
{
	return skb_is_gso(skb);
}

void rust_vdpa_skb_free(struct sk_buff *skb)
{
	consume_skb(skb);
}

/* Whether the administrator named the driver that the device is bound to. */
bool rust_vdpa_driver_override(struct device *dev)
{
	return device_match_driver_override(dev, dev->driver) > 0;
}

/* Has an interrupt raised on one processor: the index'th, from the nearest on. */
int rust_vdpa_irq_spread(struct device *dev, unsigned int irq,
			 unsigned int index)
{
	unsigned int cpu = cpumask_local_spread(index, dev_to_node(dev));

	return irq_set_affinity(irq, cpumask_of(cpu));
}

/* Whether an area of a BAR is apart from the table of vectors and its bits. */
bool rust_vdpa_pci_apart_from_msix(struct pci_dev *pdev, int bar, u64 start,
				   u64 size)
{
	int vectors = pci_msix_vec_count(pdev);
	u32 areas[2], sizes[2];
	u64 at;
	int i;

	if (vectors < 0)
		return true;
	if (pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_TABLE,
				  &areas[0]) ||
	    pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_PBA,
				  &areas[1]))
		return false;
	sizes[0] = vectors * PCI_MSIX_ENTRY_SIZE;
	sizes[1] = DIV_ROUND_UP(vectors, 64) * sizeof(u64);
	for (i = 0; i < 2; i++) {
		at = areas[i] & PCI_MSIX_TABLE_OFFSET;
		if ((areas[i] & PCI_MSIX_TABLE_BIR) == bar &&
		    at < start + size && start < at + sizes[i])
			return false;
	}
	return true;
}

struct pci_dev *rust_vdpa_to_pci_dev(struct device *dev)
{
	return to_pci_dev(dev);
}

/*
 * Puts back the configuration that was saved, if a reset took it.  Returns
 * whether one did.  Who does not answer cannot be helped.
 */
bool rust_vdpa_pci_restore(struct pci_dev *pdev)
{
	u16 command, control = PCI_MSIX_FLAGS_ENABLE;

	if (pci_read_config_word(pdev, PCI_COMMAND, &command) ||
	    PCI_POSSIBLE_ERROR(command))
		return false;
	if (pdev->msix_enabled)
		pci_read_config_word(pdev, pdev->msix_cap + PCI_MSIX_FLAGS,
				     &control);
	if (command & PCI_COMMAND_MEMORY && control & PCI_MSIX_FLAGS_ENABLE)
		return false;
	pci_restore_state(pdev);
	return true;
}

/* The serial number of a function, or of its physical one; 0 without. */
u64 rust_vdpa_pci_serial(struct pci_dev *pdev)
{
	return pci_get_dsn(pdev) ?: pci_get_dsn(pci_physfn(pdev));
}

/* The serial number in the product data of the physical function. */
int rust_vdpa_pci_board_serial(struct pci_dev *pdev, char *to, size_t size)
{
	unsigned int len, found;
	void *vpd = pci_vpd_alloc(pci_physfn(pdev), &len);
	int at;

	if (IS_ERR(vpd))
		return -ENOENT;
	at = pci_vpd_find_ro_info_keyword(vpd, len, PCI_VPD_RO_KEYWORD_SERIALNO,
					  &found);
	if (at >= 0) {
		found = min_t(unsigned int, found, size - 1);
		memcpy(to, vpd + at, found);
		to[found] = '\0';
		strim(to);
	}
	kfree(vpd);
	return at < 0 ? -ENOENT : 0;
}

void rust_vdpa_wait_init(struct wait_queue_head *wq)
{
	init_waitqueue_head(wq);
}

/* Waits until done(data); false if that does not happen within ms. */
bool rust_vdpa_wait(struct wait_queue_head *wq, bool (*done)(const void *data),
		    const void *data, unsigned int ms)
{
	return wait_event_timeout(*wq, done(data), msecs_to_jiffies(ms));
}

void rust_vdpa_wake_all(struct wait_queue_head *wq)
{
	wake_up_all(wq);
}
