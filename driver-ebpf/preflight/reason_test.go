// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

func TestReasonIsOneLine(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"an error":      {errors.New("no BTF"), "no BTF"},
		"joined errors": {errors.Join(errors.New("first"), errors.New("second")), "first"},
		"the verifier": {
			fmt.Errorf("load: %w", &ebpf.VerifierError{
				Cause: errors.New("EACCES"), Log: []string{"0: r1 = 1", "unknown func"},
			}),
			"eBPF program refused: EACCES: unknown func",
		},
		"the cause is kept rather than what was tried": {
			errors.New("load the snapshot of the free lists: load walk program: " +
				"find struct zone in the kernel's types: not found"),
			"load walk program: find struct zone in the kernel's types: not found",
		},
		"hidden symbols, and what to do": {
			fmt.Errorf("%w: sysctl kernel.kptr_restrict=1", kernel.ErrHidden),
			"kptr_restrict hides kernel symbols: sysctl kernel.kptr_restrict=1",
		},
		"a cause that is too long": {
			errors.New(strings.Repeat("x", 76) + "ééé"), strings.Repeat("x", 76) + "…",
		},
		"the verifier, silent": {
			&ebpf.VerifierError{Cause: errors.New("EPERM")}, "eBPF program refused: EPERM",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reason(c.err); got != c.want {
				t.Fatalf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestReasonWhenProgramsCannotBeLoaded(t *testing.T) {
	const guess = "(MEMLOCK may be too low, consider rlimit.RemoveMemlock)"
	forbidden := fmt.Errorf("map create: %w %s", unix.EPERM, guess)
	for name, c := range map[string]struct {
		err    error
		root   bool
		status protocol.Status
		says   string
	}{
		"not root":                {forbidden, false, protocol.StatusFailed, "root is needed: "},
		"root without its rights": {forbidden, true, protocol.StatusFailed, "CAP_BPF"},
		"a kernel that cannot do it": {
			unix.EINVAL, false, protocol.StatusUnsupported, "invalid argument",
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, err := refusal(c.err, c.root)
			kept := errors.Is(err, c.err) || errors.Is(err, errors.Unwrap(c.err))
			if status != c.status || !kept {
				t.Errorf("status %v, error %v", status, err)
			}
			said := reason(err)
			if !strings.HasPrefix(err.Error(), said) || !strings.Contains(said, c.says) {
				t.Errorf("reason %q of error %q, want %q in it", said, err, c.says)
			}
			if strings.Contains(err.Error(), "MEMLOCK") {
				t.Errorf("a guess: %v", err)
			}
		})
	}
}

// The host reads the same reason. No character of it is cut in two.
func TestReasonFitsInHello(t *testing.T) {
	for n := range 3 * reasonMax {
		for _, line := range []string{strings.Repeat("é", n), "é" + strings.Repeat(": é", n)} {
			want := reason(errors.New(line))
			var p [protocol.HelloSize]byte
			sent := protocol.Hello{Reason: want}
			sent.Encode(p[:])
			got, err := protocol.DecodeHello(p[:])
			if err != nil || got.Reason != want || !utf8.ValidString(want) {
				t.Fatalf("%q arrives as %q, %v", want, got.Reason, err)
			}
		}
	}
}
