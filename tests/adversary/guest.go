// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Options say how to run the guest.
type Options struct {
	Accel     vm.Accel
	DirtyRing bool // KVM's dirty ring instead of its bitmap
	NoArming  bool // QEMU clears the dirty log after the guest looked: loses pages
	// TableReader answers instead of the guest's driver, which is stopped. Its device
	// runs in the test's process instead of fbppd.
	TableReader *TableReader
	MemoryMiB   int // up to 256; 0: 64
	CPUs        int // 2 to 4; 0: 2
}

// defaultMiB keeps a migration short.
const defaultMiB = 64

// Guest is the adversary in a QEMU, with an fbppd. Each migration replaces both
// processes by those of the destination. It is not safe for concurrent use.
type Guest struct {
	Backend *vm.Backend

	parts  *lab.Lab
	config vm.Config
	vm     *vm.VM
	arming bool
	table  uint64 // guest physical address of its page table

	reader  *TableReader
	unserve func() // ends the device of the TableReader
}

// tellName is what package ctl wants in an order; the guest ignores it.
const tellName = "adversary"

// machine returns what QEMU runs.
func (o Options) machine(parts *lab.Lab, rom string) vm.Config {
	c := vm.Config{
		QEMU:      parts.QEMU,
		Accel:     o.Accel,
		Firmware:  rom,
		MemoryMiB: o.MemoryMiB,
		CPUs:      o.CPUs,
	}
	if o.MemoryMiB == 0 {
		c.MemoryMiB = defaultMiB
	}
	if o.Accel == vm.KVM {
		// Leave out a property of the processor that not every KVM can set.
		c.CPU = "host,-arch-capabilities"
	}
	if o.DirtyRing {
		c.AccelWith = "dirty-ring-size=1024" // small enough to fill up
	}
	return c
}

// Boot starts the guest from the ROM at path, and returns when its driver is
// ready. The caller closes it.
func Boot(ctx context.Context, parts *lab.Lab, rom string, o Options) (_ *Guest, err error) {
	g := &Guest{
		parts: parts, arming: !o.NoArming, config: o.machine(parts, rom), reader: o.TableReader,
	}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	if err := g.start(ctx, vm.Start, nil); err != nil {
		return nil, err
	}
	if err := g.ready(ctx); err != nil {
		return nil, err
	}
	if err := g.awaitDriver(ctx); err != nil {
		return nil, err
	}
	status, err := g.Status(ctx)
	if err != nil {
		return nil, err
	}
	g.table = status["table"]
	if g.reader != nil {
		if err := g.reader.find(status); err != nil {
			return nil, err
		}
		_, err = g.tell(ctx, "stop")
	}
	return g, err
}

// ready waits until the guest takes orders.
func (g *Guest) ready(ctx context.Context) error {
	name, err := g.vm.Boot(ctx)
	if err == nil && name != tellName {
		err = fmt.Errorf("boot the adversary: it says %q\n%s", name, g.vm.Diagnosis())
	}
	return err
}

// Close ends the guest.
func (g *Guest) Close() {
	if g.vm != nil {
		g.vm.Close()
	}
	if g.Backend != nil {
		g.Backend.Close()
	}
	if g.unserve != nil {
		g.unserve()
	}
}

// start starts a QEMU and its backend, and makes them those of g. Also after an error
// the caller closes those that are not nil.
func (g *Guest) start(
	ctx context.Context, how func(context.Context, vm.Config) (*vm.VM, error), options []string,
) (err error) {
	g.vm, g.Backend, g.unserve = nil, nil, nil
	config := g.config
	config.Options = options
	if g.reader != nil {
		config.Backend, g.unserve, err = g.reader.serve()
	} else if g.Backend, err = vm.StartBackend(ctx, g.parts.FBPPD, "--log-level=info"); err == nil {
		config.Backend = g.Backend.Socket
	}
	if err != nil {
		return err
	}
	g.vm, err = how(ctx, config)
	return err
}

// backendLog is what the backend has said.
func (g *Guest) backendLog() string {
	if g.Backend == nil {
		return "is in this process"
	}
	return g.Backend.Log()
}

// tell gives the guest an order.
func (g *Guest) tell(ctx context.Context, line string) (answer, error) {
	said, err := g.vm.Tell(ctx, tellName, line)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, g.vm.Diagnosis())
	}
	return parseAnswer(said)
}

// Status returns what the guest says of its device and its page table.
func (g *Guest) Status(ctx context.Context) (map[string]uint64, error) {
	return g.tell(ctx, "status")
}

func (g *Guest) awaitDriver(ctx context.Context) error {
	if g.reader != nil {
		return nil // it needs none
	}
	state, err := g.Backend.AwaitDriver(ctx)
	if err == nil && state != "ready" {
		err = fmt.Errorf("the adversary's driver is %q", state)
	}
	return err
}

// Result is the result of a round.
type Result struct {
	Migration *vm.Migration
	Compared  int             // pages that were in use when the source stopped
	Outside   []Loss          // of these, those that differ
	Verified  uint64          // pages that the guest has compared afterwards
	Inside    uint64          // of these, those that differ from what it wrote
	Struck    [moments]uint64 // pages written, by moment
	LostAt    [moments]uint64 // pages of Inside, by moment
}

// Lost tells whether the migration lost a page.
func (r *Result) Lost() bool { return len(r.Outside) > 0 || r.Inside > 0 }

// Play plays a round, after which the guest is at its destination. An error means that
// the round could not be played. Lost pages are not an error, but in the result.
func (g *Guest) Play(ctx context.Context, r Round) (*Result, error) {
	if r.CancelAfter != 0 {
		if err := g.cancelled(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := g.prepare(ctx, r); err != nil {
		return nil, err
	}
	// The guest stays paused until both memories were compared.
	options := append(r.clearShift(), "-S")
	source := *g
	defer source.Close()
	if err := g.start(ctx, vm.StartIncoming, options); err != nil {
		return nil, err
	}
	destination := g.vm

	result := new(Result)
	transfer := vm.Transfer{Bandwidth: r.Bandwidth, Capabilities: r.Capabilities}
	rate := measureRate(ctx, source.vm, r.DirtyRate)
	var err error
	if result.Migration, err = source.vm.MigrateBy(ctx, destination, transfer, rate); err != nil {
		return nil, fmt.Errorf("%w\nfbppd: %s", err, source.backendLog())
	}
	if err := g.compare(source.vm, result); err != nil {
		return nil, err
	}
	if err := destination.Execute(ctx, "cont", nil, nil); err != nil {
		return nil, err
	}
	if err := g.verify(ctx, result); err != nil {
		return nil, err
	}
	return result, g.awaitDriver(ctx)
}

// measureRate returns a progress function for a migration. Its first call makes v
// measure its dirty rate.
func measureRate(ctx context.Context, v *vm.VM, period time.Duration) func(*vm.Migration) {
	begun := period == 0
	return func(*vm.Migration) {
		if begun {
			return
		}
		begun = true
		// An error does not matter: the migration may have ended already.
		_ = v.Execute(ctx, "calc-dirty-rate", map[string]any{
			"calc-time": period.Milliseconds(), "calc-time-unit": "millisecond", "mode": "dirty-bitmap",
		}, nil)
	}
}

// ample is a timeout that is not reached, even on a busy host, in milliseconds.
const ample = 20_000

// prepare sets the guest and the device up for a round.
func (g *Guest) prepare(ctx context.Context, r Round) error {
	if _, err := g.tell(ctx, r.order()); err != nil {
		return err
	}
	timeout := int64(ample)
	if r.HintTimeout != 0 {
		timeout = r.HintTimeout.Milliseconds()
	}
	// The capabilities of the last migration are still on.
	var off []map[string]any
	for _, c := range capabilities {
		off = append(off, map[string]any{"capability": c, "state": false})
	}
	args := map[string]any{"capabilities": off}
	if err := g.vm.Execute(ctx, "migrate-set-capabilities", args, nil); err != nil {
		return err
	}
	for property, value := range map[string]any{
		"hint-timeout":  timeout,
		"x-clear-delay": r.ClearDelay.Milliseconds(),
		"x-arm":         g.arming,
	} {
		if err := g.vm.SetDevice(ctx, property, value); err != nil {
			return err
		}
	}
	return nil
}

// cancelled begins a migration, and cancels it.
func (g *Guest) cancelled(ctx context.Context, r Round) error {
	if err := g.prepare(ctx, r); err != nil {
		return err
	}
	destination := *g
	defer destination.Close()
	if err := destination.start(ctx, vm.StartIncoming, nil); err != nil {
		return err
	}
	if err := g.vm.StartMigration(ctx, destination.vm, cancelBandwidth); err != nil {
		return err
	}
	time.Sleep(r.CancelAfter) // so the cancellation comes at varying points
	return g.vm.CancelMigration(ctx)
}

// cancelBandwidth is so low that a migration does not complete before it is cancelled,
// in bytes per second.
const cancelBandwidth = 1 << 20

// compare compares the memories of both QEMU processes. Neither guest may run.
func (g *Guest) compare(source *vm.VM, r *Result) error {
	size := g.config.MemoryMiB << 20
	here, err := openRAM(source.PID(), size)
	if err != nil {
		return err
	}
	defer here.close()
	there, err := openRAM(g.vm.PID(), size)
	if err != nil {
		return err
	}
	defer there.close()
	r.Outside, r.Compared = compare(here, there, g.table)
	return nil
}

// verify has the guest compare its memory.
func (g *Guest) verify(ctx context.Context, r *Result) error {
	a, err := g.tell(ctx, "verify")
	if err != nil {
		return err
	}
	r.Verified, r.Inside = a["checked"], a["lost"]
	r.Struck, r.LostAt = a.byMoment("struck"), a.byMoment("lost")
	return nil
}
