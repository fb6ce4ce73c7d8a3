// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/control"
)

// A scrape waits for one fbppd no longer than oneScrape (or --timeout), and for all of
// them no longer than allScrapes: Prometheus gives up after ten seconds.
const (
	oneScrape  = 2 * time.Second
	allScrapes = 8 * time.Second
)

func metricsCommand(t *target) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "metrics", Short: "serve the metrics of all virtual machines of this host to Prometheus",
		Args: cli.NoArgs,
		Long: `metrics serves the metrics of all fbppds of this host at /metrics, with the label vm. It
asks them at each scrape, as a user who may connect to their control sockets. It
listens at --listen, or on the sockets that systemd hands it, and ends at a signal.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.ofHost(); err != nil {
				return err
			}
			if !t.flags.Changed("timeout") {
				t.timeout = oneScrape
			}
			listeners, err := listeners(listen)
			if err != nil {
				return err
			}
			return serveMetrics(cmd.Context(), listeners, exporter{t.host, t.timeout})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "",
		"listen at `ADDRESS`: a port (127.0.0.1:9747), or unix:PATH")
	return cmd
}

// listeners returns a listener at an address, or those of systemd.
func listeners(address string) ([]net.Listener, error) {
	if address != "" {
		network, path, isUnix := "unix", "", false
		if path, isUnix = strings.CutPrefix(address, "unix:"); !isUnix {
			network, path = "tcp", address
		}
		l, err := net.Listen(network, path)
		if err != nil {
			return nil, fmt.Errorf("listen at --listen: %w", err)
		}
		return []net.Listener{l}, nil
	}
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take systemd's sockets: %w", err)
	}
	for _, l := range all {
		if l == nil {
			return nil, errors.New("systemd's socket is none that can be listened on")
		}
	}
	if len(all) == 0 {
		return nil, cli.Usagef("give --listen, or have systemd start it by a socket")
	}
	return all, nil
}

// serveMetrics serves until ctx ends. It closes the listeners.
func serveMetrics(ctx context.Context, listeners []net.Listener, e exporter) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(e, collectors.NewBuildInfoCollector())
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		ErrorLog:            log.Default(),
	}))
	srv := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 2 * allScrapes,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			err := srv.Serve(netutil.LimitListener(l, 64))
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("serve metrics: %w", err)
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return group.Wait()
}

// exporter is a prometheus.Collector of all machines of a host. It describes nothing,
// as they come and go.
type exporter struct {
	host    host
	timeout time.Duration
}

// Describe implements prometheus.Collector.
func (exporter) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (e exporter) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), allScrapes)
	defer cancel()
	all, err := e.host.ask(ctx, e.timeout)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("fbpp_up", "", nil, nil), err)
		return
	}
	for _, m := range all {
		labels := prometheus.Labels{"vm": m.name}
		gauge := func(name, help string, v float64) {
			d := prometheus.NewDesc("fbpp_"+name, help, nil, labels)
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
		}
		gauge("scrape_seconds", "How long fbppd took to answer, or failed to.", m.took.Seconds())
		if m.err != nil {
			gauge("up", upHelp, 0)
			continue
		}
		gauge("up", upHelp, 1)
		control.NewMetrics(labels).Collect(m.status, ch)
	}
}

const upHelp = "1 if the fbppd of the virtual machine has answered."
