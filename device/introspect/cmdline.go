// SPDX-License-Identifier: Apache-2.0

package introspect

import "strings"

// asksFor tells whether a kernel command line switches a parameter on, as
// kstrtobool reads it. The last one counts.
func asksFor(line, parameter string) (on bool) {
	for _, word := range strings.Fields(line) {
		if word == "--" {
			break
		}
		name, value, _ := strings.Cut(word, "=")
		if strings.ReplaceAll(name, "-", "_") != parameter {
			continue
		}
		value = strings.ToLower(strings.Trim(value, `"`))
		on = strings.HasPrefix(value, "1") || strings.HasPrefix(value, "y") ||
			strings.HasPrefix(value, "t") || strings.HasPrefix(value, "on")
	}
	return on
}
