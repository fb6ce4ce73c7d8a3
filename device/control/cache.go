// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"net/http"

	"github.com/fbpp-project/fbpp/device"
)

// setCache is the body of PUT /v1/cache.
type setCache struct {
	Cache string `json:"cache"`
}

func cache(w http.ResponseWriter, r *http.Request, d Device) {
	var body setCache
	if err := readJSON(w, r, &body); err != nil {
		http.Error(w, `the body must be {"cache": "send"}, {"cache": "last"} or {"cache": "drop"}`,
			http.StatusBadRequest)
		return
	}
	if err := d.SetCache(body.Cache); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, d.Status())
}

// SetCache sets what a migration does with cold page cache, and returns the state after
// it. A policy that is unknown is an error that says why.
func (c *Client) SetCache(ctx context.Context, policy string) (s device.Status, err error) {
	err = c.ask(ctx, http.MethodPut, "/v1/cache", setCache{Cache: policy}, &s)
	return s, err
}
