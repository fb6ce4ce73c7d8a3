// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/vhostuser"
)

// slow is storage whose reads wait until the test lets them go on. All its bytes have
// the same value.
type slow struct {
	storage
	begun, goOn chan struct{}
}

func (s *slow) ReadAt(p []byte, _ int64) (int, error) {
	close(s.begun)
	<-s.goOn
	copy(p, bytes.Repeat([]byte{7}, len(p)))
	return len(p), nil
}

// A queue stops at the end of a migration, for example. A request that is still under
// way then would change the file while another QEMU uses it.
func TestAQueueStopsWhenNoRequestIsUnderWay(t *testing.T) {
	file := &slow{begun: make(chan struct{}), goOn: make(chan struct{})}
	s, err := vhostuser.NewServer((&disk{file: file, sectors: 8}).device(), zaptest.NewLogger(t))
	must(t, err)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := vhostuser.Listen(socket)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), l) }()
	t.Cleanup(func() { <-done })
	d := &driver{t: t}
	d.connect(socket, done)

	p := d.submit(request{kind: typeIn, room: blockSize}, 16)
	must(t, d.q.Kick.Raise())
	<-file.begun
	stopped := make(chan error, 1)
	go func() { stopped <- d.f.Stop(d.q) }()
	select {
	case err := <-stopped:
		t.Fatalf("the queue stopped with a request under way: %v", err)
	case <-time.After(3 * time.Second): // longer than a stop waits for a Kick
	}
	close(file.goOn)
	must(t, <-stopped)
	u, err := d.q.Wait(patience)
	must(t, err)
	b := d.guest.Read(p.addr, blockSize+1)
	if u.Head != p.head || !bytes.Equal(b[:blockSize], block(7)) || b[blockSize] != statusOK {
		t.Errorf("chain %d with status %d, data %d", u.Head, b[blockSize], b[0])
	}
}
