// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"path"
)

// Rule is one requirement of a specification.
type Rule struct {
	// ID names the rule, such as FBPP-REP-3 or VHU-LOG-2. It never changes.
	ID string `json:"rule"`
	// Text is the requirement in one sentence.
	Text string `json:"text"`
	// Source is where the requirement is written.
	Source string `json:"source"`
	// Advice marks a rule that a peer should keep but need not. It has no effect on the
	// exit status.
	Advice bool `json:"advice,omitempty"`
}

// Select returns the rules whose ID matches one of the patterns, in the order of
// rules. Without patterns it returns all. Patterns have the syntax of [path.Match]. A
// pattern that matches no rule is an error.
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
