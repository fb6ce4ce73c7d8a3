/* SPDX-License-Identifier: Apache-2.0 */

/* What both of KVM's bitmap logs have: bits, protected pages, and TLBs that are
 * flushed before the ioctl that protects a page returns. */

bool dirty[PAGES];   /* kvm_memory_slot.dirty_bitmap */
bool protect[PAGES]; /* the page's SPTE is not writable */
bool recent[PAGES];  /* protected by an ioctl that has not returned yet */
bool flushed[CPUS];  /* ... which has flushed this CPU's TLB */

/* A CPU may store through a TLB entry that it has from before. */
#define MAY_STORE(c, p) (!protect[p] || (recent[p] && !flushed[c]))
#define NOT_IN_STORE(p) true
#define STORE_DONE(c, p) skip
#define IDLE(c) true

/* [fast_page_fault, mark_page_dirty_in_slot] */
#define LOG_STEPS(c, p) \
	:: d_step { running && page[p] != FREE && protect[p] -> \
		dirty[p] = true; protect[p] = false; \
		printf("cpu %d faults on page %d: KVM sets its bit\n", c, p) }

/* [kvm_flush_remote_tlbs_memslot] */
inline flush() {
	flushed[0] = true;
	d_step {
		flushed[0] = false; /* and flushed[1]: over */
		q = 0;
		do
		:: q < PAGES -> recent[q] = false; q++
		:: else -> break
		od;
		q = 0
	}
}
