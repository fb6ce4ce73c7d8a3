// SPDX-License-Identifier: Apache-2.0

// Package freepages takes snapshots of the buddy allocator's free lists.
//
// An eBPF program follows the lists while the kernel itself holds the zone's lock. A read of
// /proc/buddyinfo makes frag_show() print each zone with zone->lock held and interrupts off.
// Since Linux 7.3 it does so without the lock, but a read of /proc/zoneinfo takes it. A kprobe
// on the first call of such a print runs the program. Within one hold of the lock the lists are
// exact. A budget bounds a hold. The next read resumes a list that the budget cut.
//
// The probe stays attached while a [Snapshot] is loaded. It costs an idle guest nothing,
// because only reads of the one file reach it. If the call cannot be found, the probe is
// put on seq_printf() itself, and then costs time in every read of such a file.
// [Snapshot.Hook] tells which one is in use.
//
// Snapshots need Linux 5.17 on x86-64 with BTF and kprobes, CAP_BPF, CAP_PERFMON and
// CAP_SYS_ADMIN. Code for x86-64 only is in files *_amd64.go. On other architectures Load
// returns an error that wraps [errors.ErrUnsupported].
package freepages
