/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions that stand for what has no symbol in C: inline functions, macros,
 * and the few steps in which C uses some of them together.
 */
#ifndef _RUST_VDPA_HELPERS_H
#define _RUST_VDPA_HELPERS_H

#include <linux/kthread.h>
#include <linux/types.h>

struct device;
struct eventfd_ctx;
struct page;
struct pci_dev;
struct sk_buff;
struct virtio_net_hdr;
struct wait_queue_head;

/* callback.rs */
void rust_vdpa_eventfd_get(struct eventfd_ctx *ctx);
bool rust_vdpa_bh_disable(void);
void rust_vdpa_bh_enable(void);

/* count.rs */
void rust_vdpa_count_leave(int *count);
bool rust_vdpa_count_wait(int *count, unsigned int ms);
void rust_vdpa_synchronize_tasks(void);

/* memory */
void *rust_vdpa_phys_to_virt(u64 pa);
size_t rust_vdpa_ram(u64 pa, size_t max);
size_t rust_vdpa_folio_get(size_t pfn, size_t max);
size_t rust_vdpa_folio_put(size_t pfn, size_t max);
u64 rust_vdpa_page_to_phys(struct page *page);
void *rust_vdpa_alloc(size_t size, dma_addr_t *addr, gfp_t gfp);
void rust_vdpa_free(void *vaddr, size_t size);
u64 rust_vdpa_dma_to_phys(struct device *dev, dma_addr_t addr);

/* worker.rs */
void rust_vdpa_init_work(struct kthread_work *work, kthread_work_func_t fn);
void rust_vdpa_init_delayed_work(struct kthread_delayed_work *work,
				 kthread_work_func_t fn);

/* frame.rs */
struct sk_buff *rust_vdpa_skb_alloc(size_t len);
int rust_vdpa_skb_set_header(struct sk_buff *skb,
			     const struct virtio_net_hdr *hdr);
unsigned int rust_vdpa_skb_len(const struct sk_buff *skb);
bool rust_vdpa_skb_is_gso(const struct sk_buff *skb);
struct sk_buff *rust_vdpa_skb_segment(struct sk_buff *skb);
struct sk_buff *rust_vdpa_skb_unlink_next(struct sk_buff *skb);
void rust_vdpa_skb_free(struct sk_buff *skb);

/* hardware/device.rs */
bool rust_vdpa_driver_override(struct device *dev);
bool rust_vdpa_pci_apart_from_msix(struct pci_dev *pdev, int bar, u64 start,
				   u64 size);
bool rust_vdpa_pci_restore(struct pci_dev *pdev);
u64 rust_vdpa_pci_serial(struct pci_dev *pdev);
int rust_vdpa_pci_board_serial(struct pci_dev *pdev, char *to, size_t size);

/* hardware/driver.rs */
struct pci_dev *rust_vdpa_to_pci_dev(struct device *dev);

/* hardware/vector.rs */
int rust_vdpa_irq_spread(struct device *dev, unsigned int irq,
			 unsigned int index);

/* hardware/wait.rs */
void rust_vdpa_wait_init(struct wait_queue_head *wq);
bool rust_vdpa_wait(struct wait_queue_head *wq, bool (*done)(const void *data),
		    const void *data, unsigned int ms);
void rust_vdpa_wake_all(struct wait_queue_head *wq);

#endif /* _RUST_VDPA_HELPERS_H */
