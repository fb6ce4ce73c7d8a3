// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"slices"
	"testing"
)

func TestOriginOfASeries(t *testing.T) {
	for series, want := range map[Series]origin{
		Linux6_1:                                {"bookworm", "linux-image-cloud-amd64"},
		Linux6_12RT:                             {"trixie", "linux-image-rt-amd64"},
		"sid/linux-image-amd64":                 {"sid", "linux-image-amd64"},
		"trixie-backports/linux-image-rt-amd64": {"trixie-backports", "linux-image-rt-amd64"},
	} {
		if got, err := series.origin(); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", series, got, err, want)
		}
	}
	for _, series := range []Series{
		"", "2.4", "sid", "sid/", "/linux-image-amd64", "sid/bash", "../sid/linux-image-amd64",
		"sid/linux-image-amd64/..", "sid/linux-image-amd64 bash",
	} {
		if got, err := series.origin(); err == nil {
			t.Errorf("%q comes from %v", series, got)
		}
	}
}

func TestKernelOfTheEnvironmentIsTheOnlyOne(t *testing.T) {
	const kernel = "sid/linux-image-amd64"
	t.Setenv("FBPP_KERNEL", "")
	if got := OldestAndNewest(); !slices.Equal(got, []Series{Linux6_1, Linux7_3}) {
		t.Errorf("oldest and newest are %v", got)
	}
	t.Setenv("FBPP_KERNEL", kernel)
	if got := RT(); got != Linux6_12RT {
		t.Errorf("%s has PREEMPT_RT", got)
	}
	if all := AllSeries(); !slices.Equal(all, []Series{kernel}) ||
		!slices.Equal(OldestAndNewest(), all) || Default() != kernel {
		t.Errorf("all are %v, the default is %v", all, Default())
	}
	const rt = "sid/linux-image-rt-amd64"
	t.Setenv("FBPP_KERNEL", rt)
	if got := RT(); got != rt {
		t.Errorf("%s has PREEMPT_RT, want %s", got, rt)
	}
}
