// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 && !arm64

package freepages

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// findCall finds no call, because it cannot read instructions of this architecture. The
// hook is then the called function.
func findCall([]byte, uint64, uint64, func(uint64) bool) (offset int, ok bool) {
	return 0, false
}

// firstStructPage has to be written for each architecture.
func firstStructPage(*kernel.Peek) (uint64, error) {
	return 0, fmt.Errorf("find the struct pages on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
}
