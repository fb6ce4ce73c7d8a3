// SPDX-License-Identifier: Apache-2.0

package guest

import "testing"

func TestParseDepends(t *testing.T) {
	const fields = "Package: linux-image-cloud-amd64\nVersion: 6.12.1-1\n" +
		"Depends: foo, linux-image-6.12.1+deb13-cloud-amd64 (= 6.12.1-1)\n"
	name, version, ok := parseDepends([]byte(fields), "linux-image-")
	if !ok || name != "linux-image-6.12.1+deb13-cloud-amd64" || version != "6.12.1-1" {
		t.Fatalf("got %q, %q, %v", name, version, ok)
	}
	for _, bad := range []string{
		"",
		"Depends: linux-image-6 (>= 6)\n",
		"Depends: foo (= 1)\n",
		"Recommends: linux-image-6 (= 6)\n",
	} {
		if name, _, ok := parseDepends([]byte(bad), "linux-image-"); ok {
			t.Errorf("%q depends on %q", bad, name)
		}
	}
}
