/* SPDX-License-Identifier: Apache-2.0 */

/* The common part of KVM's two bitmap logs: bits, protected pages, and TLBs. The
 * TLBs are flushed before the ioctl that protects a page returns. */

bool dirty[PAGES];   /* kvm_memory_slot.dirty_bitmap */
bool protect[PAGES]; /* the page's SPTE is not writable */
bool recent[PAGES];  /* protected by an ioctl that has not returned yet */
bool flushed[CPUS];  /* ... which has flushed this CPU's TLB */

/* Until its TLB is flushed, a CPU may store through an old entry. */
#define MAY_STORE(c, p) (!protect[p] || (recent[p] && !flushed[c]))
#define NOT_IN_STORE(p) true
#define STORE_DONE(c, p) skip
#define IDLE(c) true

#ifdef INTROSPECT
/* A page may be written before its bit is set. Other CPUs may write it between
 * the two steps of a fault [fast_pf_fix_direct_spte: try_cmpxchg64, then
 * mark_page_dirty_in_slot]. With PML all CPUs may write it until the CPU of the
 * fault leaves the guest [vmx_flush_pml_buffer]. */
byte pending[CPUS]; /* page + 1, or 0 */
#define LOGGED(c) (pending[c] == 0)
#define LOG_STEPS(c, p) \
	:: d_step { running && page[p] != FREE && protect[p] && LOGGED(c) -> \
		pending[c] = p + 1; protect[p] = false; \
		printf("cpu %d faults on page %d: it may be written\n", c, p) } \
	:: d_step { pending[c] == p + 1 -> \
		dirty[p] = true; pending[c] = 0; \
		printf("KVM sets the bit of page %d\n", p) }
#else
/* [fast_page_fault, mark_page_dirty_in_slot] */
#define LOGGED(c) true
#define LOG_STEPS(c, p) \
	:: d_step { running && page[p] != FREE && protect[p] -> \
		dirty[p] = true; protect[p] = false; \
		printf("cpu %d faults on page %d: KVM sets its bit\n", c, p) }
#endif

/* [kvm_flush_remote_tlbs_memslot] */
inline flush() {
	flushed[0] = true;
	d_step {
		flushed[0] = false; /* the flush is complete, so flushed[1] is not needed */
		q = 0;
		do
		:: q < PAGES -> recent[q] = false; q++
		:: else -> break
		od;
		q = 0
	}
}

/* Each CPU leaves the guest, and QEMU waits for it. After that no bit is pending.
 * KVM_GET_DIRTY_LOG itself does not wait [kvm_arch_sync_dirty_log].
 * [docs/window.md, "Peeking": run_on_cpu, memory_global_dirty_log_sync] */
inline log_peek() {
#ifndef PEEK_NO_KICK
	LOGGED(0);
	LOGGED(1);
#endif
	log_sync()
}
#define IN_HARVEST(p) harvest[p]
