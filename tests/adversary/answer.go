// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"fmt"
	"strconv"
	"strings"
)

// answer is an answer of the guest: words of the form key=number.
type answer map[string]uint64

func parseAnswer(line string) (answer, error) {
	a := make(answer)
	for word := range strings.FieldsSeq(line) {
		key, value, ok := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("the guest's answer %q: %q is no key=number", line, word)
		}
		a[key] = n
	}
	return a, nil
}

// byMoment returns the numbers of the keys name.0, name.1 and so on.
func (a answer) byMoment(name string) (by [moments]uint64) {
	for m := range by {
		by[m] = a[fmt.Sprintf("%s.%d", name, m)]
	}
	return by
}

// Moments of the guest's writes: enum moment of guest/attack.h.
const (
	momentEvent    = 1
	momentWalk     = 3
	momentPartUsed = 7
	momentLastUsed = 8
	momentAfter    = 9 // the first of afters
	afters         = 16
	momentChurn    = momentAfter + afters
	momentBefore   = momentChurn + 1
	moments        = momentBefore + 1
)

// momentName says when a page was written.
func momentName(m int) string {
	names := []string{"at first", "when asked", "after STARTED", "during the walk", "after the walk",
		"before the kick", "after the kick", "after a part was read", "after all was read"}
	switch {
	case m < len(names):
		return names[m]
	case m < momentChurn:
		return fmt.Sprintf("step<<%d after all was read", m-momentAfter)
	case m == momentChurn:
		return "by the churn"
	case m == momentBefore:
		return "before the migration"
	}
	return fmt.Sprintf("at moment %d", m)
}
