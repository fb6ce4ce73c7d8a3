// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// A request comes in two parts: what describes it, and the object as it is.
func TestRequestIsReadAsItWasMade(t *testing.T) {
	for _, object := range []string{"", `{"Size": 3}`, "\x7fELF\n\x00", strings.Repeat("x", 1<<18)} {
		r := request{Kind: protocol.KindCensus, Limits: defaultLimits(t),
			Maps: []string{"census"}, Object: []byte(object)}
		text, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := readRequest(bytes.NewReader(text))
		if diff := cmp.Diff(r, got); err != nil || diff != "" {
			t.Errorf("error %v, %s", err, diff)
		}
		if _, err := readRequest(bytes.NewReader(text[:len(text)-1])); err == nil {
			t.Error("a request that was cut was read")
		}
	}
}
