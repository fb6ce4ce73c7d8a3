// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// setSample is the body of POST /v1/sample.
type setSample struct {
	IntervalMS int64 `json:"interval_ms"`
}

// maxLook is how long a guest may look at its memory, beside the interval of a sample. Our agent
// ends that after two minutes, and says so.
const maxLook = 150 * time.Second

// sample has the guest sample its working set.
func sample(w http.ResponseWriter, r *http.Request, d Device) {
	var body setSample
	if err := readJSON(w, r, &body); err != nil || body.IntervalMS < 0 ||
		body.IntervalMS > protocol.MaxSampleInterval.Milliseconds() {
		text := fmt.Sprintf(`the body must be {"interval_ms": N}, of at most %d`,
			protocol.MaxSampleInterval.Milliseconds())
		http.Error(w, text, http.StatusBadRequest)
		return
	}
	interval := time.Duration(body.IntervalMS) * time.Millisecond
	ctx, cancel := context.WithTimeout(r.Context(), interval+maxLook)
	defer cancel()
	found, err := d.SampleWorkingSet(ctx, interval)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, found)
}
