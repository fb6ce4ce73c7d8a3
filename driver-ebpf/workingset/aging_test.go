// SPDX-License-Identifier: Apache-2.0

package workingset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed is what Linux 6.12 shows of a guest with two groups and two nodes.
const listed = `memcg     1 /
 node     0
          2       6588       2685           0 
          3       6588      36187           0 
          4         20        838           0 
 node     1
          0       6588          0           0 
memcg    27 /system.slice/some thing
 node     0
          7       5032      11258           0 
          8          0        124           0 
`

var wantLists = []list{{1, 0, 4}, {1, 1, 0}, {27, 0, 8}}

// mustLists returns lists by files with these texts. An empty text is no file.
func mustLists(t *testing.T, enabled, control string) lists {
	t.Helper()
	dir := t.TempDir()
	l := lists{filepath.Join(dir, "enabled"), filepath.Join(dir, "control")}
	for path, text := range map[string]string{l.enabled: enabled, l.control: control} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestListsAreAged(t *testing.T) {
	l := mustLists(t, "0x0007\n", listed)
	if err := l.check(); err != nil {
		t.Fatal(err)
	}
	if err := l.age(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.control)
	if err != nil {
		t.Fatal(err)
	}
	const want = "+ 1 0 4 1 1\n+ 1 1 0 1 1\n+ 27 0 8 1 1\n"
	if got := strings.TrimPrefix(string(text), listed); got != want {
		t.Errorf("written was %q, want %q", got, want)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errOff)
	if err := l.age(ctx); !errors.Is(err, errOff) {
		t.Errorf("after the end: %v", err)
	}
}

func TestListsOfEachKernelAreRead(t *testing.T) {
	newer := strings.ReplaceAll(listed, "memcg    27", "memcg 27") // Linux 7.3
	for _, text := range []string{listed, newer} {
		if got := parseLists(text); !slices.Equal(got, wantLists) {
			t.Errorf("got %v, want %v", got, wantLists)
		}
	}
	cut := listed[:strings.Index(listed, "          8")]
	if got := parseLists(cut + "  x"); len(got) != 3 || got[2].newest != 7 {
		t.Errorf("cut: %v", got)
	}
}

func TestWhyListsAreNotAged(t *testing.T) {
	for name, c := range map[string]struct {
		enabled, control string
		want             error
	}{
		"an older kernel":        {"", listed, errNoGenerations},
		"switched off":           {"0x0000", listed, errOff},
		"without page tables":    {"0x0005", listed, errOff},
		"debugfs is not mounted": {"0x0007", "", errNoDebugfs},
	} {
		t.Run(name, func(t *testing.T) {
			l := mustLists(t, c.enabled, c.control)
			if err := l.check(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	l := mustLists(t, "0x0007", "nothing")
	if err := l.age(t.Context()); !errors.Is(err, errNoList) {
		t.Errorf("without a list: %v", err)
	}
	if err := os.WriteFile(l.enabled, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if err := l.age(t.Context()); !errors.Is(err, errOff) {
		t.Errorf("switched off meanwhile: %v", err)
	}
}

func FuzzParseLists(f *testing.F) {
	f.Add(listed)
	f.Add("node 1\n 2 3\nmemcg 4\n 5 6\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseLists(text); len(got) > strings.Count(text, "\n")+1 {
			t.Fatalf("%d lists", len(got))
		}
	})
}
