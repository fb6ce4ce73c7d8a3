// SPDX-License-Identifier: Apache-2.0

package control

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device"
)

func TestTheCachePolicyIsSetInTheDevice(t *testing.T) {
	d, c, _ := mustServe(t)
	for _, policy := range []device.CachePolicy{
		device.CacheLast, device.CacheDrop, device.CacheSend,
	} {
		answer, err := c.SetCache(t.Context(), string(policy))
		if err != nil {
			t.Fatal(err)
		}
		if is := d.Status().Cache; answer.Cache != policy || is != policy {
			t.Errorf("the policy is %v in the answer and %v in the device", answer.Cache, is)
		}
	}
	for _, policy := range []string{"", "all"} {
		if _, err := c.SetCache(t.Context(), policy); err == nil ||
			!strings.Contains(err.Error(), "none of") {
			t.Errorf("%q: %v", policy, err)
		}
	}
	if is := d.Status().Cache; is != device.CacheSend {
		t.Errorf("policies that are refused leave %v", is)
	}
}
