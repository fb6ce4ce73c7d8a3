// SPDX-License-Identifier: Apache-2.0

//go:build series

// The build tag is for "make test-series", which builds the QEMUs.

package bare

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// sharedMachine is one that the QEMUs of all series know.
const sharedMachine = "pc-q35-10.0"

// otherQEMUs returns the built QEMUs of the other series, by version.
func otherQEMUs(t *testing.T) map[string]string {
	t.Helper()
	folder := filepath.Join(parts.Root, "qemu-patches")
	bases, err := filepath.Glob(filepath.Join(folder, "*", "BASE"))
	if err != nil || len(bases) < 2 {
		t.Fatalf("the series are %v: %v", bases, err)
	}
	qemus := map[string]string{}
	for _, base := range bases {
		series := filepath.Base(filepath.Dir(base))
		if strings.HasPrefix(parts.Version, "QEMU emulator version "+series+".") {
			continue
		}
		script := exec.Command(filepath.Join(folder, "qemu.sh"), "--series", series, "path")
		script.Stderr = os.Stderr
		out, err := script.Output()
		if err != nil {
			t.Fatalf("find the QEMU of the series %s: %v", series, err)
		}
		qemus[series] = strings.TrimSpace(string(out))
	}
	return qemus
}

// A guest moves from the QEMU of one series to that of another, and back, with hints. So
// hosts can be upgraded one after the other. What was skipped is zero in postcopy, too.
func TestFromOneSeriesToAnother(t *testing.T) {
	for series, other := range otherQEMUs(t) {
		for _, way := range []struct{ name, from, to string }{
			{"from " + series, other, parts.QEMU}, {"to " + series, parts.QEMU, other},
		} {
			t.Run(way.name, func(t *testing.T) {
				o := &ordered{hostPage: pageSize, skipping: newSkipping(t, false, func(c *vm.Config) {
					c.QEMU = way.from
					c.Options = append(c.Options, "-machine", sharedMachine)
				}, nil)}
				o.dst.Config.QEMU = way.to
				o.again()
				o.begin()
				o.skipping.answer()
				o.switchOver()
				o.requireUnasked(func() { o.requireZero(o.dst, 0, free.Length/2) })
				o.requireAsked()
				o.end()
				requireHint(t, o.m, "ok")
				o.skipping.requireArrived()
			})
		}
	}
}
