// SPDX-License-Identifier: Apache-2.0

// Package freepages takes snapshots of the buddy allocator's free lists.
//
// An eBPF program follows the lists while the kernel itself holds the zone's
// lock: reading /proc/buddyinfo makes frag_show() print each zone under
// zone->lock with interrupts off, and a kprobe on the call with which that
// print begins runs the program. Within one hold the lists are exact. A budget
// bounds a hold; what it cuts is resumed at the next read.
//
// The probe stays attached while a [Snapshot] is loaded. It lies on a path
// that nothing but a read of /proc/buddyinfo takes, so it costs an idle guest
// nothing. Where the call cannot be found the probe goes on seq_printf()
// itself, which every reader of such a file then pays for; [Snapshot.Hook]
// tells which one is in use.
//
// Snapshots need Linux 5.17 on x86-64 with BTF and kprobes, CAP_BPF,
// CAP_PERFMON and CAP_SYS_ADMIN. What is x86-64's lies in files *_amd64.go; on
// other architectures Load returns an error that wraps [errors.ErrUnsupported].
package freepages
