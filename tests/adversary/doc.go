// SPDX-License-Identifier: Apache-2.0

// Package adversary tries to make a migration lose a page.
//
// Its guest is a small payload instead of an operating system (folder guest). The
// payload has its own driver for the fbpp device, written from docs/spec.md alone. It
// reports pages as free, and then allocates and writes ("strikes") them at the worst
// moments: when it is asked, while it walks, when the report is in the ring, once the
// device has read it, and at doubling distances after that. Other processors strike all
// the while. The contents of each page in use follow from its number, its generation
// and the moment of its last write.
//
// A [Round] is one migration with one such plan. After the migration the guest stays
// paused at the destination. The test compares the memories of both QEMU processes,
// page by page, except for pages that are free at the source. Then the guest continues,
// and compares its memory with what it has written. The invariant under test is in
// docs/design.md, section 2.
//
// A [TableReader] needs no driver. It reads the guest's page table from the host while the
// guest allocates and frees, as introspection reads Linux's memmap, and asks QEMU which
// parts of the table were written meanwhile.
//
// The guest runs under TCG and under KVM, with KVM's dirty log and with its dirty ring.
// Its code runs at privilege level 3 without interrupts. So it also runs on a KVM that
// cannot run a whole kernel.
//
// After a fixed sweep the rounds are random. A seed repeats the rounds, but not their
// exact timing:
//
//	go test -v -timeout 3h ./tests/adversary -adversary.rounds=500 -adversary.seed=1
//
// # The guest
//
// The guest is a ROM of 64 KiB that replaces the firmware; gcc builds it when needed.
// boot.S brings each processor to C code in long mode. The first processor (main.c)
// carries out orders and drives the device: pci.c, virtio.c and fbpp.c. The others
// strike meanwhile (attack.c). page.c is the allocator. Orders come over a serial port
// in the format of package ctl (order.c), each on one line:
//
//	plan seed=N used=N strike=N step=N churn=N pairs=N per_message=N hold=N
//	     halves=N restart=N move=N late=N stale=N
//	verify
//	status
//	restart
//	stop
//
// and are answered by words of the form key=number.
package adversary
