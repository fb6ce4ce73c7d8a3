// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// patience is how long a test waits before it is taken to hang. It is no requirement.
const patience = 20 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// driver drives the program as QEMU and a guest do.
type driver struct {
	t     *testing.T
	guest *vhosttest.Guest
	f     *vhosttest.Frontend
	q     *vhosttest.Queue
	path  string // path of the disk's file
}

const diskBlocks = 16

// newDriver runs the program over a new file, whose block n is full of byte n.
func newDriver(t *testing.T, args ...string) *driver {
	t.Helper()
	d := &driver{t: t, path: filepath.Join(t.TempDir(), "disk")}
	var content []byte
	for n := range diskBlocks {
		content = append(content, bytes.Repeat([]byte{byte(n)}, blockSize)...)
	}
	must(t, os.WriteFile(d.path, append(content, "less than a block"...), 0o600))
	socket := filepath.Join(t.TempDir(), "s")
	done := make(chan error, 1)
	go func() {
		args := append([]string{"--socket-path=" + socket, "--blk-file=" + d.path}, args...)
		done <- newProgram().Run(t.Context(), args, nil, zaptest.NewLogger(t))
	}()
	t.Cleanup(func() { must(t, <-done) }) // t.Context has ended by then
	d.connect(socket, done)
	return d
}

// connect connects to the program and starts the device. An error from done means that
// the program has ended: the test fails at once.
func (d *driver) connect(socket string, done <-chan error) {
	t := d.t
	t.Helper()
	var err error
	d.guest, err = vhosttest.NewGuest(1 << 20)
	must(t, err)
	t.Cleanup(d.guest.Close)
	d.q, err = vhosttest.NewQueue(d.guest, 0, 64)
	must(t, err)
	t.Cleanup(d.q.Close)
	for d.f, err = vhosttest.Dial(socket); err != nil; d.f, err = vhosttest.Dial(socket) {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	t.Cleanup(d.f.Close)
	must(t, d.f.Realize(vhosttest.Options{Queues: []*vhosttest.Queue{d.q}}))
	must(t, d.f.Start(d.guest,
		uint64(d.f.Offered)&^(1<<wire.FeatureLogAll|1<<wire.FeatureRingPacked|1<<wire.FeatureEventIdx),
		d.q))
}

// request is a block request. Its data goes to the device or comes from it.
type request struct {
	kind   uint32
	sector uint64
	data   []byte
	room   int
}

func (r request) header() []byte {
	b := binary.LittleEndian.AppendUint32(nil, r.kind)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint64(b, r.sector)
}

// pending is a request that was submitted and not answered yet.
type pending struct {
	head uint32
	addr uint64
	room int
}

// submit makes a request available. cut splits it into several descriptors for each
// direction, as drivers may.
func (d *driver) submit(r request, cut int) pending {
	d.t.Helper()
	out := append(r.header(), r.data...)
	addr := d.guest.Alloc(uint64(len(out)))
	d.guest.Write(addr, out)
	back := d.guest.Alloc(uint64(r.room + 1))
	d.guest.Write(back+uint64(r.room), []byte{0xee})
	var bufs []vhosttest.Buffer
	add := func(addr uint64, n int, write bool) {
		first := min(cut, n)
		for _, part := range []int{first, n - first} {
			if part > 0 {
				bufs = append(bufs, vhosttest.Buffer{Addr: addr, Len: uint32(part), Write: write})
			}
			addr += uint64(part)
		}
	}
	add(addr, len(out), false)
	add(back, r.room+1, true)
	head, err := d.q.Add(bufs...)
	must(d.t, err)
	return pending{head: head, addr: back, room: r.room}
}

// do carries a request out and returns its status and data.
func (d *driver) do(r request, cut int) (status byte, data []byte, written uint32) {
	d.t.Helper()
	p := d.submit(r, cut)
	must(d.t, d.q.Kick.Raise())
	u, err := d.q.Wait(patience)
	must(d.t, err)
	if u.Head != p.head {
		d.t.Fatalf("chain %d was used, not %d", u.Head, p.head)
	}
	b := d.guest.Read(p.addr, uint64(r.room+1))
	return b[r.room], b[:r.room], u.Len
}

func (d *driver) file() []byte {
	d.t.Helper()
	b, err := os.ReadFile(d.path)
	must(d.t, err)
	return b
}

func block(n byte) []byte { return bytes.Repeat([]byte{n}, blockSize) }

func TestRequestsReachTheFile(t *testing.T) {
	const first, second = 1, 2 // blocks
	at := func(block int) uint64 { return uint64(block) * blockSize / sectorSize }
	for _, cut := range []int{1 << 20, 7} {
		d := newDriver(t)
		if status, data, n := d.do(request{kind: typeIn, sector: at(5), room: blockSize},
			cut); status != statusOK || !bytes.Equal(data, block(5)) || n != blockSize+1 {
			t.Errorf("read: status %d, %d bytes, the first is %d", status, n, data[0])
		}
		if status, _, _ := d.do(request{kind: typeOut, sector: at(first), data: block('x')},
			cut); status != statusOK {
			t.Errorf("write: status %d", status)
		}
		if status, _, _ := d.do(request{kind: typeFlush}, cut); status != statusOK {
			t.Errorf("flush: status %d", status)
		}
		if status, data, _ := d.do(request{kind: typeGetID, room: idSize}, cut); status != statusOK ||
			string(bytes.TrimRight(data, "\x00")) != "vhost-user-blk" {
			t.Errorf("id: status %d, %q", status, data)
		}
		got := d.file()
		for n, want := range map[int]byte{0: 0, first: 'x', second: second, 5: 5, 7: 7} {
			if !bytes.Equal(got[n*blockSize:][:blockSize], block(want)) {
				t.Errorf("block %d begins with %d", n, got[n*blockSize])
			}
		}
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	const end = diskBlocks * blockSize / sectorSize
	d := newDriver(t)
	before := d.file()
	for _, tt := range []struct {
		name string
		request
		want byte
	}{
		{"a read past the end", request{kind: typeIn, sector: end - 1, room: 2 * sectorSize},
			statusIOErr},
		{"a read at the end", request{kind: typeIn, sector: end, room: sectorSize}, statusIOErr},
		{"a read at a sector that wraps", request{kind: typeIn, sector: ^uint64(0), room: sectorSize},
			statusIOErr},
		{"a read of half a sector", request{kind: typeIn, room: 100}, statusIOErr},
		{"a write past the end", request{kind: typeOut, sector: end - 1,
			data: make([]byte, 2*sectorSize)}, statusIOErr},
		{"a write at a sector whose offset wraps", request{kind: typeOut, sector: 1 << 55,
			data: make([]byte, sectorSize)}, statusIOErr},
		{"a write of half a sector", request{kind: typeOut, data: make([]byte, 100)}, statusIOErr},
		{"an unknown type", request{kind: 99, room: sectorSize}, statusUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.t = t
			if status, _, n := d.do(tt.request, 1<<20); status != tt.want || n < 1 || n > uint32(tt.room)+1 {
				t.Errorf("status %d with %d bytes, want status %d", status, n, tt.want)
			}
		})
	}
	d.t = t
	if !bytes.Equal(d.file(), before) {
		t.Error("a refused request changed the file")
	}
}

func TestAHeaderThatIsTooShortIsAnIOError(t *testing.T) {
	d := newDriver(t)
	in, back := d.guest.Alloc(15), d.guest.Alloc(1)
	for _, bufs := range [][]vhosttest.Buffer{
		{{Addr: in, Len: 15}, {Addr: back, Len: 1, Write: true}},
		{{Addr: back, Len: 1, Write: true}},
	} {
		d.guest.Write(back, []byte{0xee})
		_, err := d.q.Add(bufs...)
		must(t, err)
		must(t, d.q.Kick.Raise())
		_, err = d.q.Wait(patience)
		must(t, err)
		if status := d.guest.Read(back, 1)[0]; status != statusIOErr {
			t.Errorf("%d buffers: status %d", len(bufs), status)
		}
	}
}

func TestARequestWithoutAPlaceForItsStatusBreaksTheQueue(t *testing.T) {
	d := newDriver(t)
	broken, err := vhosttest.NewEvent()
	must(t, err)
	defer broken.Close()
	must(t, d.f.SetErr(d.q, broken))
	must(t, d.f.Barrier())
	addr := d.guest.Alloc(16)
	d.guest.Write(addr, request{kind: typeFlush}.header())
	_, err = d.q.Add(vhosttest.Buffer{Addr: addr, Len: 16})
	must(t, err)
	must(t, d.q.Kick.Raise())
	must(t, broken.Wait(patience))
	// The device still runs, and serves the driver again after a reset.
	must(t, d.f.Stop(d.q))
	d.q.Reset()
	must(t, d.f.StartRing(d.q))
	must(t, d.f.Enable(d.q, true))
	if status, _, _ := d.do(request{kind: typeFlush}, 1<<20); status != statusOK {
		t.Errorf("status %d after a reset", status)
	}
}

func TestManyRequestsAtOnceAreAllAnswered(t *testing.T) {
	d := newDriver(t)
	byHead := make(map[uint32]pending)
	want := make(map[uint32]byte)
	for n := range diskBlocks {
		p := d.submit(request{kind: typeIn, sector: uint64(n) * blockSize / sectorSize, room: blockSize},
			1<<20)
		byHead[p.head], want[p.head] = p, byte(n)
	}
	must(t, d.q.Kick.Raise())
	for range diskBlocks {
		u, err := d.q.Wait(patience)
		must(t, err)
		b := d.guest.Read(byHead[u.Head].addr, blockSize+1)
		if b[blockSize] != statusOK || !bytes.Equal(b[:blockSize], block(want[u.Head])) {
			t.Errorf("block %d: status %d, the first byte is %d", want[u.Head], b[blockSize], b[0])
		}
	}
	must(t, d.f.Stop(d.q))
}

func TestConfigDescribesTheDisk(t *testing.T) {
	d := newDriver(t)
	whole, err := d.f.GetConfig(0, 60)
	must(t, err)
	if got := binary.LittleEndian.Uint64(whole); got != diskBlocks*blockSize/sectorSize {
		t.Errorf("capacity is %d sectors", got)
	}
	part, err := d.f.GetConfig(34, 2)
	must(t, err)
	if got := binary.LittleEndian.Uint16(part); got != numQueues || !bytes.Equal(part, whole[34:36]) {
		t.Errorf("%d queues", got)
	}
	if _, err := d.f.GetConfig(50, 60); err == nil {
		t.Error("config was read past its end")
	}
	if err := d.f.SetConfig(0, []byte{1}); err == nil {
		t.Error("config was written")
	}
}

func TestAReadOnlyDiskStaysAsItIs(t *testing.T) {
	d := newDriver(t, "--read-only")
	if d.f.Offered&featureReadOnly == 0 {
		t.Error("the driver is not told")
	}
	before := d.file()
	for _, r := range []request{
		{kind: typeOut, data: block('x')},
	} {
		if status, _, _ := d.do(r, 1<<20); status != statusIOErr {
			t.Errorf("type %d: status %d", r.kind, status)
		}
	}
	if status, data, _ := d.do(request{kind: typeIn, sector: 8, room: sectorSize},
		1<<20); status != statusOK || data[0] != 1 {
		t.Errorf("read: status %d, the first byte is %d", status, data[0])
	}
	if !bytes.Equal(d.file(), before) {
		t.Error("the file has changed")
	}
}

func TestCommandLinesThatAreRefused(t *testing.T) {
	small := filepath.Join(t.TempDir(), "small")
	must(t, os.WriteFile(small, make([]byte, 100), 0o600))
	socket := "--socket-path=" + filepath.Join(t.TempDir(), "s")
	for name, args := range map[string][]string{
		"no disk":            {socket},
		"a disk that is not": {socket, "--blk-file=/no/such/file"},
		"a disk of 100 B":    {socket, "--blk-file=" + small},
		"no socket":          {"--blk-file=" + small},
	} {
		if err := newProgram().Run(t.Context(), args, nil, nil); err == nil ||
			errors.Is(err, t.Context().Err()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var out strings.Builder
	must(t, newProgram().Run(t.Context(), []string{"--print-capabilities", "--unknown"}, &out, nil))
	if !strings.Contains(out.String(), `"block"`) {
		t.Errorf("printed %q", out.String())
	}
}
