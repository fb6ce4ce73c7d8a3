// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// mustServe serves a device without frontend on a socket until the test ends.
func mustServe(t *testing.T) (*device.Device, *Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := unixsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	d := device.New(device.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	errc := make(chan error, 1)
	go func() { errc <- Serve(ctx, l, d, zaptest.NewLogger(t)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-errc; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket after Serve: %v, want it gone", err)
		}
	})
	return d, NewClient(path), path
}

func TestSwitchingOffIsSeenInTheDeviceAndInTheAnswer(t *testing.T) {
	d, c, _ := mustServe(t)
	for _, on := range []bool{false, false, true} {
		answer, err := c.SetEnabled(t.Context(), on)
		if err != nil {
			t.Fatal(err)
		}
		if is := d.Status(); answer.Enabled != on || is.Enabled != on {
			t.Fatalf("enabled is %v in the answer and %v in the device, want %v",
				answer.Enabled, is.Enabled, on)
		}
	}
}

func TestStatusOfAnIdleDevice(t *testing.T) {
	_, c, _ := mustServe(t)
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !s.Enabled || s.Connected || s.DriverState != "none" || s.Last != nil || len(s.Requests) == 0 {
		t.Fatalf("status %+v", s)
	}
}

func TestWatchSeesEveryState(t *testing.T) {
	d, c, _ := mustServe(t)
	stop := errors.New("seen enough")
	var seen []bool
	err := c.Watch(t.Context(), func(s device.Status) error {
		seen = append(seen, s.Enabled)
		if len(seen) == 3 {
			return stop
		}
		d.SetEnabled(!s.Enabled)
		return nil
	})
	if !errors.Is(err, stop) || !seen[0] || seen[1] || !seen[2] {
		t.Fatalf("saw %v, %v; want true, false, true", seen, err)
	}
}

// An fbppd that a guest took over may send a state without end.
func TestWatchReadsAStateUpToABound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, `{"driver_state":"`)
		for err == nil {
			_, err = io.WriteString(w, strings.Repeat("x", 1<<20))
		}
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	err = NewClient(path).Watch(t.Context(), func(device.Status) error { return nil })
	if !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("got %v, want bufio.ErrTooLong", err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	h := Handler(device.New(device.Options{}))
	for _, tc := range []struct {
		name, method, path, body string
		want                     int
	}{
		{"a body that is not JSON", "PUT", "/v1/enabled", "yes", http.StatusBadRequest},
		{"a body without the field", "PUT", "/v1/enabled", "{}", http.StatusBadRequest},
		{"a body of a megabyte", "PUT", "/v1/enabled", strings.Repeat(" ", 1<<20), http.StatusBadRequest},
		{"a wrong method", "POST", "/v1/status", "", http.StatusMethodNotAllowed},
		{"an unknown path", "GET", "/v2/status", "", http.StatusNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body)))
			if w.Code != tc.want {
				t.Fatalf("status %d, want %d", w.Code, tc.want)
			}
		})
	}
}

func TestClientsThatStopSendingAreDisconnected(t *testing.T) {
	_, _, path := mustServe(t)
	for name, text := range map[string]string{
		"in the header": "PUT /v1/enabled HTTP/1.1\r\n",
		"in the body":   "PUT /v1/enabled HTTP/1.1\r\nHost: fbppd\r\nContent-Length: 17\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil { // a hang
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Fatalf("the connection is still open: %v", err)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	w := httptest.NewRecorder()
	d := device.New(device.Options{Disabled: true})
	Handler(d).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"fbpp_enabled 0\n", "fbpp_driver_ready 0\n", `fbpp_requests_total{status="bad-report"} 0`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %q:\n%s", want, text)
		}
	}
}

func TestNoDeviceIsAClearError(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v, want os.ErrNotExist", err)
	}
}
