// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// all is the memory of a machine in bytes.
const all = 64 << 20

// holes is memory in which every second page is zero.
const (
	holes     = 48 << 20
	holesSize = 4 << 20
)

// A snapshot is loaded while the machine runs. What is touched is read from the file,
// what is not in the file is zero and is not read, and the rest comes by itself. Then
// nothing is left of the load: no userfaultfd, and no open file.
func TestFastSnapshotLoad(t *testing.T) {
	for _, tc := range []struct {
		name   string
		memory string
		write  []string // further capabilities of the VM that writes the file
		offset string
		pages  int // of 2 MiB, that the test needs
	}{
		{name: "shared memory", memory: "memory-backend-memfd,id=ram,size=64M,share=on"},
		{name: "anonymous memory", memory: "memory-backend-ram,id=ram,size=64M"},
		{name: "a file of several channels", write: []string{"multifd"}, offset: ",offset=1M"},
		{
			name:   "huge pages",
			memory: "memory-backend-memfd,id=ram,size=64M,hugetlb=on,hugetlbsize=2M,prealloc=on",
			pages:  64,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab.ReserveHugePages(t, tc.pages)
			c := config("")
			if tc.memory != "" {
				c.Memory = []string{tc.memory}
			}
			m := start(t, c)
			m.pattern()
			file := filepath.Join(t.TempDir(), "snapshot")
			m.snapshot(file+tc.offset, tc.write...)

			dst := startIncoming(t, c)
			dst.arriveSlowly(file + tc.offset)
			dst.requireRefusals()
			if got := dst.number("readl %#x", filled+12<<10); got != 0x5a5a5a5a {
				t.Errorf("a page that is in the file reads %#x", got)
			}
			if got := dst.number("readl %#x", all-4<<20); got != 0 {
				t.Errorf("a page that is not in the file reads %#x", got)
			}
			during := dst.requireLoading()
			if during.Faults == 0 || during.ZeroFaults == 0 || during.Read == 0 {
				t.Errorf("pages were touched, and the load tells of %+v", during)
			}
			want := m.memory()
			dst.requireMemory(want)
			dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
			after := dst.awaitLoaded()
			if after.Remaining != 0 || after.Total < filledSize || after.Total > all ||
				after.Read > after.Total || after.Read < after.Total/2 {
				t.Errorf("the load ended with %+v", after)
			}
			dst.requireMemory(want)
			dst.requireNothingLeft(file)
			dst.requireRuns()
			dst.snapshot(file+"2", "-postcopy-ram")
		})
	}
}

// The background of a load can be held, and goes on.
func TestFastSnapshotLoadIsHeld(t *testing.T) {
	m, dst, file := startSnapshot(t)
	dst.arriveSlowly(file)
	held := dst.hold()
	if got := dst.number("readl %#x", filled+12<<10); got != 0x5a5a5a5a {
		t.Errorf("a page that is in the file reads %#x", got)
	}
	if now := dst.requireHeld(); now.Faults != held.Faults+1 {
		t.Errorf("a page was touched: %+v, and %+v before", now, held)
	}
	dst.goOn()
	dst.awaitLoaded()
	dst.requireMemory(m.memory())
}

// What comes without being touched is what was written, and memory that is neither in
// the file nor touched takes none of the host's.
func TestFastSnapshotLoadUntouched(t *testing.T) {
	m, dst, file := startSnapshot(t)
	dst.load(file)
	after := dst.awaitLoaded()
	if shared := dst.sharedInUse(); shared > after.Total+1<<20 {
		t.Errorf("%d bytes of shared memory are in use, and the file has %d", shared, after.Total)
	}
	dst.requireMemory(m.memory())
}

// sharedInUse returns how many bytes of shared memory QEMU has touched.
func (m *machine) sharedInUse() int64 { return m.usage("RssShmem:") }

// wholeInUse is sharedInUse with huge pages.
func (m *machine) wholeInUse() int64 { return m.sharedInUse() + m.usage("HugetlbPages:") }

// usage returns a size that the kernel tells of QEMU, in bytes.
func (m *machine) usage(name string) int64 {
	m.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		m.t.Fatal(err)
	}
	var kib int64
	_, rest, _ := strings.Cut(string(status), name)
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		m.t.Fatal(err)
	}
	return kib << 10
}

// Memory that was free when the file was written is not in it, and is zero.
func TestFastSnapshotLoadOfAFileWithHints(t *testing.T) {
	p := startPeeker(t, protocol.WindowFeaturePeek)
	c := config(p.socket)
	c.Device["hint-timeout"] = "60000"
	m := start(t, c)
	m.pattern()
	m.fill(looked.GPA, looked.Length, 0x5a)
	m.awaitSees(p, looked.GPA)
	file := filepath.Join(t.TempDir(), "snapshot")
	m.capabilities("mapped-ram")
	m.execute("migrate", map[string]any{"uri": "file:" + file})
	m.awaitAsked(p).publish(protocol.AnswerOK, looked)
	figures, err := m.WaitMigration(m.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if figures.HintStatus() != "ok" || figures.Hints.Skipped != int64(looked.Length/pageSize) {
		t.Fatalf("the hints ended with %q: %+v", figures.HintStatus(), figures.Hints)
	}

	c.Backend = p.socket + ".nobody"
	dst := startIncoming(t, c)
	dst.arriveSlowly(file)
	before := dst.requireLoading()
	if got := dst.number("readl %#x", looked.GPA+0x8000); got != 0 {
		t.Errorf("a free page reads %#x", got)
	}
	after := dst.requireLoading()
	if after.Faults != before.Faults+1 || after.ZeroFaults != before.ZeroFaults+1 ||
		after.Read-before.Read > 2*pageSize {
		t.Errorf("a free page was touched: %+v, and %+v before", after, before)
	}
	want := m.memory()
	clear(want[looked.GPA:][:looked.Length])
	dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
	dst.awaitLoaded()
	dst.requireMemory(want)
}

// fbppd at the destination takes part as in postcopy, and gets the guest's memory.
func TestFastSnapshotLoadWithABackend(t *testing.T) {
	source, b := startFBPPD(t), startFBPPD(t)
	c := config(source.Socket)
	m := start(t, c)
	m.pattern()
	m.startDriver(low)
	m.awaitStarted(source)
	file := filepath.Join(t.TempDir(), "snapshot")
	m.snapshot(file)
	c.Backend = b.Socket
	dst := startIncoming(t, c)
	dst.awaitConnected(b)
	dst.arriveSlowly(file)
	dst.await("the backend takes part", func() bool {
		return strings.Contains(b.Log(), "POSTCOPY_LISTEN")
	})
	dst.startDriver(low)
	dst.requireLoading()
	dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
	dst.awaitLoaded()
	dst.startDriver(low)
	dst.awaitStarted(b)
	whole := freeset.Range{GPA: filled, Length: holes + holesSize - filled}
	if !bytes.Equal(m.save(whole), dst.save(whole)) {
		t.Error("memory is another than was written")
	}
	dst.requireRuns()
}

// startSnapshot writes a machine into a file, and starts one that is to load it.
func startSnapshot(t testing.TB) (m, dst *machine, file string) {
	t.Helper()
	c := config("")
	m = start(t, c)
	m.pattern()
	file = filepath.Join(t.TempDir(), "snapshot")
	m.snapshot(file)
	return m, startIncoming(t, c), file
}

// pattern fills memory with content that differs from page to page, next to memory
// that is zero.
func (m *machine) pattern() {
	m.t.Helper()
	m.fill(filled, filledSize, 0x5a)
	for at := uint64(filled); at < filled+filledSize; at += pageSize {
		m.do("writeq %#x %#x", at+8, at)
	}
	for at := uint64(holes); at < holes+holesSize; at += 2 * pageSize {
		m.do("writeq %#x %#x", at, ^at)
	}
}

// While memory arrives, what it takes part in cannot be changed. Memory that a mode or a
// capability excludes would count as loaded, and channels that nobody has made be closed.
func TestSettingsDuringAFastSnapshotLoad(t *testing.T) {
	m, dst, file := startSnapshot(t)
	dst.arriveSlowly(file)
	off := map[string]any{"capability": "postcopy-ram", "state": false}
	for _, set := range []struct {
		command string
		args    map[string]any
	}{
		{"migrate-set-parameters", map[string]any{"mode": "cpr-transfer"}},
		{"migrate-set-capabilities", map[string]any{"capabilities": []map[string]any{
			off, {"capability": "multifd", "state": true},
		}}},
		{"migrate-set-capabilities", map[string]any{"capabilities": []map[string]any{
			off, {"capability": "x-ignore-shared", "state": true},
		}}},
	} {
		err := dst.Execute(dst.ctx, set.command, set.args, nil)
		if err == nil || !strings.Contains(err.Error(), "RAM is still being loaded from a file") {
			t.Errorf("%s with %v says %v while memory arrives", set.command, set.args, err)
		}
	}
	dst.execute("migrate-set-parameters", map[string]any{
		"mode": "normal", "max-postcopy-bandwidth": 0,
	})
	dst.awaitLoaded()
	dst.requireMemory(m.memory())
	dst.requireRuns()
	dst.execute("migrate-set-parameters", map[string]any{"mode": "cpr-transfer"})
}

// capabilities sets capabilities of migrations, and clears those that begin with "-".
func (m *machine) capabilities(names ...string) {
	m.t.Helper()
	var states []map[string]any
	for _, name := range names {
		name, off := strings.CutPrefix(name, "-")
		states = append(states, map[string]any{"capability": name, "state": !off})
	}
	m.execute("migrate-set-capabilities", map[string]any{"capabilities": states})
}

// snapshot stops the machine, and writes it into a mapped-ram file. The file's name may
// be followed by options.
func (m *machine) snapshot(file string, capabilities ...string) {
	m.t.Helper()
	m.capabilities(append(capabilities, "mapped-ram")...)
	m.execute("migrate", map[string]any{"uri": "file:" + file})
	figures, err := m.WaitMigration(m.ctx, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if figures.Status != "completed" {
		m.t.Fatalf("the snapshot %s: %s\n%s", figures.Status, figures.ErrorDesc, m.Messages())
	}
}

// arriveSlowly has the machine run on a file that it loads. A page a second comes by itself.
func (m *machine) arriveSlowly(file string) {
	m.t.Helper()
	m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": pageSize})
	m.load(file)
	if err := m.Arrive(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}

// load begins to load a file while the machine runs.
func (m *machine) load(file string) {
	m.t.Helper()
	m.capabilities("mapped-ram", "postcopy-ram")
	m.execute("migrate-incoming", map[string]any{
		"uri": "file:" + file, "exit-on-error": false,
	})
}

// requireLoading returns the figures of a load that goes on.
func (m *machine) requireLoading() vm.Load {
	m.t.Helper()
	figures, err := m.QueryMigrate(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if figures.Load == nil || figures.Status != "postcopy-active" || figures.Load.Remaining == 0 {
		m.t.Fatalf("no load goes on: %+v", figures)
	}
	return *figures.Load
}

// awaitLoaded waits until all is loaded.
func (m *machine) awaitLoaded() vm.Load {
	m.t.Helper()
	var load vm.Load
	m.await("all is loaded", func() bool {
		figures, err := m.QueryMigrate(m.ctx)
		if err != nil || figures.Status == "failed" {
			m.t.Fatalf("the load is %+v, %v\n%s", figures, err, m.Messages())
		}
		if figures.Load != nil {
			load = *figures.Load
		}
		return figures.Status == "completed"
	})
	return load
}

// memory returns all memory.
func (m *machine) memory() []byte {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "memory")
	m.execute("pmemsave", map[string]any{"val": 0, "size": all, "filename": file})
	content, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	return content
}

// requireRefusals checks what a machine refuses while its memory arrives.
func (m *machine) requireRefusals() {
	m.t.Helper()
	for command, args := range map[string]map[string]any{
		"migrate":         {"uri": "file:/dev/null"},
		"migrate-recover": {"uri": "unix:/nobody"},
		"snapshot-save": {
			"job-id": "save", "tag": "t", "vmstate": "nobody", "devices": []string{"nobody"},
		},
	} {
		var arguments any
		if args != nil {
			arguments = args
		}
		err := m.Execute(m.ctx, command, arguments, nil)
		if command == "snapshot-save" && err == nil { // its job tells
			err = m.jobError("save")
		}
		if err == nil || !strings.Contains(err.Error(), "RAM is still being loaded from a file") {
			m.t.Errorf("%s says %v while memory arrives", command, err)
		}
	}
}

// jobError waits until a job has concluded, and returns its error.
func (m *machine) jobError(id string) (failed error) {
	m.t.Helper()
	m.await("the job has ended", func() bool {
		var jobs []struct{ ID, Status, Error string }
		if err := m.Execute(m.ctx, "query-jobs", nil, &jobs); err != nil {
			m.t.Fatal(err)
		}
		for _, j := range jobs {
			if j.ID == id && j.Status == "concluded" {
				failed = fmt.Errorf("%s", j.Error)
				return true
			}
		}
		return false
	})
	return failed
}

// requireNothingLeft checks that QEMU has neither the file open nor a userfaultfd.
func (m *machine) requireNothingLeft(file string) {
	m.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", m.PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name())) // it may be closed by now
		if target == file || target == "anon_inode:[userfaultfd]" {
			m.t.Errorf("QEMU still has %s open", target)
		}
	}
}
