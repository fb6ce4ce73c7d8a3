// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, path, want string // want: part of the error, "" for none
	}{
		{"a path", "/run/fbpp/vm1/control.sock", ""},
		{"a relative path", "control.sock", ""},
		{"a file whose name begins with @", "./@control", ""},
		{"the longest path", "/" + strings.Repeat("x", MaxPath-1), ""},
		{"a longer path", "/" + strings.Repeat("x", MaxPath), "has 108 bytes, and may have 107"},
		{"an abstract socket", "@control", "abstract socket"},
		{"an abstract socket by its NUL", "\x00control", "NUL"},
		{"nothing", "", "no path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Check(tc.path)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestMaxPathIsTheKernelsLimit compares MaxPath with the kernel's limit.
func TestMaxPathIsTheKernelsLimit(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, n := range []int{MaxPath, MaxPath + 1} {
		path := "./" + filepath.Join(strings.Repeat("x", n-2))
		l, err := net.Listen("unix", path)
		if (err == nil) != (Check(path) == nil) {
			t.Errorf("%d bytes: the kernel says %v, Check says %v", n, err, Check(path))
		}
		if err == nil {
			l.Close()
		}
	}
}
