// SPDX-License-Identifier: Apache-2.0

// Package cmdline reads the command line of a guest's Linux kernel. The guest's
// agent and the host's introspection both use it, so that they agree on whether
// the contents of free pages matter.
package cmdline

import "strings"

// AsksFor says whether a kernel command line switches a parameter on, as
// kstrtobool (lib/kstrtox.c) reads it. The last occurrence counts. parameter is
// written with underscores.
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
