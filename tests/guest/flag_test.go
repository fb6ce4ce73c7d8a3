// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"flag"
	"io"
	"testing"
)

func TestSeriesAsAFlag(t *testing.T) {
	s := Linux6_12
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Var(&s, "kernel", "")
	for _, word := range []string{"nonsense", "", "6", "6.12.1"} {
		if err := flags.Parse([]string{"-kernel=" + word}); err == nil {
			t.Errorf("%q is a kernel series", word)
		}
	}
	for _, want := range AllSeries() {
		if err := flags.Parse([]string{"-kernel", string(want)}); err != nil || s != want {
			t.Errorf("got %s, %v, want %s", s, err, want)
		}
	}
}
