// SPDX-License-Identifier: Apache-2.0

// Package cmdline reads the command line of a guest's Linux kernel. Both ends
// decide by it whether free pages may be left out: the guest's driver, and the
// host that looks for itself.
package cmdline

import "strings"

// AsksFor tells whether a kernel command line switches a parameter on, as
// kstrtobool (lib/kstrtox.c) reads it. The last one counts.
func AsksFor(line, parameter string) (on bool) {
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
