// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest/kbuild"
	"github.com/fbpp-project/fbpp/tests/vm"
)

func TestSoundBuilds(t *testing.T) {
	for name, tc := range map[string]struct {
		status kbuild.Status
		want   string // part of the error
	}{
		"all alike":          {kbuild.Status{Builds: 2, Compared: 12}, ""},
		"nothing to compare": {kbuild.Status{Builds: 1}, "none of 1 was compared"},
		"an object differs": {
			kbuild.Status{Builds: 3, Compared: 24, Different: []string{"inode.o", "isofs.ko"}},
			"inode.o, isofs.ko",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := soundBuilds(tc.status)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestDisksOfOneImage(t *testing.T) {
	c := vm.Config{Options: []string{"-first"}}
	addDisks(&c, "image", 2)
	want := []string{"virtio-blk-pci,drive=disk0", "virtio-blk-pci,drive=disk1"}
	if !slices.Equal(c.Devices, want) || len(c.Options) != 5 ||
		!strings.Contains(c.Options[4], "id=disk1,file=image,") {
		t.Errorf("got %+v", c)
	}
}
