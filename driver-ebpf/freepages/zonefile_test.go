// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// zoneText is what /proc/zoneinfo prints of a zone, shortened.
const zoneText = "Node 1, zone   Normal\n  pages free     8\n    cpu: 0\n" +
	"              count:    13\n"

// With many CPUs the text is larger than the first buffer.
func TestZoneFileOfAnySize(t *testing.T) {
	for _, zones := range []int{0, 1, 2, 3 * textSize / len(zoneText)} {
		f := mustOpenZoneFile(t, strings.Repeat(zoneText, zones))
		for range 2 { // from the beginning each time
			if err := f.read(); err != nil {
				t.Fatal(err)
			}
			if got := f.zones(); got != zones || len(f.text) != zones*len(zoneText) {
				t.Errorf("%d zones in %d bytes, want %d", got, len(f.text), zones)
			}
		}
	}
}

func TestZoneFileWithoutAnEnd(t *testing.T) {
	f := mustOpenZoneFile(t, strings.Repeat("\n", textSizeMax+1))
	if err := f.read(); !errors.Is(err, io.ErrShortBuffer) || f.text != nil {
		t.Errorf("error %v and %d bytes, want %v and none", err, len(f.text), io.ErrShortBuffer)
	}
}

func mustOpenZoneFile(t *testing.T, text string) *zoneFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zones")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openZoneFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	})
	return f
}
