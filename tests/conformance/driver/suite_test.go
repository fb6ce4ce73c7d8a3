// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// examine runs the suite against a scripted driver.
func examine(
	t *testing.T, f fault, features uint64, change ...func(*driver.Config),
) (map[string]report.Result, error) {
	listening := make(chan struct{}, 1)
	c := quick(t)
	c.Progress = func(line string) {
		if strings.HasPrefix(line, "waiting") {
			listening <- struct{}{}
		}
	}
	if f == "stops the guest" {
		c.Quiet = driver.DefaultQuiet // it needs the time to do so
	}
	for _, f := range change {
		f(&c)
	}
	g := &guest{t: t, path: c.SocketPath, fault: f, features: features}
	c.Control = driver.Control{Pause: g.pause, Resume: g.resume, Restart: g.restart}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	results := make(map[string]report.Result)
	go func() {
		keep := func(r report.Result) { results[r.ID] = r }
		ended <- driver.NewSuite(c).Run(ctx, driver.AllRules(), keep)
	}()
	<-listening
	if err := g.start(ctx); err != nil {
		return nil, err
	}
	err := <-ended
	if len(results) != len(driver.AllRules()) {
		t.Errorf("%d results for %d rules", len(results), len(driver.AllRules()))
	}
	return results, err
}

// quick returns a configuration with shorter waits than a real guest needs.
func quick(t *testing.T) driver.Config {
	return driver.Config{
		SocketPath: filepath.Join(t.TempDir(), "device.sock"),
		Wait:       time.Minute,
		Patience:   5 * time.Second,
		Quiet:      60 * time.Millisecond,
		Hold:       600 * time.Millisecond,
	}
}

// with returns the IDs of the rules that have this outcome.
func with(results map[string]report.Result, o report.Outcome) (ids []string) {
	for _, r := range driver.AllRules() {
		if results[r.ID].Outcome == o {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// A driver that keeps the rules passes with every set of features that it may accept.
func TestDriverThatKeepsTheRules(t *testing.T) {
	const ring = 1<<wire.FeatureRingPacked | 1<<wire.FeatureInOrder
	choices := []uint64{1 << wire.FeatureVersion1}
	for _, bit := range []uint{
		wire.FeatureIndirectDesc, wire.FeatureEventIdx, wire.FeatureRingPacked, wire.FeatureInOrder,
	} {
		for _, f := range choices {
			choices = append(choices, f|1<<bit)
		}
	}
	outcomes := examineAll(t, choices, func(features uint64) (map[string]report.Result, error) {
		return examine(t, "", features, func(c *driver.Config) { c.Features = ring })
	})
	for features, outcome := range outcomes {
		t.Run(wire.Features(features).String(), func(t *testing.T) {
			end := <-outcome
			if end.err != nil {
				t.Fatal(end.err)
			}
			for id, r := range end.results {
				if r.Outcome != report.Pass {
					t.Errorf("%s: %v: %s\n%s", id, r.Outcome, r.Detail, strings.Join(r.Notes, "\n"))
				}
			}
		})
	}
}

// outcome is what one run of the suite returned.
type outcome struct {
	results map[string]report.Result
	err     error
}

// examineAsQEMU examines a faulty driver with the ring features that QEMU
// accepts.
func examineAsQEMU(t *testing.T) func(fault) (map[string]report.Result, error) {
	return func(f fault) (map[string]report.Result, error) { return examine(t, f, acceptedByQEMU) }
}

// examineAll runs many suites at the same time, more than there are processors: they
// wait most of the time.
func examineAll[T comparable](
	t *testing.T, what []T, examine func(T) (map[string]report.Result, error),
) map[T]chan outcome {
	t.Helper()
	outcomes := make(map[T]chan outcome)
	room := make(chan struct{}, 16)
	for _, v := range what {
		ended := make(chan outcome, 1)
		outcomes[v] = ended
		go func() {
			room <- struct{}{}
			results, err := examine(v)
			<-room
			ended <- outcome{results, err}
		}()
	}
	return outcomes
}

// Each fault breaks one rule: the suite finds that rule broken, and no other.
func TestDriverThatBreaksARule(t *testing.T) {
	rules := map[fault]string{
		"breaks its ring":                         "VIRTIO-QUEUE",
		"does not accept VERSION_1":               "FBPP-ID-1",
		"accepts a reserved feature":              "FBPP-FEAT-1",
		"reads past the configuration":            "FBPP-CFG-3",
		"no hello at start":                       "FBPP-INIT-1",
		"no hello after a reset":                  "FBPP-INIT-3",
		"does not answer when a hello is wanted":  "FBPP-INIT-4",
		"short event buffers":                     "FBPP-INIT-5",
		"leaves one event buffer":                 "FBPP-INIT-6",
		"starts without a word":                   "FBPP-STARTED-1",
		"keeps buffers of unknown events":         "FBPP-EV-5",
		"takes an unknown event for a request":    "FBPP-EV-5",
		"writes buffers of the device":            "FBPP-EV-6",
		"takes any cancel for its own":            "FBPP-EV-7",
		"keeps buffers without an event":          "FBPP-EV-8",
		"takes a buffer without an event for one": "FBPP-EV-8",
		"messages with a writable part":           "FBPP-MSG-1",
		"sends more than its header says":         "FBPP-MSG-1",
		"sends less than its header says":         "FBPP-MSG-1",
		"sends unknown messages":                  "FBPP-MSG-2",
		"sets unknown flags":                      "FBPP-MSG-2",
		"fills a reserved field":                  "FBPP-MSG-2",
		"fills a reserved field of its hello":     "FBPP-MSG-2",
		"starts with a status":                    "FBPP-MSG-2",
		"numbers its hello":                       "FBPP-MSG-4",
		"keeps half of the generation":            "FBPP-MSG-4",
		"changes messages too early":              "FBPP-MSG-5",
		"hides that contents matter":              "FBPP-HELLO-1",
		"reports higher orders than it says":      "FBPP-HELLO-4",
		"never says that a report is the last":    "FBPP-REP-1",
		"says twice that a report is the last":    "FBPP-REP-1",
		"reports memory in use":                   "FBPP-REP-2",
		"reports unaligned blocks":                "FBPP-REP-3",
		"reports blocks of another class":         "FBPP-REP-3",
		"reports what is no memory":               "FBPP-REP-3",
		"reports memory past its end":             "FBPP-REP-3",
		"reports an order that no address has":    "FBPP-REP-3",
		"reports blocks twice":                    "FBPP-REP-4",
		"changes the page shift":                  "FBPP-REP-5",
		"fails with records":                      "FBPP-REP-6",
		"reports too much":                        "FBPP-REP-7",
		"counts wrongly":                          "FBPP-REP-8",
		"holds its lock while it waits":           "FBPP-REP-10",
		"stops the guest":                         "FBPP-REP-10",
		"drops cache unasked":                     "FBPP-DROP-3",
		"spends time on cache unasked":            "FBPP-DROP-3",
		"drops more cache than it may":            "FBPP-DROP-4",
		"drops cache for ever":                    "FBPP-DROP-5",
		"is dead after a cancel":                  "FBPP-OP-1",
		"short event buffers for programs":        "FBPP-PROG-1",
		"no accepts":                              "FBPP-PROG-3",
		"two sessions with one nonce":             "FBPP-PROG-3",
		"takes an offer of another session":       "FBPP-PROG-5",
		"takes data of another session":           "FBPP-PROG-5",
		"obeys another session":                   "FBPP-PROG-5",
		"does not answer an offer":                "FBPP-PROG-7",
		"does not answer a withdrawal":            "FBPP-PROG-7",
		"loads what was not offered":              "FBPP-PROG-8",
		"tells an old device of programs":         "FBPP-PROG-9",
		"counts for another session":              "FBPP-PROG-5",
		"does not answer a count":                 "FBPP-CEN-2",
		"answers a count twice":                   "FBPP-CEN-2",
		"numbers a census wrongly":                "FBPP-CEN-2",
		"names another census":                    "FBPP-CEN-2",
		"counts in no session":                    "FBPP-CEN-2",
		"samples in no session":                   "FBPP-SMP-2",
		"counts what is more than all":            "FBPP-MSG-2",
		"samples for another session":             "FBPP-PROG-5",
		"does not answer a sample":                "FBPP-SMP-2",
		"does not end a sample":                   "FBPP-SMP-2",
		"ends a sample twice":                     "FBPP-SMP-2",
		"goes on after the end of a sample":       "FBPP-SMP-2",
		"numbers a part wrongly":                  "FBPP-SMP-2",
		"numbers the end of a sample wrongly":     "FBPP-SMP-2",
		"names another sampler in a part":         "FBPP-SMP-2",
		"names another sampler at the end":        "FBPP-SMP-2",
		"counts for a sample":                     "FBPP-CEN-2",
		"begins a part within a window":           "FBPP-MSG-2",
		"ends a sample with pages":                "FBPP-MSG-2",
		"ends a sample with an unknown state":     "FBPP-MSG-2",
	}
	outcomes := examineAll(t, slices.Collect(maps.Keys(rules)), examineAsQEMU(t))
	for f, rule := range rules {
		t.Run(string(f), func(t *testing.T) {
			end := <-outcomes[f]
			if end.err != nil {
				t.Fatal(end.err)
			}
			requireOnly(t, end.results, rule)
		})
	}
}

// requireOnly requires that one rule was found broken, and no other.
func requireOnly(t *testing.T, results map[string]report.Result, rule string) {
	t.Helper()
	if broken := with(results, report.Fail); !slices.Equal(broken, []string{rule}) {
		t.Errorf("%v are broken, want %s", broken, rule)
		for _, id := range broken {
			t.Errorf("%s: %s\n%s", id, results[id].Detail, strings.Join(results[id].Notes, "\n"))
		}
	}
	if results[rule].Detail == "" || len(results[rule].Notes) == 0 {
		t.Error("nothing says what was seen")
	}
	if unknown := with(results, report.Error); len(unknown) != 0 {
		t.Errorf("%v could not be checked", unknown)
	}
}
