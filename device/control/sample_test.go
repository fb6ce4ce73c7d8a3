// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// A wrong question never reaches the guest, and a good one that has no answer is no error of who
// has asked.
func TestSampleIsAskedForByItsInterval(t *testing.T) {
	handler := control.Handler(device.New(device.Options{}))
	for body, want := range map[string]int{
		`{"interval_ms": 1000}`:  http.StatusServiceUnavailable, // there is no guest
		`{"interval_ms": 60000}`: http.StatusServiceUnavailable,
		`{"interval_ms": 60001}`: http.StatusBadRequest,
		`{"interval_ms": -1}`:    http.StatusBadRequest,
		`{"interval_ms": "1s"}`:  http.StatusBadRequest,
		``:                       http.StatusBadRequest,
	} {
		r := httptest.NewRequest(http.MethodPost, "/v1/sample", strings.NewReader(body))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d %s, want %d", body, w.Code, w.Body, want)
		}
	}
}
