// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// hangTimeout ends a test that hangs. It asserts no speed: on an idle machine every
// test takes less than half of it.
const hangTimeout = 4 * time.Minute

// bootTimeout is when a boot is given up and tried again. Also on a busy host, a
// guest boots in a fraction of that time.
const bootTimeout = 90 * time.Second

// defaultMiB is the memory of a guest whose setup names none. The newest kernel, the agent's
// parsing of BTF, the pool of the integrity program and what tests fill must fit at once.
const defaultMiB = 384

// agentName is the name under which the guest's init runs the agent.
const agentName = "agent"

// setup says what to boot. The zero value is an ordinary small guest with the
// newest kernel, its agent and the integrity program.
type setup struct {
	series      guest.Series // "": the default one
	qemu        string       // another binary than the lab's
	fbppd       string       // another program than the lab's
	agent       string       // another program in the guest than lab.AgentPath
	accel       vm.Accel     // another accelerator than the lab's
	memoryMiB   int          // 0: defaultMiB
	noAgent     bool
	introspect  bool // no agent: fbppd reads the guest's memory itself
	noDevice    bool
	socket      string // "": start fbppd; else the socket of a backend to use instead
	noIntegrity bool
	agentPort   bool // add the serial port by which an agent can report
	backendArgs []string
	device      map[string]string // further properties of the device
	port        string            // the PCIe root port that it is behind
	devices     []string          // further devices
	memory      []string          // memory backends; see vm.Config
	options     []string          // further options of QEMU
	// eachSide, unless nil, changes the configuration of each QEMU before it starts.
	eachSide   func(c *vm.Config)
	poolPages  int           // of the integrity program; 0: 64 MiB
	timeout    time.Duration // 0: hangTimeout
	bootTime   time.Duration // when a boot is given up; 0: bootTimeout
	kernelLine []string
	modules    []string          // more modules for the kernel
	files      map[string]string // more files for the guest
}

// machine is a guest that moves from one QEMU to the next, with an fbppd
// beside each of them.
type machine struct {
	t       testing.TB // the test or subtest that uses it now
	closers []func()   // undo what was started; a guest may outlive a subtest
	ctx     context.Context
	config  vm.Config
	setup   setup
	vm      *vm.VM
	backend *vm.Backend // nil with noDevice
	earlier string      // the log of the previous host's fbppd
}

// boot starts a machine. It ends with the test.
func boot(t testing.TB, s setup) *machine {
	t.Helper()
	if s.series == "" {
		s.series = guest.Default()
	}
	if s.memoryMiB == 0 {
		s.memoryMiB = defaultMiB
	}
	if s.poolPages == 0 {
		s.poolPages = 16384
	}
	if s.timeout == 0 {
		s.timeout = hangTimeout
	}
	if s.agentPort {
		s.backendArgs = append([]string{"--agent-port=report"}, s.backendArgs...)
	}
	if s.introspect {
		s.noAgent = true
		s.backendArgs = append([]string{"--source=introspect"}, s.backendArgs...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.timeout)
	t.Cleanup(cancel)
	var err error
	kernel := parts.Kernel(s.series)
	if kernel == nil {
		progress := func(line string) { fmt.Fprintln(os.Stderr, "e2e:", line) }
		if kernel, err = guest.FetchKernel(t.Context(), s.series, progress); err != nil {
			t.Fatal(err)
		}
	}
	kernel, err = kernel.WithModules(ctx, s.modules...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := parts.ConfigFor(kernel, s.memoryMiB, s.files)
	if err != nil {
		t.Fatal(err)
	}
	// The timeout is long so that a busy machine fails no test. A test of the
	// timeout sets its own.
	config.Device = map[string]string{"hint-timeout": "20000"}
	maps.Copy(config.Device, s.device)
	config.Append, config.Devices = s.kernelLine, s.devices
	config.Memory, config.Options = s.memory, s.options
	config.Backend, config.Port = s.socket, s.port
	if s.qemu != "" {
		config.QEMU = s.qemu
	}
	if s.accel != "" {
		config.Accel = s.accel
	}
	m := &machine{t: t, ctx: ctx, config: config, setup: s}
	t.Cleanup(func() {
		m.explain() // before the processes are closed
		for _, undo := range m.closers {
			undo()
		}
	})
	m.retryBoot(m.bootOnce)
	return m
}

// retryBoot calls boot, and again if the guest was lost while it booted: see
// [vm.RetryBoot].
func (m *machine) retryBoot(boot func() error) {
	m.t.Helper()
	lost := func(err error) { m.t.Logf("the guest was lost while it booted, once more: %v", err) }
	err := vm.RetryBoot(m.config.Accel, lost, func() error {
		all := m.ctx
		ctx, cancel := context.WithTimeout(all, cmp.Or(m.setup.bootTime, bootTimeout))
		defer func() {
			cancel()
			m.ctx = all
		}()
		m.ctx = ctx
		err := boot()
		if err != nil && ctx.Err() != nil && all.Err() == nil {
			m.vm.Close()
			err = fmt.Errorf("%w: %w", vm.ErrHung, err)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// bootOnce starts a guest and its programs, and returns when it is ready.
func (m *machine) bootOnce() error {
	m.t.Helper()
	m.vm, m.backend = m.start(vm.Start, nil)
	if _, err := m.vm.Boot(m.ctx); err != nil {
		return err
	}
	if !m.setup.noAgent && !m.setup.noDevice && m.setup.socket == "" {
		if err := m.tryAgent(); err != nil {
			return err
		}
	}
	if m.setup.introspect {
		if err := m.backend.AwaitKernel(m.ctx); err != nil {
			return err
		}
	}
	if m.setup.noIntegrity {
		return nil
	}
	pool := memory.PoolOptions{Pages: m.setup.poolPages, Seed: uint64(len(m.t.Name()))}
	if err := m.vm.StartIntegrity(m.ctx, pool); err != nil {
		return err
	}
	for { // until it has written: a test may pause the guest next
		r, err := m.vm.Integrity(m.ctx, "status")
		if err != nil || r.Live > 0 {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// in makes m report failures to a subtest, until out is called.
func (m *machine) in(t testing.TB) (out func()) {
	outer := m.t
	m.t = t
	return func() { m.t = outer }
}

// start starts a QEMU by how, and its fbppd. change, unless nil, alters QEMU's
// configuration. Both processes end with the machine. The backend is nil if the setup
// has no device, or a socket.
func (m *machine) start(
	how func(context.Context, vm.Config) (*vm.VM, error), change func(*vm.Config),
) (*vm.VM, *vm.Backend) {
	m.t.Helper()
	config := m.config
	var backend *vm.Backend
	if !m.setup.noDevice && m.setup.socket == "" {
		var err error
		if m.setup.fbppd == "" {
			backend, err = vm.StartBackend(m.ctx, parts.FBPPD, m.setup.backendArgs...)
		} else {
			backend, err = vm.StartOtherBackend(m.ctx, m.setup.fbppd, m.setup.backendArgs...)
		}
		if err != nil {
			m.t.Fatal(err)
		}
		m.closers = append(m.closers, func() { backend.Close() })
		config.Backend = backend.Socket
		if m.setup.agentPort {
			config.AgentSocket = backend.AgentSocket
		}
	}
	if m.setup.eachSide != nil {
		m.setup.eachSide(&config)
	}
	if change != nil {
		change(&config)
	}
	v, err := how(m.ctx, config)
	if err != nil {
		m.t.Fatal(err)
	}
	m.closers = append(m.closers, func() {
		v.Close()
		requireClean(m.t, v.Messages())
	})
	return v, backend
}

// requireClean checks that the sanitizers found nothing in QEMU, if it was built
// with them. Errors of the undefined behaviour sanitizer count only in files that this
// project's patches change.
func requireClean(t testing.TB, said string) {
	t.Helper()
	for line := range strings.Lines(said) {
		ours := strings.Contains(line, "fbpp") || strings.Contains(line, "free-page-hints") ||
			strings.Contains(line, "migration/ram.c")
		if strings.Contains(line, "ERROR: AddressSanitizer") ||
			ours && strings.Contains(line, "runtime error:") {
			t.Errorf("a sanitizer found something:\n%s", said)
			return
		}
	}
}

// startAgent starts the agent in the guest and waits until fbppd knows it.
func (m *machine) startAgent() {
	m.t.Helper()
	if err := m.tryAgent(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) tryAgent() error {
	program := cmp.Or(m.setup.agent, lab.AgentPath)
	if err := m.vm.Spawn(m.ctx, agentName, program); err != nil {
		return err
	}
	// The state of fbppd may still be that of an earlier agent.
	for said := ""; !strings.Contains(said, "said hello"); {
		time.Sleep(10 * time.Millisecond)
		var err error
		if said, err = m.agentOutput(); err != nil {
			return err
		}
	}
	state, err := m.backend.AwaitDriver(m.ctx)
	if err != nil || state != "ready" {
		return fmt.Errorf("the driver is %q: %w", state, err)
	}
	return nil
}

// agentOutput returns what the agent has printed.
func (m *machine) agentOutput() (string, error) {
	r, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpOutput, Name: agentName})
	return r.Output, err
}

// awaitDriver waits until the driver is ready, or, with introspection, until fbppd
// has found the guest's kernel.
func (m *machine) awaitDriver() {
	m.t.Helper()
	if m.setup.introspect {
		if err := m.backend.AwaitKernel(m.ctx); err != nil {
			m.t.Fatal(err)
		}
		return
	}
	state, err := m.backend.AwaitDriver(m.ctx)
	if err != nil || state != "ready" {
		m.t.Fatalf("the driver is %q: %v", state, err)
	}
}

// signalAgent sends a signal to the agent.
func (m *machine) signalAgent(s syscall.Signal) {
	m.t.Helper()
	_, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpSignal, Name: agentName, Signal: int(s)})
	if err != nil {
		m.t.Fatal(err)
	}
}

// destination starts a QEMU that waits for a migration, and its fbppd.
func (m *machine) destination() (*vm.VM, *vm.Backend) {
	m.t.Helper()
	return m.start(vm.StartIncoming, nil)
}

// startMigration begins to migrate, with a bandwidth in bytes per second; 0 means no
// limit. [machine.arrive] waits for the end.
func (m *machine) startMigration(bandwidth int64) (*vm.VM, *vm.Backend) {
	m.t.Helper()
	dst, backend := m.destination()
	if err := m.vm.StartMigration(m.ctx, dst, bandwidth); err != nil {
		m.t.Fatal(err)
	}
	return dst, backend
}

// arrive waits until the migration to dst has completed. From then on m is the guest
// at dst.
func (m *machine) arrive(dst *vm.VM, backend *vm.Backend) *vm.Migration {
	m.t.Helper()
	figures, err := m.vm.WaitMigration(m.ctx, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if figures.Status != "completed" {
		m.t.Fatalf("the migration %s: %s\ndestination: %s",
			figures.Status, figures.ErrorDesc, dst.Diagnosis())
	}
	if err := dst.Arrive(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	m.moveTo(dst, backend)
	return figures
}

// moveTo closes the source, and makes dst and its backend those of m.
func (m *machine) moveTo(dst *vm.VM, backend *vm.Backend) {
	m.requireHealthy(m.vm)
	m.vm.Close()
	if m.backend != nil {
		m.earlier = m.backend.Log()
		m.backend.Close()
	}
	m.vm, m.backend = dst, backend
}

// migrate moves the guest to a new QEMU.
func (m *machine) migrate() *vm.Migration {
	m.t.Helper()
	return m.arrive(m.startMigration(0))
}

// requireSound has the integrity program verify all of its memory, and checks that
// the program still runs.
func (m *machine) requireSound() {
	m.t.Helper()
	before := m.integrity("verify")
	if before.Mismatched != 0 || before.Error != "" || before.Verified == 0 {
		m.t.Fatalf("the guest's memory is damaged: %+v", before)
	}
	for m.integrity("status").Count == before.Count {
		time.Sleep(time.Millisecond) // integrity fails at the end of the test's time
	}
	m.requireHealthy(m.vm)
}

func (m *machine) integrity(order string) memory.Report {
	m.t.Helper()
	return m.integrityAt(m.vm, order)
}

// integrityAt is integrity for a guest that runs in v already, while postcopy still
// moves its memory.
func (m *machine) integrityAt(v *vm.VM, order string) memory.Report {
	m.t.Helper()
	r, err := v.Integrity(m.ctx, order)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, v.Diagnosis())
	}
	return r
}

// requireHints checks the status of a migration's hints, and that pages were skipped
// if and only if the status is "ok".
func requireHints(t testing.TB, m *vm.Migration, status string) {
	t.Helper()
	if m.HintStatus() != status {
		t.Fatalf("hints ended with status %q, want %q: %+v", m.HintStatus(), status, m.Hints)
	}
	if skipped := m.Hints.Skipped; (status == "ok") != (skipped > 0) {
		t.Fatalf("hints ended with status %q and %d skipped pages", status, skipped)
	}
}

// explain logs, if the test has failed, what QEMU, fbppd and the agent printed.
func (m *machine) explain() {
	if !m.t.Failed() || m.vm == nil {
		return
	}
	m.t.Logf("the last QEMU of the guest: %s", m.vm.Diagnosis())
	if m.backend != nil {
		m.t.Logf("fbppd of the previous host said:\n%s", m.earlier)
		m.t.Logf("fbppd said:\n%s", m.backend.Log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := m.vm.Guest.Do(ctx, ctl.Request{Op: ctl.OpOutput, Name: agentName})
	if err != nil {
		m.t.Logf("the agent's output cannot be read: %v", err)
		return
	}
	m.t.Logf("the agent said:\n%s", r.Output)
}
