// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeRefresh is a file whose reads return an error. With release, they wait until it is
// closed.
type fakeRefresh struct {
	err     error
	release chan struct{}
	reads   atomic.Int32
}

func (f *fakeRefresh) ReadAt([]byte, int64) (int, error) {
	f.reads.Add(1)
	if f.release != nil {
		<-f.release
	}
	return 0, f.err
}

func TestDrain(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		limit time.Duration
		want  int32 // rounds
	}{
		"all rounds within the limit":             {io.EOF, time.Hour, drainReaders * drainRounds},
		"one round of each past the limit":        {io.EOF, -1, drainReaders},
		"an error of the kernel's ends it, quiet": {unix.EINVAL, time.Hour, drainReaders},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeRefresh{err: c.err}
			d := newDrain(f, c.limit)
			d.run()
			d.turn <- struct{}{} // after the last read
			if got := f.reads.Load(); got != c.want {
				t.Errorf("%d rounds, want %d", got, c.want)
			}
		})
	}
}

func TestDrainLeavesRoundsThatHang(t *testing.T) {
	f := &fakeRefresh{err: io.EOF, release: make(chan struct{})}
	d := newDrain(f, time.Millisecond)
	d.run()
	d.run() // it does not wait for the round that hangs
	close(f.release)
	d.turn <- struct{}{}
	if got := f.reads.Load(); got > drainReaders {
		t.Errorf("%d rounds, want only those %d that hung", got, drainReaders)
	}
}

func TestDrainSparesIsolatedCPUs(t *testing.T) {
	absent, list := filepath.Join(t.TempDir(), "absent"), filepath.Join(t.TempDir(), "list")
	f := &fakeRefresh{err: io.EOF}
	d := newDrain(f, time.Hour, absent, list)
	for _, c := range []struct {
		cpus string // the content at each read, in turn
		want int32  // rounds
	}{
		{"", drainReaders * drainRounds},
		{"\n", drainReaders * drainRounds},
		{"2-3\n", 0},
		{"  (null)\n", drainReaders * drainRounds},
		{"0\n", 0},
	} {
		if err := os.WriteFile(list, []byte(c.cpus), 0o600); err != nil {
			t.Fatal(err)
		}
		f.reads.Store(0)
		d.run()
		if got := f.reads.Load(); got != c.want {
			t.Errorf("%q are isolated: %d rounds, want %d", c.cpus, got, c.want)
		}
	}
}

func TestKernelWithoutADrain(t *testing.T) {
	var d *drain
	if took := d.run(); took != 0 {
		t.Errorf("what is not there took %v", took)
	}
}
