// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// startTee starts a relay to several destinations, which all get what the source sends. The source
// hears what the first of them answers. It ends with the source, or with the test.
func startTee(t *testing.T, to []string) (socket string) {
	t.Helper()
	return relayOne(t, func(from net.Conn) {
		var done sync.WaitGroup
		defer done.Wait()
		var all []io.Writer
		for i, path := range to {
			dst, err := net.Dial("unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			defer dst.Close()
			all = append(all, untroubled{dst})
			answers := io.Writer(from)
			if i > 0 {
				answers = io.Discard
			}
			done.Go(func() { _, _ = io.Copy(answers, dst) })
		}
		_, _ = io.Copy(io.MultiWriter(all...), from)
	})
}

// untroubled is a destination whose end is not the others' trouble.
type untroubled struct{ net.Conn }

func (u untroubled) Write(p []byte) (int, error) {
	_, _ = u.Conn.Write(p)
	return len(p), nil
}

// racers are VMs that take the same stream, and the VM that sends it.
type racers struct {
	src  *machine
	dst  [2]*machine
	want []byte // the memory
}

// startRacers hands a VM's memory over to two at once. Each waits for cont.
func startRacers(t *testing.T) *racers {
	t.Helper()
	pool := newPool(t)
	r := &racers{src: startOnPool(t, pool, "source")}
	r.want = r.src.memory()
	r.src.capabilities("x-ignore-shared", "return-path", "events")
	var to []string
	for i, name := range []string{"one", "another"} {
		c := onPool(pool, name, "on")
		c.Options = append(c.Options, "-S")
		m := startIncoming(t, c)
		m.capabilities("x-ignore-shared", "return-path", "events")
		to = append(to, filepath.Join(t.TempDir(), "dst"))
		m.execute("migrate-incoming", map[string]any{"uri": "unix:" + to[i], "exit-on-error": false})
		r.dst[i] = m
	}
	r.src.execute("migrate", map[string]any{"uri": "unix:" + startTee(t, to)})
	for _, m := range []*machine{r.src, r.dst[0], r.dst[1]} {
		m.await("the migration has ended", func() bool {
			figures, err := m.QueryMigrate(m.ctx)
			return err == nil && figures.Ended()
		})
	}
	return r
}

// goOn has both go on at the same time, and returns why each could not.
func (r *racers) goOn() (refused [2]error) {
	var both sync.WaitGroup
	for i, m := range r.dst {
		both.Go(func() { refused[i] = m.cont() })
	}
	both.Wait()
	return refused
}

// Two VMs have all of one VM's state, and go on at the same time. One of them gets the pool, or
// neither, as each has kept the other from being believed: then the source goes on. No two run.
func TestTwoDestinationsRaceForOnePool(t *testing.T) {
	won := [3]int{}
	for range 4 {
		r := startRacers(t)
		refused := r.goOn()
		runs := r.src
		switch {
		case refused[0] == nil && refused[1] == nil:
			t.Fatal("both run")
		case refused[0] == nil:
			runs = r.dst[0]
		case refused[1] == nil:
			runs = r.dst[1]
		}
		runs.requireRuns()
		runs.requireMemory(r.want)
		for i, m := range []*machine{r.dst[0], r.dst[1], r.src} {
			if m == runs {
				won[i]++
				continue
			}
			requireStopped(t, m)
			if err := m.cont(); err == nil {
				t.Errorf("%s goes on, too", m.identity())
			}
		}
	}
	t.Logf("the destinations and the source have gone on %d times", won)
}
