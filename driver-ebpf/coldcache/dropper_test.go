// SPDX-License-Identifier: Apache-2.0

package coldcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// memory is a group's of a simulated kernel, in bytes.
type memory struct {
	cold, demoted, hot, taken uint64
	within                    []string
	protected, soiled         bool
}

// simulated is a kernel whose reclaim takes cold cache first. When there is less of it than
// of hot cache, reclaim counts a part of the hot cache as cold, and takes that next.
type simulated struct {
	memory map[string]*memory
	order  []string
	greed  uint64 // it takes so many times what it is asked for
	swap   bool
	old    bool // it cannot spare the memory of processes
	// inwards says that reclaim takes from the groups within first.
	inwards bool
	fail    map[string]error // what reclaim of a group returns
	asked   []uint64
	of      []string          // which groups
	looked  func(name string) // is called at each look of the dropper
	// lag is how many bytes are reclaimed before the figures are updated, and unseen how
	// many were since. last are the figures.
	lag, unseen uint64
	last        map[string]figures
	after       func() // is called after each reclaim
}

func (s *simulated) groups(context.Context) (all []group, err error) {
	for _, name := range s.order {
		f, err := s.sum(name)
		if err != nil {
			return all, err
		}
		m := s.memory[name]
		around := slices.IndexFunc(all, func(g group) bool { return slices.Contains(g.within, name) })
		all = append(all, group{
			folder: name, around: around, within: m.within, figures: f, protected: m.protected,
		})
	}
	return all, nil
}

func (s *simulated) figures(name string) (figures, error) {
	if s.looked != nil {
		s.looked(name)
	}
	return s.sum(name)
}

// sum returns the figures of a group and of those within it.
func (s *simulated) sum(name string) (f figures, err error) {
	m := s.memory[name]
	if m == nil {
		return f, fs.ErrNotExist
	}
	if f, ok := s.last[name]; ok {
		return f, nil
	}
	f = figures{cold: m.cold + m.demoted, taken: m.taken, soiled: m.soiled}
	for _, inner := range m.within {
		g, err := s.sum(inner)
		if err != nil {
			return f, err
		}
		f.cold, f.taken = f.cold+g.cold, f.taken+g.taken
	}
	if s.lag > 0 {
		s.last[name] = f
	}
	return f, nil
}

func (s *simulated) reclaim(name string, bytes uint64, spare bool) error {
	if spare && s.old {
		return unix.EINVAL
	}
	s.asked, s.of = append(s.asked, bytes), append(s.of, name)
	m := s.memory[name]
	want := bytes * s.greed
	from := append([]string{name}, m.within...)
	if s.inwards {
		slices.Reverse(from)
	}
	for _, name := range from {
		g := s.memory[name]
		for _, part := range []*uint64{&g.cold, &g.demoted, &g.hot} {
			n := min(want, *part)
			*part, want, g.taken = *part-n, want-n, g.taken+n
			s.unseen += n
		}
		if g.cold+g.demoted < g.hot {
			g.demoted, g.hot = g.demoted+g.hot/2, g.hot-g.hot/2
		}
	}
	if s.unseen >= s.lag {
		s.last, s.unseen = make(map[string]figures), 0
	}
	if s.after != nil {
		s.after()
	}
	if want > 0 {
		return errors.Join(s.fail[name], unix.EAGAIN)
	}
	return s.fail[name]
}

func (s *simulated) swaps() (bool, error) { return s.swap, nil }

// drop runs a dropper and returns what it says that it dropped.
func drop(t *testing.T, s *simulated, most uint64) (sum uint64, err error) {
	t.Helper()
	s.last = make(map[string]figures)
	d := &Dropper{kernel: s}
	err = d.Drop(t.Context(), most, func(n uint64) { sum += n })
	return sum, err
}

func oneGroup(greed, cold, hot uint64) *simulated {
	return &simulated{
		greed: greed, order: []string{"a"},
		memory: map[string]*memory{"a": {cold: cold, hot: hot}},
	}
}

func TestColdCacheGoesAndHotCacheStays(t *testing.T) {
	for _, greed := range []uint64{1, 2} {
		for _, cold := range []uint64{0, 1 * mib, 5 * mib, 64 * mib, 1000 * mib} {
			s := oneGroup(greed, cold, 32*mib)
			sum, err := drop(t, s, 1<<40)
			m := s.memory["a"]
			if hot := m.demoted + m.hot; err != nil || hot != 32*mib || m.cold > 2*mib || sum != m.taken {
				t.Errorf("greed %d, %d MiB cold: %d hot and %d cold bytes are left, %d dropped, %v",
					greed, cold/mib, hot, m.cold, sum, err)
			}
		}
	}
}

func TestNoMoreIsDroppedThanAllowed(t *testing.T) {
	for _, greed := range []uint64{1, 2} {
		s := oneGroup(greed, 500*mib, 0)
		sum, err := drop(t, s, 40*mib)
		if err != nil || sum > 40*mib || sum < 38*mib || s.memory["a"].taken != sum {
			t.Errorf("greed %d: %d bytes are dropped, %d counted: %v", greed, s.memory["a"].taken, sum, err)
		}
		if most := slices.Max(s.asked); most > mostAtOnce {
			t.Errorf("the kernel is asked for %d bytes at once", most)
		}
	}
}

// With many CPUs the kernel's figures are old. What the kernel was asked for counts then.
func TestFiguresThatAreOld(t *testing.T) {
	for _, lag := range []uint64{1 * mib, 20 * mib, 1 << 40} {
		s := oneGroup(1, 500*mib, 32*mib)
		s.lag = lag
		sum, err := drop(t, s, 40*mib)
		if err != nil || sum > 40*mib || sum < 38*mib || s.memory["a"].taken != sum {
			t.Errorf("lag %d: %d bytes are dropped, %d counted: %v", lag, s.memory["a"].taken, sum, err)
		}
		sum, err = drop(t, s, 1<<40)
		m := s.memory["a"]
		if hot := m.demoted + m.hot; err != nil || hot != 32*mib || sum < 400*mib {
			t.Errorf("lag %d: %d hot bytes are left, %d dropped: %v", lag, hot, sum, err)
		}
	}
}

// What a group has of its own, such as the cache of a group that is gone, is dropped. The
// hot cache of a group within it is not taken for it.
func TestGroupsWithinOthers(t *testing.T) {
	for _, inwards := range []bool{false, true} {
		s := &simulated{greed: 1, inwards: inwards, order: []string{"out", "in"}}
		in := &memory{cold: 10 * mib, hot: 50 * mib}
		out := &memory{cold: 100 * mib, within: []string{"in"}}
		s.memory = map[string]*memory{"in": in, "out": out}
		if _, err := drop(t, s, 1<<40); err != nil {
			t.Fatal(err)
		}
		mayLose := uint64(0)
		if inwards {
			mayLose = leastAtOnce // then it is noticed
		}
		if hot := in.demoted + in.hot; hot < 50*mib-mayLose || in.cold > 2*mib ||
			out.cold > 2*mib && !inwards {
			t.Errorf("inwards %v: inside %+v, outside %+v are left", inwards, in, out)
		}
	}
}

// Of very many groups those are asked first that have much. The others are not looked at
// again.
func TestLargeGroupsComeFirst(t *testing.T) {
	s := &simulated{greed: 1, order: []string{"out"}, memory: map[string]*memory{}}
	out := &memory{cold: 8 * mib}
	s.memory["out"] = out
	for i := range 1000 {
		name := fmt.Sprint(i)
		s.order, out.within = append(s.order, name), append(out.within, name)
		s.memory[name] = &memory{cold: mib - 1}
	}
	s.memory["500"].cold, s.memory["700"].cold = 32*mib, 64*mib
	all, err := s.groups(t.Context())
	if n := len(worthwhile(all)); err != nil || n != 3 {
		t.Errorf("%d of %d groups are worth a look: %v", n, len(all), err)
	}
	if _, err := drop(t, s, 1<<40); err != nil {
		t.Fatal(err)
	}
	if order := slices.Compact(s.of); !slices.Equal(order, []string{"700", "500", "out"}) {
		t.Errorf("asked in the order %v", order)
	}
}

// The time may end while the figures of the groups within are read. What was dropped counts.
func TestTimeThatEndsAtALook(t *testing.T) {
	for steps, want := range []error{errTime, nil} {
		s := &simulated{greed: 1, order: []string{"out"}, memory: map[string]*memory{}}
		out := &memory{cold: 64 * mib}
		s.memory["out"] = out
		for i := range 100 {
			name := fmt.Sprint(i)
			out.within, s.memory[name] = append(out.within, name), &memory{}
		}
		ctx, cancel := context.WithCancel(t.Context())
		sum := uint64(0)
		s.looked = func(name string) {
			if ctx.Err() != nil {
				t.Errorf("%q is looked at after the end", name)
			}
			if name == "50" && len(s.asked) == steps {
				cancel()
			}
		}
		d := &Dropper{kernel: s}
		err := d.Drop(ctx, 1<<40, func(n uint64) { sum += n })
		if !errors.Is(err, want) || want == nil && err != nil || len(s.asked) != steps ||
			sum != out.taken {
			t.Errorf("%d bytes are dropped, %d counted, in %d steps: %v", out.taken, sum, len(s.asked), err)
		}
		cancel()
	}
}

func TestGroupWithinThatGoesMeanwhile(t *testing.T) {
	s := &simulated{greed: 1, order: []string{"out"}}
	in, out := &memory{taken: 99 * mib}, &memory{cold: 100 * mib, within: []string{"in"}}
	s.memory = map[string]*memory{"in": in, "out": out}
	s.after = func() {
		if out.within != nil { // what was taken of it is counted outside from now on
			out.within, out.taken = nil, out.taken+in.taken
			delete(s.memory, "in")
		}
	}
	if sum, err := drop(t, s, 1<<40); err != nil || out.cold > 2*mib || sum > 100*mib {
		t.Errorf("%d bytes are dropped, %d are left: %v", sum, out.cold, err)
	}
}

// Reclaim does not heed the protection of the group that it is asked of.
func TestProtectedGroupsKeepTheirCache(t *testing.T) {
	s := oneGroup(1, 64*mib, 0)
	s.order = []string{"a", "b"}
	s.memory["b"] = &memory{cold: 64 * mib, protected: true}
	if _, err := drop(t, s, 1<<40); err != nil || s.memory["a"].taken == 0 ||
		s.memory["b"].taken != 0 {
		t.Errorf("%+v, and of the protected group %+v: %v", s.memory["a"], s.memory["b"], err)
	}
}

// Reclaim would have the kernel write dirty pages back.
func TestNothingIsDroppedWhereMuchIsDirty(t *testing.T) {
	s := oneGroup(1, 64*mib, 0)
	s.memory["a"].soiled = true
	if sum, err := drop(t, s, 1<<40); err != nil || sum != 0 || s.asked != nil {
		t.Errorf("the kernel is asked for %d: %v", s.asked, err)
	}
	s = oneGroup(1, 64*mib, 0)
	s.after = func() { s.memory["a"].soiled = true }
	if sum, err := drop(t, s, 1<<40); err != nil || sum == 0 || len(s.asked) != 1 {
		t.Errorf("pages get dirty meanwhile: the kernel is asked for %d: %v", s.asked, err)
	}
}

func TestProtectionHoldsForGroupsWithin(t *testing.T) {
	c := tree(t, "", "min", "min/in", "low", "low/in", "open", "open/in")
	for name, text := range map[string]string{
		"min/memory.min": "4096\n", "min/memory.low": "0\n", "low/memory.min": "0\n",
		"low/memory.low": "max\n", "open/memory.min": "0\n", "open/memory.low": "0\n",
	} {
		if err := os.WriteFile(filepath.Join(c.root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.groups(t.Context())
	if err != nil || len(all) != 7 {
		t.Fatalf("%d groups: %v", len(all), err)
	}
	for _, g := range all {
		name := strings.TrimPrefix(g.folder, c.root)
		want := strings.HasPrefix(name, "/min") || strings.HasPrefix(name, "/low")
		if g.protected != want {
			t.Errorf("%q is protected: %v", name, g.protected)
		}
	}
}

func TestDroppingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := oneGroup(1, 1000*mib, 0)
	s.after = cancel
	d := &Dropper{kernel: s}
	if err := d.Drop(ctx, 1<<40, func(uint64) {}); err != nil || len(s.asked) != 1 {
		t.Errorf("%d steps: %v", len(s.asked), err)
	}
}

func TestFailureOfOneGroup(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct{ err, want error }{
		"an error":                  {broken, broken},
		"a group that is gone":      {unix.ENODEV, nil},
		"a reclaim that found less": {unix.EAGAIN, nil},
		"a signal":                  {unix.EINTR, nil},
	} {
		s := oneGroup(1, 64*mib, 0)
		s.order = []string{"b", "a"}
		s.memory["b"] = &memory{cold: 64 * mib}
		s.fail = map[string]error{"b": tc.err}
		if _, err := drop(t, s, 1<<40); !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left := s.memory["a"].cold; left > 2*mib {
			t.Errorf("%s: %d bytes of the other group are left", name, left)
		}
	}
}

func TestNothingIsDroppedWhereItWouldBeSwapped(t *testing.T) {
	s := oneGroup(1, 64*mib, 0)
	s.swap = true
	if sum, err := drop(t, s, 1<<40); !errors.Is(err, errSwap) || sum != 0 || s.asked != nil {
		t.Errorf("%d bytes are dropped: %v", sum, err)
	}
	d := &Dropper{kernel: s, spares: true}
	if err := d.Drop(t.Context(), 1<<40, func(uint64) {}); err != nil || s.asked == nil {
		t.Errorf("a kernel that can spare the memory of processes: %v", err)
	}
}

const stat = "anon 5\nfile_mapped 2097152\nfile_dirty 1048576\nfile_writeback 4096\n" +
	"inactive_file 7340032\npgsteal 7\n"

func TestFiguresOfAGroup(t *testing.T) {
	f, err := parseFigures([]byte(stat), 4096)
	if want := (figures{cold: 4*mib - 4096, taken: 7 * 4096}); err != nil || f != want {
		t.Errorf("%+v, want %+v: %v", f, want, err)
	}
	for size, want := range map[string]bool{"4194304": false, "4194300": true, "0": true} {
		f, err := parseFigures([]byte(strings.Replace(stat, "7340032", size, 1)), 4096)
		if err != nil || f.soiled != want {
			t.Errorf("1 MiB of %s bytes is dirty, and that is too much: %v, %v", size, f.soiled, err)
		}
	}
	f, err = parseFigures([]byte(strings.Replace(stat, "7340032", "3", 1)), 4096)
	if err != nil || f.cold != 0 {
		t.Errorf("more is dirty and mapped than there is: %+v, %v", f, err)
	}
	for _, text := range []string{
		"", strings.Replace(stat, "file_mapped", "mapped", 1), strings.Replace(stat, "7", "x", 1),
	} {
		if _, err := parseFigures([]byte(text), 4096); err == nil {
			t.Errorf("%q has figures", text)
		}
	}
}
