// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

// mustAnswer makes a virsh that says what QEMU answers to query-migrate, each answer once, and the
// last one for ever.
func mustAnswer(t *testing.T, answers ...string) {
	t.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "#!/bin/sh\ncase \"$*\" in *dumpxml*) echo '<kvm/>'; exit ;; esac\n"+
		"n=$(cat %[1]s/n 2>/dev/null || echo 0); echo $((n + 1)) >%[1]s/n\ncase $n in\n", t.TempDir())
	for i, answer := range answers {
		pattern := fmt.Sprint(i)
		if i == len(answers)-1 {
			pattern = "*"
		}
		fmt.Fprintf(&script, "%s) echo '{\"return\": %s}' ;;\n", pattern, answer)
	}
	script.WriteString("esac\n")
	mustPrograms(t, map[string]string{"virsh": script.String()})
}

const (
	onItsWay = `{"status":"postcopy-active","fast-snapshot-load":{"total":8388608,` +
		`"remaining":4194304,"read":2097152,"faults":7,"zero-faults":3,"time":1500}}`
	notBegun = `{"status":"active","fast-snapshot-load":{"total":0,"remaining":0,` +
		`"read":0,"faults":0,"zero-faults":0,"time":5}}`
	allThere = `{"status":"completed","fast-snapshot-load":{"total":8388608,"remaining":0,` +
		`"read":8388608,"faults":9,"zero-faults":3,"time":2500}}`
)

func TestArrivalIsShown(t *testing.T) {
	schema := mustSchema(t, "arrival")
	for _, tc := range []struct{ name, answer, want string }{
		{"on its way", onItsWay, "arriving: 4.0 of 8.0 MiB remain, 2.0 MiB read in 1.5 s; " +
			"7 pages were waited for, 3 of them zero\n"},
		{"all is there", allThere, "complete: 0.0 of 8.0 MiB remain, 8.0 MiB read in 2.5 s; " +
			"9 pages were waited for, 3 of them zero\n"},
		{"held", strings.Replace(onItsWay, "active", "paused", 1), "held: 4.0 of 8.0 MiB remain"},
		{"free memory", strings.Replace(onItsWay, `"read"`, `"skipped":3145728,"read"`, 1),
			"arriving: 4.0 of 8.0 MiB remain, 2.0 MiB read in 1.5 s; 3.0 MiB were free; 7 pages were " +
				"waited for, 3 of them zero\n"},
		{"a file that is gone", strings.Replace(onItsWay, `"fast`, `"error-desc":"no file","fast`, 1),
			`failing: no file; "cont" tries again: 4.0 of 8.0 MiB remain`},
		{"the source has not stopped", notBegun, "arriving: 0.0 of 0.0 MiB remain"},
		{"a migration that came later", strings.Replace(allThere, "completed", "postcopy-paused", 1),
			"complete: 0.0 of 8.0 MiB remain"},
		{"nothing but zeroes", strings.Replace(notBegun, "active", "completed", 1), "complete: 0.0 of"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mustAnswer(t, tc.answer)
			var out, asJSON strings.Builder
			args := []string{"arrival", "--domain=vm1"}
			if err := run(t.Context(), args, &out); err != nil || !strings.HasPrefix(out.String(), tc.want) {
				t.Errorf("printed %q, %v, want %q", &out, err, tc.want)
			}
			if err := run(t.Context(), append(args, "--json"), &asJSON); err != nil {
				t.Error(err)
			}
			validate(t, schema, asJSON.String())
		})
	}
}

func TestArrivalIsWaitedFor(t *testing.T) {
	mustAnswer(t, onItsWay, allThere)
	var out strings.Builder
	err := run(t.Context(), []string{"arrival", "--domain=vm1", "--wait"}, &out)
	said := out.String()
	if err != nil || strings.Count(said, "\n") != 2 || !strings.Contains(said, "\ncomplete: ") {
		t.Errorf("printed %q, %v", said, err)
	}
}

func TestArrivalThatHasFailed(t *testing.T) {
	for _, answer := range []string{notBegun, onItsWay} {
		answer = strings.Replace(answer, "postcopy-active", "active", 1)
		mustAnswer(t, strings.Replace(answer, `"active"`, `"failed","error-desc":"another file"`, 1))
		err := run(t.Context(), []string{"arrival", "--domain=vm1", "--wait"}, &strings.Builder{})
		if err == nil || !strings.Contains(err.Error(), "another file") {
			t.Errorf("got %v", err)
		}
	}
}

func TestArrivalOfASilentQEMU(t *testing.T) {
	mustPrograms(t, map[string]string{
		"virsh": "#!/bin/sh\ncase \"$*\" in *dumpxml*) echo '<kvm/>' ;; *) exec sleep 60 ;; esac\n",
	})
	args := []string{"arrival", "--domain=vm1", "--timeout=100ms"}
	err := run(t.Context(), args, &strings.Builder{})
	if err == nil || !strings.Contains(err.Error(), "has not answered within 100ms") {
		t.Errorf("got %v", err)
	}
}

func TestArrivalThatIsNone(t *testing.T) {
	mustAnswer(t, `{}`)
	err := run(t.Context(), []string{"arrival", "--domain=vm1"}, &strings.Builder{})
	if !errors.Is(err, errNoArrival) {
		t.Errorf("got %v", err)
	}
	for _, options := range []string{"", "--qmp=/x --domain=vm1", "--qmp=/x --vm=vm1"} {
		args := append([]string{"arrival"}, strings.Fields(options)...)
		if err := run(t.Context(), args, &strings.Builder{}); !errors.As(err, new(cli.UsageError)) {
			t.Errorf("%q: got %v, want a usage error", options, err)
		}
	}
}
