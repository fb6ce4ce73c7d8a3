// SPDX-License-Identifier: Apache-2.0

package lab

import "testing"

func TestAvailableMiB(t *testing.T) {
	if got, err := availableMiB("MemTotal: 9 kB\nMemAvailable:  2048 kB\n"); err != nil || got != 2 {
		t.Fatalf("got %d, %v", got, err)
	}
	if _, err := availableMiB("MemTotal: 9 kB\n"); err == nil {
		t.Fatal("a missing field was found")
	}
}
