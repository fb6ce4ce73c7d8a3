// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// loadOne loads the program of that name, and the maps that it does not get. The verifier is asked
// how long it took.
func loadOne(
	spec *ebpf.CollectionSpec, name string, opts ebpf.CollectionOptions, took *times,
) (*ebpf.Program, error) {
	opts.Programs.LogLevel = ebpf.LogLevelStats
	c, err := ebpf.NewCollectionWithOptions(spec, opts)
	if verifier := (*ebpf.VerifierError)(nil); errors.As(err, &verifier) {
		opts.Programs.LogLevel = ebpf.LogLevelBranch // now it is to say why
		c, err = ebpf.NewCollectionWithOptions(spec, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	defer c.Close() // the program keeps its maps
	prog := c.DetachProgram(name)
	took.Verifier = verifierTime(prog.VerifierLog)
	return prog, nil
}

// verifierTime returns what the verifier's log says of its time, or 0.
func verifierTime(log string) time.Duration {
	for line := range strings.Lines(log) {
		var us uint64
		if _, err := fmt.Sscanf(line, "verification time %d usec", &us); err == nil {
			return time.Duration(us) * time.Microsecond
		}
	}
	return 0
}
