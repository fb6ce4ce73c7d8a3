// SPDX-License-Identifier: Apache-2.0

package control

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

// Metrics turns the status of one device into metrics. It is safe for concurrent use.
type Metrics struct {
	enabled, connected, ready                  *prometheus.Desc
	requests, lastFree, lastRanges, lastPhases *prometheus.Desc
	lastOrder, lastDropped                     *prometheus.Desc
	ended, skipped, sent, total, downtime      *prometheus.Desc
}

// NewMetrics returns the metrics of a device, which all have the labels.
func NewMetrics(labels prometheus.Labels) *Metrics {
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc("fbpp_"+name, help, variable, labels)
	}
	const last = "The last migration that completed: "
	return &Metrics{
		enabled:    desc("enabled", "1 if the operator wants free memory to be skipped."),
		connected:  desc("frontend_connected", "1 if QEMU is connected."),
		ready:      desc("driver_ready", "1 if the guest's driver is there and willing."),
		requests:   desc("requests_total", "Requests of migrations that ended, by status.", "status"),
		lastFree:   desc("last_free_bytes", "Free memory that the last request found."),
		lastRanges: desc("last_ranges", "Ranges that the last request found."),
		lastOrder: desc("last_order_bytes",
			"Memory that the last request found to be sent first (hot) and last (cold).", "heat"),
		lastDropped: desc("last_dropped_bytes",
			"Cold page cache that the guest says it dropped for the last request."),
		lastPhases: desc("last_phase_seconds", "Time of the last request by phase.", "phase"),
		ended:      desc("last_migration_timestamp_seconds", last+"when it ended."),
		skipped:    desc("last_skipped_bytes", last+"what it did not send in its first pass."),
		sent:       desc("last_transferred_bytes", last+"all that it sent."),
		total:      desc("last_migration_seconds", last+"how long it took."),
		downtime:   desc("last_downtime_seconds", last+"how long the guest stood still."),
	}
}

// Describe sends what Collect may send, as prometheus.Collector does.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.enabled, m.connected, m.ready, m.requests, m.lastFree, m.lastRanges, m.lastPhases,
		m.lastOrder, m.lastDropped,
		m.ended, m.skipped, m.sent, m.total, m.downtime,
	} {
		ch <- d
	}
}

// Collect sends the metrics of a status, which need not be trusted.
func (m *Metrics) Collect(s device.Status, ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, d *prometheus.Desc, v float64, label ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, label...)
	}
	gauge := func(d *prometheus.Desc, v float64, label ...string) {
		send(prometheus.GaugeValue, d, v, label...)
	}
	gauge(m.enabled, truth(s.Enabled))
	gauge(m.connected, truth(s.Connected))
	gauge(m.ready, truth(s.DriverState == "ready"))
	for i := range protocol.AnswerStatus(protocol.NumAnswers) {
		send(prometheus.CounterValue, m.requests, float64(s.Requests[i.String()]), i.String())
	}
	if e := s.Migration; e != nil && e.Result == protocol.MigrationCompleted.String() {
		gauge(m.ended, float64(e.Ended.UnixMilli())/1e3)
		gauge(m.skipped, float64(e.SkippedBytes))
		gauge(m.sent, float64(e.TransferredBytes))
		gauge(m.total, float64(e.TotalMS)/1e3)
		gauge(m.downtime, float64(e.DowntimeMS)/1e3)
	}
	if s.Last == nil {
		return
	}
	gauge(m.lastFree, float64(s.Last.FreeBytes))
	gauge(m.lastRanges, float64(s.Last.Ranges))
	gauge(m.lastOrder, float64(s.Last.HotBytes), "hot")
	gauge(m.lastOrder, float64(s.Last.ColdBytes), "cold")
	gauge(m.lastDropped, float64(s.Last.DroppedBytes))
	seen := make(map[string]bool)
	for _, p := range s.Last.Phases {
		// An fbppd that somebody has taken over could name new ones at each scrape.
		if !seen[p.Name] && source.IsPhase(p.Name) {
			seen[p.Name] = true
			gauge(m.lastPhases, float64(p.Microseconds)/1e6, p.Name)
		}
	}
}

// collector collects the metrics of a device at each scrape.
type collector struct {
	*Metrics
	dev Device
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) { c.Metrics.Collect(c.dev.Status(), ch) }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
