// SPDX-License-Identifier: Apache-2.0

//go:build guest

package preflight

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// The kernel command line of the guest decides which status is right.
func TestPreflightFitsTheGuest(t *testing.T) {
	found, err := Run(Options{Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	cmdline := string(text)
	want := protocol.StatusOK
	switch {
	case strings.Contains(cmdline, "lockdown=confidentiality"):
		want = protocol.StatusLockdown
	case strings.Contains(cmdline, "page_poison=1"),
		strings.Contains(cmdline, "debug_pagealloc=on"):
		want = protocol.StatusContentMatters
	}
	guest := found.Guest
	if guest.Status != want {
		t.Fatalf("status %v (%v), want %v", guest.Status, found.Err, want)
	}
	ok := want == protocol.StatusOK
	if (found.Walker() != nil) != ok || (guest.Hello.Reason == "") != ok {
		t.Errorf("walker %v, reason %q", found.Walker(), guest.Hello.Reason)
	}
	if 1<<guest.PageShift != os.Getpagesize() || guest.Hello.RAMBytes < 64<<20 ||
		!strings.HasPrefix(guest.Hello.Release, "Linux ") {
		t.Errorf("%+v", guest)
	}
	if want != protocol.StatusOK {
		return
	}
	zeroes := guest.Hello.Features&protocol.FeatureInitOnFree != 0
	if strings.Contains(cmdline, "init_on_free=1") != zeroes {
		t.Errorf("features %v with %q", guest.Hello.Features, cmdline)
	}
	if guest.Hello.MaxOrder < 9 || guest.Hello.MaxOrder > 20 {
		t.Errorf("highest order %d", guest.Hello.MaxOrder)
	}
}
