// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// explain splits an error into a line that says why, and the end of the verifier's log.
func explain(err error) (why, log string) {
	why, _, _ = strings.Cut(err.Error(), "\n")
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		return why, ""
	}
	lines := verifier.Log
	// The last line counts instructions, whatever happened. The one before it says what
	// is wrong.
	if n := len(lines); n > 1 && strings.HasPrefix(lines[n-1], "processed ") {
		lines = lines[:n-1]
	}
	why = fmt.Sprintf("the kernel refuses the program: %v", verifier.Cause)
	if n := len(lines); n > 0 {
		why += ": " + strings.TrimSpace(lines[n-1])
	}
	log = strings.Join(lines, "\n")
	if cut := len(log) - protocol.MaxProgramLog; cut > 0 {
		log = log[cut:]
		if i := strings.IndexByte(log, '\n'); i >= 0 {
			log = log[i+1:] // whole lines only
		}
	}
	return why, log
}

// refusedError is what a child says of an object.
type refusedError struct{ why, log string }

// Error implements error.
func (e *refusedError) Error() string { return e.why }

// VerifierLog returns the end of the verifier's log.
func (e *refusedError) VerifierLog() string { return e.log }
