// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// notThroughQEMU are rules that cannot be checked behind QEMU, because QEMU answers
// reads of the configuration itself.
var notThroughQEMU = []string{"FBPP-CFG-3"}

// A driver that was written from the specification alone keeps its rules, whatever the
// device does.
func TestDriverKeepsTheRules(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	config := Options{Accel: vm.TCG}.machine(parts, rom)
	config.Backend = filepath.Join(t.TempDir(), "device.sock")
	v, err := vm.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{parts: parts, config: config, vm: v}
	defer g.Close()
	if err := g.ready(ctx); err != nil {
		t.Fatal(err)
	}
	plan := Plan{
		Seed: 1, Used: 25, PerMessage: 64, Halves: true,
		Churn: 50_000, Strike: 16, Step: 1000,
	}
	if _, err := g.tell(ctx, plan.order()); err != nil {
		t.Fatal(err)
	}
	monitor := func(command string) func(context.Context) error {
		return func(ctx context.Context) error { return v.Execute(ctx, command, nil, nil) }
	}
	suite := driver.NewSuite(driver.Config{
		SocketPath: config.Backend,
		Wait:       time.Minute,
		Progress:   func(line string) { t.Log(line) },
		Control: driver.Control{
			Pause:  monitor("stop"),
			Resume: monitor("cont"),
			Restart: func(ctx context.Context) error {
				_, err := g.tell(ctx, "restart")
				return err
			},
		},
	})
	var tap bytes.Buffer
	var skipped []string
	noted := onSkip(func(r report.Result) { skipped = append(skipped, r.ID) })
	sum, err := report.Run(ctx, "driver", suite, nil, report.NewTAP(&tap), noted)
	if err != nil || sum.Failed+sum.Errors > 0 {
		t.Errorf("%v; %v\n%s", sum, err, tap.String())
	}
	// This driver takes no programs, so nothing looks at pages, and has no cache to drop.
	skipped = slices.DeleteFunc(skipped, func(id string) bool {
		return slices.ContainsFunc([]string{"FBPP-PROG-", "FBPP-CEN-", "FBPP-SMP-", "FBPP-DROP-"},
			func(family string) bool { return strings.HasPrefix(id, family) })
	})
	if !slices.Equal(skipped, notThroughQEMU) {
		t.Errorf("%v gave no occasion, want %v", skipped, notThroughQEMU)
	}
}

// onSkip is a sink that gets the rules that could not be checked.
type onSkip func(report.Result)

func (onSkip) Begin(string, int) error         { return nil }
func (onSkip) End(report.Summary, error) error { return nil }

func (f onSkip) Add(r report.Result) error {
	if r.Outcome == report.Skip {
		f(r)
	}
	return nil
}
