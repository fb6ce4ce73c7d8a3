// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"slices"
	"testing"
)

func TestOriginOfASeries(t *testing.T) {
	for _, tc := range []struct {
		arch   Arch
		series Series
		want   origin
	}{
		{X86_64, Linux6_1, origin{"bookworm", "linux-image-cloud-amd64"}},
		{X86_64, Linux6_12RT, origin{"trixie", "linux-image-rt-amd64"}},
		{X86_64, "sid/linux-image-amd64", origin{"sid", "linux-image-amd64"}},
		{X86_64, "trixie-backports/linux-image-rt-amd64",
			origin{"trixie-backports", "linux-image-rt-amd64"}},
		{AArch64, Linux6_1, origin{"bookworm", "linux-image-cloud-arm64"}},
		{AArch64, Linux6_12With16K, origin{"trixie", "linux-image-arm64-16k"}},
	} {
		if got, err := tc.series.origin(tc.arch); err != nil || got != tc.want {
			t.Errorf("%s: %v, %v, want %v", tc.series, got, err, tc.want)
		}
	}
	for _, series := range []Series{
		"", "2.4", "sid", "sid/", "/linux-image-amd64", "sid/bash", "../sid/linux-image-amd64",
		"sid/linux-image-amd64/..", "sid/linux-image-amd64 bash", Linux6_12With16K,
	} {
		if got, err := series.origin(X86_64); err == nil {
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
