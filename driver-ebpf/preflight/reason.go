// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cilium/ebpf"
)

// reasonMax is how many bytes of a reason fit in HELLO (docs/spec.md, section
// 7.1).
const reasonMax = 80

// reason makes one line of an error that fits in HELLO.
func reason(err error) string {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		// The verifier's log is many lines: its cause is one.
		line := fmt.Sprintf("eBPF program refused: %v", verifier.Cause)
		if n := len(verifier.Log); n != 0 {
			line += ": " + verifier.Log[n-1]
		}
		return cut(line)
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return shorten(line)
}

// shorten drops the first part of a line, up to a colon, as long as the line is too long. The
// first parts of an error say the least about the cause.
func shorten(line string) string {
	for len(line) > reasonMax {
		_, inner, ok := strings.Cut(line, ": ")
		if !ok {
			break
		}
		line = inner
	}
	return cut(line)
}

// cut drops the end of a line that is too long, whole characters of it.
func cut(line string) string {
	if len(line) <= reasonMax {
		return line
	}
	const mark = "…"
	end := reasonMax - len(mark)
	for !utf8.RuneStart(line[end]) {
		end--
	}
	return line[:end] + mark
}
