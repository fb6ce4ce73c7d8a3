// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// idleMiB is memory that the guest has, and does not use.
const idleMiB = 100

// bound is more than an order has as hot that leaves out what is idle, in bytes: a page can be used
// by chance, and small holes between hot pages are closed.
func (m *machine) bound(of *vm.Migration) int64 {
	used := int64(m.setup.memoryMiB)<<20 - of.Hints.Skipped*memory.PageSize
	return used - idleMiB<<20*9/10
}

// sample has the guest sample its working set.
func (m *machine) sample() *device.WorkingSet {
	m.t.Helper()
	s, err := m.backend.Control.SampleWorkingSet(m.ctx, 4*time.Second)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Logf("%d of %d MiB are hot, found in %d us by %d runs, the longest of %d us",
		s.HotBytes>>20, s.MemoryBytes>>20, s.TookUS, s.Runs, s.RunMaxUS)
	return s
}

// A guest finds its working set by a program of the host. The hybrid migration after that takes it
// for hot, and not what the guest only has, as the kernel's own lists would have it. So it may
// switch after less. How much less the benchmarks measure: here that depends on the machine.
func TestHybridMigrationByASample(t *testing.T) {
	o := mustOwner(t)
	m := boot(t, setup{noAgent: true, files: o.files, memoryMiB: 512,
		backendArgs: []string{"--source=auto"}})
	m.startTaking()
	if err := m.vm.Keep(m.ctx, idleMiB); err != nil {
		t.Fatal(err)
	}
	if err := m.backend.AwaitKernel(m.ctx); err != nil { // fbppd reads an order of it by itself
		t.Fatal(err)
	}
	m.parameter("max-postcopy-bandwidth", hybridBandwidth)
	m.setDevice("hybrid", true)
	before := m.migrateByPostcopy(true)
	if before.Hints.Hot == nil || *before.Hints.Hot < m.bound(before) {
		t.Fatalf("without a sample, the order is %+v", before.Hints)
	}

	m.awaitDriver()
	if _, err := m.backend.Control.SampleWorkingSet(m.ctx, 0); err == nil {
		t.Error("a guest without a sampler has sampled")
	}
	first := o.make(protocol.KindSampler, 2)
	m.push(first, driver.AtNow)
	told := m.awaitProgram(first, "active")
	t.Logf("fetched in %d us, loaded in %d us", told.FetchUS, told.LoadUS)
	s := m.sample()
	if s.HotBytes == 0 || s.HotBytes > s.MemoryBytes/2 {
		t.Errorf("%d of %d bytes are hot", s.HotBytes, s.MemoryBytes)
	}
	m.parameter("max-postcopy-bandwidth", hybridBandwidth)
	m.setDevice("hybrid", true)
	after := m.migrateByPostcopy(true)
	if after.Hints.Hybrid != "switched" {
		t.Fatalf("the hybrid migration is %q, want it switched", after.Hints.Hybrid)
	}
	if after.Hints.Hot == nil || *after.Hints.Hot > m.bound(after) {
		t.Fatalf("by the sample more than %d bytes are hot: %+v", m.bound(after), after.Hints)
	}
	t.Logf("%d and %d requests, %d and %d bytes hot", before.RAM.Requests, after.RAM.Requests,
		*before.Hints.Hot, *after.Hints.Hot)
	t.Run("renewed and withdrawn", func(t *testing.T) {
		defer m.in(t)()
		m.renewSampler(o, first)
	})
}

// renewSampler renews and withdraws the sampler while the guest runs, and migrates in between.
func (m *machine) renewSampler(o *owner, before *bundle.Bundle) {
	m.t.Helper()
	m.awaitProgram(before, "active") // the next host is told
	if s, err := m.backend.Control.Status(m.ctx); err != nil || s.WorkingSet != nil {
		m.t.Errorf("the next host has the sample %+v, %v", s.WorkingSet, err)
	}
	second := o.make(protocol.KindSampler, 3)
	m.push(second, driver.AtNow)
	m.awaitProgram(second, "active")
	m.awaitProgram(before, "withdrawn")
	m.push(before, driver.AtNow)
	if p := m.awaitProgram(before, "refused"); !strings.Contains(p.Reason, "newer version") {
		m.t.Errorf("a lower version is refused by %q", p.Reason)
	}
	if s := m.sample(); s.Digest != second.Offer.Digest.String() {
		m.t.Errorf("sampled by %s, want %v", s.Digest, second.Offer.Digest)
	}

	sampling := make(chan error, 1)
	backend := m.backend
	go func() { // a migration ends it: it would take longer than that waits
		_, err := backend.Control.SampleWorkingSet(m.ctx, protocol.MaxSampleInterval)
		sampling <- err
	}()
	m.awaitSampling()
	m.migrateByPostcopy(false)
	if err := <-sampling; err == nil || !strings.Contains(err.Error(), "migration") &&
		!strings.Contains(err.Error(), "session has ended") {
		m.t.Errorf("the sample in the migration: %v", err)
	}

	m.awaitProgram(second, "active")
	m.withdraw(second)
	if _, err := m.backend.Control.SampleWorkingSet(m.ctx, 0); err == nil {
		m.t.Error("a guest whose sampler was withdrawn has sampled")
	}
	m.migrateByPostcopy(false)
}

// awaitSampling waits until somebody has the guest sample.
func (m *machine) awaitSampling() {
	m.t.Helper()
	for {
		_, err := m.backend.Control.GuestCensus(m.ctx) // there is no such program
		if err != nil && strings.Contains(err.Error(), driver.ErrInquiring.Error()) {
			return
		}
		if m.ctx.Err() != nil {
			m.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
