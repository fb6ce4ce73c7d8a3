// SPDX-License-Identifier: Apache-2.0

// Package adversary tries to make a migration lose a page.
//
// Its guest is no operating system but a payload of a few hundred lines
// (folder guest), which has a driver for the free page device of its own,
// written from docs/spec.md alone. It reports pages as free, and then takes
// and writes them at the worst moments that it can see: when it is asked, while
// it walks, with the report in the ring, once the device has read it, at
// doubling distances after that, and on another processor all the while. Every
// page that is in use has contents that follow from its number, its
// generation and the moment of its last write.
//
// A [Round] is one migration with one such plan. After it, the destination is
// held while the memories of both QEMU processes are compared from outside,
// page by page, except for what the source's guest has free; then it goes on,
// and the guest compares its memory with what it knows to have written. See
// docs/design.md, section 2, for the invariant that all of this is about.
//
// A [Lookout] needs no driver: it reads the guest's table from the host, as a
// source of fbppd's reads Linux's memmap, field by field while the guest allocates
// and frees, and asks QEMU which of it was written meanwhile.
//
// The guest runs under TCG and under KVM, with KVM's dirty log and with its
// dirty ring. It runs on what is not enough KVM for a whole kernel, as its code
// has level 3 and no interrupts.
//
// After a fixed sweep the rounds are random. A seed gives the same rounds again,
// though not the same instants in them:
//
//	go test -v -timeout 3h ./tests/adversary -adversary.rounds=500 -adversary.seed=1
//
// # The guest
//
// It is a ROM of 64 KiB, built by gcc when it is needed, which takes the place
// of the firmware. boot.S brings each processor to C code in long mode. The
// first processor (main.c) carries out orders and drives the device: pci.c,
// virtio.c and fbpp.c. The others strike meanwhile (attack.c). page.c is the
// allocator. Orders come over a serial port in the format of package ctl
// (order.c), each on one line:
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
