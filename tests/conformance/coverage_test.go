// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// The sides that a rule may bind.
const (
	device = "device"
	drv    = "driver"
	both   = "both"
)

// binds says for each rule of the documents which side has to keep it.
var binds = map[string]string{
	"FBPP-ID-1": drv, "FBPP-FEAT-1": both,
	"FBPP-CFG-1": device, "FBPP-CFG-2": device, "FBPP-CFG-3": drv,
	"FBPP-INIT-1": drv, "FBPP-INIT-2": device, "FBPP-INIT-3": drv, "FBPP-INIT-4": both,
	"FBPP-INIT-5": drv, "FBPP-INIT-6": drv, "FBPP-STARTED-1": drv,
	"FBPP-EV-1": device, "FBPP-EV-2": device, "FBPP-EV-3": device, "FBPP-EV-4": device,
	"FBPP-EV-5": drv, "FBPP-EV-6": drv, "FBPP-EV-7": drv, "FBPP-EV-8": drv,
	// A driver must not send a malformed message, and a device has to detect one.
	"FBPP-MSG-1": both, "FBPP-MSG-2": both, "FBPP-MSG-3": device, "FBPP-MSG-4": drv, "FBPP-MSG-5": drv,
	"FBPP-HELLO-1": drv, "FBPP-HELLO-2": device, "FBPP-HELLO-3": device, "FBPP-HELLO-4": drv,
	// A driver must not send a bad report, and a device has to discard one.
	"FBPP-REP-1": both, "FBPP-REP-2": drv, "FBPP-REP-3": both, "FBPP-REP-4": both, "FBPP-REP-5": both,
	"FBPP-REP-6": both, "FBPP-REP-7": both, "FBPP-REP-8": both, "FBPP-REP-9": device,
	"FBPP-REP-10": drv, "FBPP-REP-11": drv, "FBPP-REP-12": device,
	"FBPP-PORT-1": drv, "FBPP-PORT-2": device, "FBPP-PORT-3": device,
	"FBPP-PORT-4": device, "FBPP-PORT-5": device, "FBPP-PORT-6": drv,
	"FBPP-PORT-7": device,
	"FBPP-DROP-1": device, "FBPP-DROP-2": device, "FBPP-DROP-3": both,
	"FBPP-DROP-4": both, "FBPP-DROP-5": drv, "FBPP-DROP-6": drv,
	"FBPP-OP-1": both, "FBPP-OP-2": device,
	"FBPP-PROG-1": drv, "FBPP-PROG-2": device, "FBPP-PROG-3": drv, "FBPP-PROG-4": device,
	"FBPP-PROG-5": drv, "FBPP-PROG-6": device, "FBPP-PROG-7": drv, "FBPP-PROG-8": drv,
	"FBPP-PROG-9": both, "FBPP-CEN-1": device, "FBPP-CEN-2": drv, "FBPP-CEN-3": device,
	"FBPP-SMP-1": device, "FBPP-SMP-2": drv, "FBPP-SMP-3": device,
	"FBPP-WIN-1": device, "FBPP-WIN-2": device, "FBPP-WIN-3": device, "FBPP-WIN-4": device,
	"FBPP-WIN-5": device, "FBPP-WIN-6": device, "FBPP-WIN-7": device, "FBPP-WIN-8": device,
	"FBPP-WIN-9": device, "FBPP-WIN-10": device, "FBPP-WIN-11": device,
	"FBPP-WIN-12": device, "FBPP-WIN-13": device, "FBPP-WIN-14": device,
}

// unseen are rules that a suite cannot check, with the side that they bind, and why.
var unseen = map[string]string{
	"FBPP-PORT-1 driver": "the port belongs to the machine: a vhost-user device does not see it;" +
		" the agent's is checked in driver-ebpf/serialport",
	"FBPP-PORT-6 driver": "nor does it see the reports there; that the device takes none that" +
		" is longer is FBPP-PORT-3",
	"FBPP-DROP-6 driver": "a device does not see what a guest drops: tests/e2e looks into guests" +
		" that drop cache",
	"FBPP-REP-11 driver": "a device sees neither what a guest relies on nor what a migration" +
		" makes of it: tests/e2e migrates guests that zero their free pages and guests" +
		" that check them",
}

// named returns the names of all rules in the documents.
func named(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, doc := range []string{"spec.md", "window.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\[(FBPP-[A-Z]+-[0-9]+)\]`).FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
	}
	if len(names) < 40 {
		t.Fatalf("only %d rules were found in the documents", len(names))
	}
	return names
}

func ids(rules []report.Rule) map[string]bool {
	found := make(map[string]bool)
	for _, r := range rules {
		if strings.HasPrefix(r.ID, "FBPP-") {
			found[r.ID] = true
		}
	}
	return found
}

func TestEveryNamedRuleIsChecked(t *testing.T) {
	suites := map[string]map[string]bool{device: ids(backend.AllRules()), drv: ids(driver.AllRules())}
	for _, name := range slices.Sorted(maps.Keys(named(t))) {
		whom := binds[name]
		if whom == "" {
			t.Errorf("%s is in the documents, and nothing says whom it binds", name)
		}
		for side, checked := range suites {
			bound := whom == side || whom == both
			reason := unseen[name+" "+side]
			switch {
			case bound && !checked[name] && reason == "":
				t.Errorf("%s binds the %s, whose suite does not check it", name, side)
			case !bound && checked[name]:
				t.Errorf("%s is checked of the %s, which it does not bind", name, side)
			case checked[name] && reason != "":
				t.Errorf("%s is checked of the %s, and is said not to be: %s", name, side, reason)
			}
		}
	}
}

func TestNoRuleIsCheckedThatTheDocumentsDoNotHave(t *testing.T) {
	names := named(t)
	sides := map[string][]report.Rule{device: backend.AllRules(), drv: driver.AllRules()}
	for side, rules := range sides {
		for id := range ids(rules) {
			if !names[id] {
				t.Errorf("the %s suite checks %s, which is not in the documents", side, id)
			}
		}
	}
	for id := range binds {
		if !names[id] {
			t.Errorf("%s is said to bind somebody, and is not in the documents", id)
		}
	}
}

func TestNamesOfRulesAreUnique(t *testing.T) {
	sides := map[string][]report.Rule{device: backend.AllRules(), drv: driver.AllRules()}
	for side, rules := range sides {
		seen := make(map[string]bool)
		for _, r := range rules {
			if seen[r.ID] || r.Text == "" || r.Source == "" {
				t.Errorf("%s suite: %+v is there twice or says nothing", side, r)
			}
			seen[r.ID] = true
		}
	}
}
