// SPDX-License-Identifier: Apache-2.0

package control

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// collector turns a device's status into metrics at each scrape.
type collector struct {
	dev                                        Device
	enabled, connected, ready                  *prometheus.Desc
	requests, lastFree, lastRanges, lastPhases *prometheus.Desc
	lastSkipped, lastOrder                     *prometheus.Desc
}

func newCollector(d Device) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("fbpp_"+name, help, labels, nil)
	}
	return &collector{
		dev:        d,
		enabled:    desc("enabled", "1 if the operator wants free memory to be skipped."),
		connected:  desc("frontend_connected", "1 if QEMU is connected."),
		ready:      desc("driver_ready", "1 if the guest's driver is there and willing."),
		requests:   desc("requests_total", "Requests of migrations that ended, by status.", "status"),
		lastFree:   desc("last_free_bytes", "Free memory that the last request found."),
		lastRanges: desc("last_ranges", "Ranges that the last request found."),
		lastSkipped: desc("last_skipped_bytes",
			"Memory that the last migration that completed did not send in its first pass."),
		lastOrder: desc("last_order_bytes",
			"Memory that the last request found to be sent first (hot) and last (cold).", "heat"),
		lastPhases: desc("last_phase_seconds", "Time of the last request by phase.", "phase"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.enabled, c.connected, c.ready, c.requests,
		c.lastFree, c.lastRanges, c.lastPhases, c.lastSkipped, c.lastOrder,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.dev.Status()
	gauge(c.enabled, truth(s.Enabled))
	gauge(c.connected, truth(s.Connected))
	gauge(c.ready, truth(s.DriverState == "ready"))
	for status, n := range s.Requests {
		ch <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(n), status)
	}
	if m := s.Migration; m != nil && m.Result == protocol.MigrationCompleted.String() {
		gauge(c.lastSkipped, float64(m.SkippedBytes))
	}
	if s.Last == nil {
		return
	}
	gauge(c.lastFree, float64(s.Last.FreeBytes))
	gauge(c.lastRanges, float64(s.Last.Ranges))
	gauge(c.lastOrder, float64(s.Last.HotBytes), "hot")
	gauge(c.lastOrder, float64(s.Last.ColdBytes), "cold")
	for _, p := range s.Last.Phases {
		gauge(c.lastPhases, float64(p.Microseconds)/1e6, p.Name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
