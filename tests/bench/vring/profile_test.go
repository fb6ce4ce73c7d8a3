// SPDX-License-Identifier: Apache-2.0

package vring

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// profile writes a profile of this process's processor time to path, unless
// that is empty, until the returned function is called.
func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}
