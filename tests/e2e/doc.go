// SPDX-License-Identifier: Apache-2.0

// Package e2e holds no code but tests: real QEMU processes, real Debian kernels
// in their guests, and live migrations between them.
//
// The tests need root, Debian's tools and the patched QEMU of "make qemu-build".
// A part that is missing fails the whole package with one line that names it.
//
// Most tests end in [machine.requireSound]: a program in the guest owned
// checksummed memory, kept allocating, writing and freeing it during the
// migration, and finds every byte in its place on the destination.
//
// Tests of random events run a share of what they could. With -soak they run at
// full length; they say the seed that -seed takes to repeat them:
//
//	go test -v -timeout 0 ./tests/e2e -run TestKilledAtRandomInstants -soak -seed=7
//
// docs/reliability.md names what each of them promises.
package e2e
