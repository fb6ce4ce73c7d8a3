// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const page = 4096

// mustFile returns the descriptor of an anonymous file of this size.
func mustFile(t testing.TB, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(os.NewSyscallError("ftruncate", err))
	}
	return fd
}

func mustSlot(t testing.TB, r wire.MemRegion, fd int) *Slot {
	t.Helper()
	s, err := MapSlot(r, fd, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// grow replaces the present table by one that also has slot.
func (s *Space) grow(t testing.TB, slot *Slot) {
	t.Helper()
	m, err := s.Peek().With(slot)
	if err != nil {
		t.Fatal(err)
	}
	s.Replace(m).Release()
}

func TestTableStaysInOrderAndFindsWhatItHas(t *testing.T) {
	s := NewSpace(NewTLB())
	fd := mustFile(t, page)
	rnd := rand.New(rand.NewPCG(1, 2))
	const n = 100
	var slots []*Slot
	for _, i := range rnd.Perm(n) {
		// The frontend's addresses have the reverse order.
		r := wire.MemRegion{GuestAddr: uint64(i) * 2 * page, Size: page, UserAddr: uint64(n-i) * 3 * page}
		slots = append(slots, mustSlot(t, r, fd))
		s.grow(t, slots[len(slots)-1])
	}
	for turn := 0; ; turn++ {
		m := s.Peek()
		if len(m.Slots()) != len(slots) {
			t.Fatalf("%d slots, want %d", len(m.Slots()), len(slots))
		}
		for i, slot := range m.Slots() {
			if i > 0 && slot.GuestAddr <= m.Slots()[i-1].GuestAddr {
				t.Fatalf("slot %d is out of its order", i)
			}
		}
		for _, slot := range slots {
			for _, off := range []uint64{0, page - 1} {
				if got, b, err := m.find(slot.UserAddr+off, page-off); err != nil || got != slot ||
					len(b) != int(page-off) {
					t.Fatalf("found %v, %v for %v", got, err, slot.MemRegion)
				}
			}
			if _, _, err := m.find(slot.UserAddr+1, page); err == nil {
				t.Fatal("more was found than the slot has")
			}
			if _, _, err := m.find(slot.UserAddr-1, 1); err == nil {
				t.Fatal("a byte before the slot was found")
			}
			if m.Slot(slot.MemRegion) != slot {
				t.Fatalf("%v is not in the table", slot.MemRegion)
			}
		}
		if len(slots) == 0 {
			return
		}
		i := rnd.IntN(len(slots))
		gone := slots[i]
		slots = append(slots[:i], slots[i+1:]...)
		s.Replace(m.Without(gone)).Release()
		if s.Peek().Slot(gone.MemRegion) != nil {
			t.Fatal("what was taken out is in the table")
		}
		gone.Release()
	}
}

func TestOverlapsAreRefused(t *testing.T) {
	s := NewSpace(NewTLB())
	fd := mustFile(t, 4*page)
	have := mustSlot(t, wire.MemRegion{GuestAddr: 10 * page, Size: 2 * page, UserAddr: 100 * page}, fd)
	s.grow(t, have)
	have.Release()
	const free = 1000 * page
	for _, tt := range []struct {
		name string
		r    wire.MemRegion
		ok   bool
	}{
		{"the same", wire.MemRegion{GuestAddr: 10 * page, Size: 2 * page, UserAddr: free}, false},
		{"its second page", wire.MemRegion{GuestAddr: 11 * page, Size: 2 * page, UserAddr: free}, false},
		{"its first page", wire.MemRegion{GuestAddr: 9 * page, Size: 2 * page, UserAddr: free}, false},
		{"all of it and more", wire.MemRegion{GuestAddr: 9 * page, Size: 4 * page, UserAddr: free},
			false},
		{"up to it", wire.MemRegion{GuestAddr: 8 * page, Size: 2 * page, UserAddr: free}, true},
		{"from its end", wire.MemRegion{GuestAddr: 12 * page, Size: 2 * page, UserAddr: free}, true},
		{"its place in the frontend", wire.MemRegion{GuestAddr: free, Size: page, UserAddr: 101 * page},
			false},
		{"up to its place in the frontend", wire.MemRegion{GuestAddr: free, Size: page,
			UserAddr: 99 * page}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			slot := mustSlot(t, tt.r, fd)
			defer slot.Release()
			m, err := s.Peek().With(slot)
			if (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
			if err == nil {
				m.Release()
			}
			if _, err := s.Table([]*Slot{have, slot}); (err == nil) != tt.ok {
				t.Errorf("both at once: error %v", err)
			}
		})
	}
}

// BenchmarkAddSlot adds a slot to a table with a given number of slots. It does not map
// memory.
func BenchmarkAddSlot(b *testing.B) {
	for _, n := range []int{1, 255, 508} {
		b.Run(fmt.Sprintf("to=%d", n), func(b *testing.B) {
			s := NewSpace(NewTLB())
			fd := mustFile(b, page)
			var slots []*Slot
			for i := range n + 1 {
				slots = append(slots, mustSlot(b, wire.MemRegion{
					GuestAddr: uint64(i) * page, Size: page, UserAddr: uint64(i) * page}, fd))
			}
			m, err := s.Table(slots[:n])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				more, err := m.With(slots[n])
				if err != nil {
					b.Fatal(err)
				}
				more.Release()
			}
			m.Release()
			ReleaseAll(slots)
		})
	}
}
