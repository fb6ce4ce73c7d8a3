// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"path"
)

// Rule is one requirement of a specification.
type Rule struct {
	// ID names the rule for ever, as FBPP-REP-3 or VHU-LOG-2.
	ID string `json:"rule"`
	// Text is the requirement in one sentence.
	Text string `json:"text"`
	// Source is where the requirement is written.
	Source string `json:"source"`
	// Advice marks what a peer should do. Only the other rules, which it
	// must keep, decide the exit status.
	Advice bool `json:"advice,omitempty"`
}

// Select returns the rules whose ID one of the patterns matches, in their
// order, and all of them if there is no pattern. A pattern is one of
// [path.Match]; one that matches no rule is an error.
func Select(rules []Rule, patterns ...string) ([]Rule, error) {
	if len(patterns) == 0 {
		return rules, nil
	}
	wanted := make(map[string]bool)
	for _, p := range patterns {
		found := false
		for _, r := range rules {
			ok, err := path.Match(p, r.ID)
			if err != nil {
				return nil, fmt.Errorf("select rules by %q: %w", p, err)
			}
			if ok {
				wanted[r.ID], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("select rules: no rule matches %q", p)
		}
	}
	var selected []Rule
	for _, r := range rules {
		if wanted[r.ID] {
			selected = append(selected, r)
		}
	}
	return selected, nil
}
