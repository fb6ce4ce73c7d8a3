// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// mustObject returns the project's program of a kind, as the build made it.
func mustObject(t testing.TB, kind protocol.ProgramKind) []byte {
	t.Helper()
	file := map[protocol.ProgramKind]string{
		protocol.KindWalk:    "freepages/walk_x86_bpfel.o",
		protocol.KindCensus:  "pagecensus/census_bpfel.o",
		protocol.KindSampler: "workingset/sampler_bpfel.o",
	}[kind]
	object, err := os.ReadFile(filepath.Join(parts.Root, "driver-ebpf", file))
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// signKind makes a program of a kind and that version of an object.
func (o *owner) signKind(
	kind protocol.ProgramKind, object []byte, version byte,
) *bundle.Bundle {
	o.t.Helper()
	return o.sign(object, uint64(version), func(f *protocol.Offer) {
		f.Kind, f.Name = kind, kind.String()
	})
}

// make makes the project's program of a kind in that version. Each has another digest: what is
// appended is no part of the ELF file's sections.
func (o *owner) make(kind protocol.ProgramKind, version byte) *bundle.Bundle {
	o.t.Helper()
	return o.signKind(kind, append(mustObject(o.t, kind), version), version)
}
