// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

// maxConns, maxHeader and maxBody bound the memory that clients can make the
// process use. patience bounds the time for a header, for a body, and for one line
// of a watch.
const (
	maxConns  = 64
	maxHeader = 16 << 10
	maxBody   = 4096
	patience  = 5 * time.Second

	maxCensus = time.Minute // to find a guest's kernel and count its pages
)

// Serve answers requests on l until ctx ends. It closes l, and returns nil at
// the end of ctx. At most maxConns clients are served at once; others wait. A
// client that stays silent is disconnected.
func Serve(ctx context.Context, l net.Listener, d Device, lg *zap.Logger) error {
	srv := &http.Server{
		Handler:           Handler(d),
		ReadHeaderTimeout: patience,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          zap.NewStdLog(lg),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(netutil.LimitListener(l, maxConns)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// Handler returns the HTTP interface of d.
func Handler(d Device) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{NewMetrics(nil), d})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, d.Status())
	})
	mux.HandleFunc("PUT /v1/enabled", func(w http.ResponseWriter, r *http.Request) {
		var body setEnabled
		if err := readJSON(w, r, &body); err != nil || body.Enabled == nil {
			http.Error(w, `the body must be {"enabled": true} or {"enabled": false}`, http.StatusBadRequest)
			return
		}
		d.SetEnabled(*body.Enabled)
		writeJSON(w, d.Status())
	})
	mux.HandleFunc("PUT /v1/cache", func(w http.ResponseWriter, r *http.Request) { cache(w, r, d) })
	mux.HandleFunc("POST /v1/programs", func(w http.ResponseWriter, r *http.Request) {
		pushProgram(w, r, d)
	})
	mux.HandleFunc("DELETE /v1/programs/{digest}", func(w http.ResponseWriter, r *http.Request) {
		withdrawProgram(w, r, d)
	})
	mux.HandleFunc("GET /v1/watch", func(w http.ResponseWriter, r *http.Request) { watch(w, r, d) })
	mux.HandleFunc("GET /v1/history", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, d.History())
	})
	mux.HandleFunc("GET /v1/census", func(w http.ResponseWriter, r *http.Request) {
		takeCensus(w, r, d)
	})
	mux.HandleFunc("POST /v1/sample", func(w http.ResponseWriter, r *http.Request) {
		sample(w, r, d)
	})
	mux.HandleFunc("GET /v1/placement", func(w http.ResponseWriter, r *http.Request) {
		sendPlacement(w, r, d)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		DisableCompression: true, // its buffers are many times as large as the text
	}))
	return mux
}

func takeCensus(w http.ResponseWriter, r *http.Request, d Device) {
	ctx, cancel := context.WithTimeout(r.Context(), maxCensus)
	defer cancel()
	take := d.Census
	switch from := r.URL.Query().Get("from"); from {
	case "", "host":
	case "guest":
		take = d.GuestCensus
	default:
		text := fmt.Sprintf("a census from %q: it is either from host or from guest", from)
		http.Error(w, text, http.StatusBadRequest)
		return
	}
	c, err := take(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, c)
}

// readJSON reads a body, which has to come soon.
func readJSON(w http.ResponseWriter, r *http.Request, body any) error {
	// A ReadTimeout of the server would end a watch, too. The error is ignored: the
	// response writers of tests have no deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience))
	return json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(body)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only when the client has gone
}

func watch(w http.ResponseWriter, r *http.Request, d Device) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, conn := json.NewEncoder(w), http.NewResponseController(w)
	for {
		changed := d.Changed()
		// Disconnect a client that does not read. The deadline is cleared below: the
		// next change may come after it, and a passed deadline cannot be extended.
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		if enc.Encode(d.Status()) != nil || conn.Flush() != nil {
			return
		}
		_ = conn.SetWriteDeadline(time.Time{})
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
