// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// pieceLen is the least length of a piece that counts as part of a known stream. Eight
// random bytes do not match by chance.
const pieceLen = 8

// onlyPiecesOf says whether p consists of pieces of stream.
func onlyPiecesOf(stream, p []byte) bool {
	for len(p) >= pieceLen {
		at := bytes.Index(stream, p[:pieceLen])
		if at < 0 {
			return false
		}
		n := pieceLen
		for n < len(p) && at+n < len(stream) && p[n] == stream[at+n] {
			n++
		}
		p = p[n:]
	}
	return true
}

func TestGuestReadsTheBackendsEntropy(t *testing.T) {
	known := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{42}).Read(known)
	source := filepath.Join(t.TempDir(), "stream")
	if err := os.WriteFile(source, known, 0o600); err != nil {
		t.Fatal(err)
	}
	rng := startBackend(t, parts.rng, "--filename="+source)
	m := boot(t, withDevices(guest.Linux6_12, device{name: "rng", socket: rng.socket}))
	testEntropy(m, known)
}

func testEntropy(m *machine, known []byte) {
	m.t.Helper()
	if driver := m.run("/bin/cat", "/sys/class/misc/hw_random/rng_current"); driver != "virtio_rng.0" {
		m.t.Fatalf("the guest's source of entropy is %q", driver)
	}
	text := m.run("/bin/od", "-An", "-v", "-tx1", "-N4096", "/dev/hwrng")
	got, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || len(got) != 4096 {
		m.t.Fatalf("read %d bytes, %v", len(got), err)
	}
	// The guest's kernel reads random bytes too, so its programs get only pieces.
	if !onlyPiecesOf(known, got) {
		m.t.Errorf("the guest read something else than the backend's stream: %x...", got[:64])
	}
	if onlyPiecesOf(known, append(got[:1024:1024], make([]byte, 64)...)) {
		m.t.Error("64 zero bytes pass for the backend's stream")
	}
}
