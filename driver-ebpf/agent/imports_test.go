// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The agent's loop depends neither on a transport nor on the way a snapshot is taken. Of
// our packages it imports only those below, also indirectly, and no package for eBPF.
func TestLoopKnowsNeitherTransportNorSnapshot(t *testing.T) {
	const module = "github.com/fbpp-project/fbpp/"
	known := []string{
		module + "device/protocol", module + "driver-ebpf/agent", module + "driver-ebpf/walk",
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("list what the package is built from: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, known[2]) {
		t.Fatalf("%s is not among %q", known[2], deps)
	}
	for _, dep := range deps {
		ours := strings.HasPrefix(dep, module)
		if ours && !slices.Contains(known, dep) || strings.Contains(dep, "cilium/ebpf") {
			t.Errorf("the loop is built from %s", dep)
		}
	}
}
