// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/virtio"
)

// fakeQueue keeps chains until the test uses them.
type fakeQueue struct {
	size       int
	segments   int // how many segments a chain may have
	chains     []fakeChain
	used       []fakeUsed
	kicks      int
	interrupts bool
}

type fakeChain struct {
	token   int
	out, in []dma.Slice
}

type fakeUsed struct {
	token   int
	written uint32
}

func (q *fakeQueue) Add(token int, out, in []dma.Slice) error {
	if len(q.chains) == q.size {
		return virtio.ErrQueueFull
	}
	q.chains = append(q.chains, fakeChain{token, append([]dma.Slice(nil), out...), in})
	return nil
}

func (q *fakeQueue) Used() (int, uint32, bool, error) {
	if len(q.used) == 0 {
		return 0, 0, false, nil
	}
	u := q.used[0]
	q.used = q.used[1:]
	return u.token, u.written, true, nil
}

func (q *fakeQueue) WantInterrupts(want bool) { q.interrupts = want }
func (q *fakeQueue) Kick()                    { q.kicks++ }
func (q *fakeQueue) InFlight() int            { return len(q.chains) + len(q.used) }
func (q *fakeQueue) MaxSegments() int         { return q.segments }

// use writes p into the oldest chain and gives it back, as the device does.
func (q *fakeQueue) use(p []byte) {
	chain := q.chains[0]
	q.chains = q.chains[1:]
	if p != nil {
		copy(chain.in[0].Bytes(), p)
	}
	q.used = append(q.used, fakeUsed{chain.token, uint32(len(p))})
}

// content returns what the device reads from the i-th chain.
func (q *fakeQueue) content(i int) []byte {
	var p []byte
	for _, s := range q.chains[i].out {
		p = append(p, s.Bytes()...)
	}
	return p
}

// fakeDevice interrupts when the test tells it to.
type fakeDevice struct {
	config []byte
	onWait func() (changed bool, err error)
	wakes  int // calls of Interrupt
	health error
	closed bool
}

func (d *fakeDevice) Wait(time.Duration) (bool, error) { return d.onWait() }
func (d *fakeDevice) ReadConfig(p []byte) int          { return copy(p, d.config) }
func (d *fakeDevice) Healthy() error                   { return d.health }
func (d *fakeDevice) Interrupt()                       { d.wakes++ }
func (d *fakeDevice) Close() error                     { d.closed = true; return nil }

type fixture struct {
	*PCI
	device         *fakeDevice
	events, report *fakeQueue
}

func newFixture(t *testing.T, reportSize int) *fixture {
	t.Helper()
	f := &fixture{
		device: &fakeDevice{onWait: func() (bool, error) {
			return false, errors.New("nothing happens any more")
		}},
		events: &fakeQueue{size: 8, segments: 64},
		report: &fakeQueue{size: reportSize, segments: 64},
	}
	config := protocol.Config{Flags: protocol.ConfigEnabled, BudgetUS: 500}
	f.device.config = make([]byte, protocol.ConfigSize)
	config.Encode(f.device.config)
	memory := dma.Fixed(make([]byte, 9*4096), 4096, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9})
	var err error
	f.PCI, err = newPCI(f.device, f.events, f.report, memory, nil, protocol.EventSize, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func encodeEvent(e protocol.Event) []byte {
	p := make([]byte, protocol.EventSize)
	e.Encode(p)
	return p
}

func TestEventsArriveAndBuffersGoBack(t *testing.T) {
	f := newFixture(t, 8)
	if len(f.events.chains) != eventBuffers {
		t.Fatalf("%d buffers for events", len(f.events.chains))
	}
	if _, ok, err := f.Receive(0); ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	next := uint64(0)
	f.device.onWait = func() (bool, error) {
		next++
		f.events.use(encodeEvent(protocol.Event{Type: protocol.EventReportFree, Generation: next}))
		return false, nil
	}
	for want := uint64(1); want <= 3*eventBuffers; want++ {
		event, ok, err := f.Receive(agent.Forever)
		if err != nil || !ok || event.Generation != want {
			t.Fatalf("%v, %v, %v; want generation %d", event, ok, err, want)
		}
		if len(f.events.chains) != eventBuffers {
			t.Fatalf("%d buffers left", len(f.events.chains))
		}
	}
}

func TestShortEventIsDropped(t *testing.T) {
	f := newFixture(t, 8)
	f.events.use(make([]byte, 31))
	f.events.use(encodeEvent(protocol.Event{Type: protocol.EventCancel}))
	event, ok, err := f.Receive(0)
	if err != nil || !ok || event.Type != protocol.EventCancel {
		t.Fatalf("%v, %v, %v", event, ok, err)
	}
}

func TestConfigurationIsReadAgainWhenItChanges(t *testing.T) {
	f := newFixture(t, 8)
	if got := f.config; got.BudgetUS != 500 || got.Flags != protocol.ConfigEnabled {
		t.Fatalf("%+v", got)
	}
	f.device.onWait = func() (bool, error) {
		changed := protocol.Config{BudgetUS: 900}
		changed.Encode(f.device.config)
		f.events.use(encodeEvent(protocol.Event{Type: protocol.EventChanged}))
		return true, nil
	}
	if _, _, err := f.Receive(agent.Forever); err != nil {
		t.Fatal(err)
	}
	if got := f.config; got.BudgetUS != 900 || got.Flags != 0 {
		t.Fatalf("%+v", got)
	}
}

func TestReceiveGoesOnWaitingForAHealthyDevice(t *testing.T) {
	f := newFixture(t, 8)
	waits := 0
	f.device.onWait = func() (bool, error) {
		if waits++; waits == 4 {
			f.events.use(encodeEvent(protocol.Event{Type: protocol.EventReportFree, Generation: 7}))
		}
		return true, nil
	}
	event, ok, err := f.Receive(agent.Forever)
	if err != nil || !ok || event.Generation != 7 || waits != 4 {
		t.Fatalf("%v, %v, %v after %d waits", event, ok, err, waits)
	}
}

func TestDeviceThatFailsEndsReceive(t *testing.T) {
	f := newFixture(t, 8)
	f.device.health = virtio.ErrNeedsReset
	f.device.onWait = func() (bool, error) { return true, nil }
	if _, _, err := f.Receive(agent.Forever); !errors.Is(err, virtio.ErrNeedsReset) {
		t.Fatalf("error %v", err)
	}
	f.device.onWait = func() (bool, error) { return false, virtio.ErrInterrupted }
	if _, _, err := f.Receive(agent.Forever); !errors.Is(err, agent.ErrInterrupted) {
		t.Fatalf("error %v", err)
	}
}

func TestMessageIsOneChainWithoutCopyOfItsBody(t *testing.T) {
	f := newFixture(t, 8)
	f.bodies = dma.Fixed(bytes.Repeat([]byte{7}, 4096), 4096, []uint64{77})
	body := f.bodies.Bytes()[16:80]
	head := bytes.Repeat([]byte{1}, agent.MaxHead)
	tail := bytes.Repeat([]byte{2}, agent.MaxTail)
	if err := f.Send(agent.Message{Head: head, Body: body, Tail: tail}); err != nil {
		t.Fatal(err)
	}
	clear(head)
	if got := f.report.chains[0].out[1]; got.Addr() != 77*4096+16 {
		t.Fatalf("the body is read from %#x", got.Addr())
	}
	want := bytes.Join([][]byte{bytes.Repeat([]byte{1}, agent.MaxHead), body, tail}, nil)
	if got := f.report.content(0); !bytes.Equal(got, want) {
		t.Fatalf("the device reads %x", got)
	}
	if f.report.kicks != 0 {
		t.Fatal("kicked before the flush")
	}
	f.Flush()
	if f.report.kicks != 1 {
		t.Fatal("not kicked")
	}
}

// A body that is outside of the shared region must not be sent: the device would read
// other memory.
func TestBodyOutsideOfTheRegionIsNotSent(t *testing.T) {
	f := newFixture(t, 8)
	for name, region := range map[string]*dma.Region{
		"no region":      nil,
		"another region": dma.Fixed(make([]byte, 4096), 4096, []uint64{77}),
	} {
		f.bodies = region
		if err := f.Send(agent.Message{Head: []byte{1}, Body: make([]byte, 64)}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if len(f.report.chains) != 0 || len(f.free) != messageSlots {
			t.Errorf("%s: %d chains, %d slots left", name, len(f.report.chains), len(f.free))
		}
	}
}

// The end of the agent, or of a load, may come while it waits for room. It must not wait for
// ever for an event then.
func TestAnInterruptMeantForReceiveIsKept(t *testing.T) {
	f := newFixture(t, 2)
	waits := 0
	f.device.onWait = func() (bool, error) {
		if waits++; waits == 1 {
			return false, virtio.ErrInterrupted
		}
		f.report.use(nil)
		return false, nil
	}
	for range 3 {
		if err := f.Send(agent.Message{Head: []byte{1}}); err != nil {
			t.Fatal(err)
		}
	}
	if waits != 2 || f.device.wakes != 1 {
		t.Errorf("%d waits, and %d interrupts for Receive", waits, f.device.wakes)
	}
}

func TestSendWaitsForRoom(t *testing.T) {
	for name, size := range map[string]int{"in a short queue": 2, "in the slots": 1000} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, size)
			var waits int
			f.device.onWait = func() (bool, error) {
				if !f.report.interrupts {
					t.Error("waits without interrupts")
				}
				waits++
				f.report.use(nil)
				return false, nil
			}
			for i := range messageSlots + 5 {
				var head [8]byte
				binary.LittleEndian.PutUint64(head[:], uint64(i))
				if err := f.Send(agent.Message{Head: head[:]}); err != nil {
					t.Fatal(err)
				}
			}
			want := messageSlots + 5 - min(size, messageSlots)
			if waits != want || f.report.interrupts {
				t.Fatalf("waited %d times, want %d", waits, want)
			}
			// The messages that the device has not read are complete and in order.
			n := len(f.report.chains)
			for i := range n {
				got := binary.LittleEndian.Uint64(f.report.content(i))
				if got != uint64(messageSlots+5-n+i) {
					t.Fatalf("message %d of %d is %d", i, n, got)
				}
			}
		})
	}
}

func TestDrainWaitsForAll(t *testing.T) {
	f := newFixture(t, 8)
	for range 3 {
		if err := f.Send(agent.Message{Head: []byte{1}}); err != nil {
			t.Fatal(err)
		}
	}
	f.device.onWait = func() (bool, error) { f.report.use(nil); return false, nil }
	if err := f.Drain(time.Hour); err != nil || f.report.InFlight() != 0 {
		t.Fatalf("%v, %d in flight", err, f.report.InFlight())
	}
	if err := f.Send(agent.Message{Head: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	f.device.onWait = func() (bool, error) { return false, nil }
	if err := f.Drain(0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
}

func TestLargestBodyFitsAChain(t *testing.T) {
	f := newFixture(t, 8)
	frames := make([]uint64, 64)
	for i := range frames {
		frames[i] = uint64(2 * i) // no two are neighbours
	}
	region := dma.Fixed(make([]byte, 64*4096), 4096, frames)
	worst := region.Slice(8, f.MaxBody())
	if got := len(worst.AppendSegments(nil)) + 2; got > f.report.MaxSegments() {
		t.Fatalf("%d segments, at most %d are possible", got, f.report.MaxSegments())
	}
}

// A chain needs at least four segments: the header, records in two pages, and the trailer.
func TestQueueThatIsTooShortForAReport(t *testing.T) {
	for segments, ok := range map[int]bool{1: false, 2: false, 3: false, 4: true} {
		config := make([]byte, protocol.ConfigSize)
		memory := dma.Fixed(make([]byte, 9*4096), 4096, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9})
		events, report := &fakeQueue{size: 8}, &fakeQueue{size: 8, segments: segments}
		d := &fakeDevice{config: config}
		_, err := newPCI(d, events, report, memory, nil, protocol.EventSize, nil)
		if (err == nil) != ok {
			t.Errorf("%d segments: %v", segments, err)
		}
	}
}

// The device may be another one than before, without a notification of it so far.
func TestConfigurationIsReadAnewForPrograms(t *testing.T) {
	f := newFixture(t, 8)
	for _, knows := range []bool{true, false} {
		config := protocol.Config{Flags: protocol.ConfigEnabled}
		if knows {
			config.Flags |= protocol.ConfigPrograms
		}
		config.Encode(f.device.config)
		if f.KnowsPrograms() != knows {
			t.Errorf("the flags are %#x", config.Flags)
		}
	}
	f.device.config = nil
	if f.KnowsPrograms() {
		t.Error("a device without a configuration knows programs")
	}
}
