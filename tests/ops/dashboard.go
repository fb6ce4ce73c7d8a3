// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// dashboard is the part of a Grafana dashboard that says what is shown where.
type dashboard struct {
	Title  string
	Panels []panel
}

// panel shows what its queries return: as a number ("stat") or over time ("timeseries").
type panel struct {
	Title   string
	Type    string
	GridPos struct{ X, Y, W, H float64 } // in 24ths of the width, and rows
	Targets []target
	Config  struct{ Defaults struct{ Unit string } } `json:"fieldConfig"`
}

// target is a query, and how its series are called.
type target struct{ Expr, LegendFormat string }

// loadDashboard reads a dashboard.
func loadDashboard(path string) (*dashboard, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := new(dashboard)
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return d, nil
}

// series is what a query returned over time.
type series struct {
	name   string
	points []point
}

type point struct {
	at    time.Time
	value float64
}

// label matches a label's name in a legend.
var label = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

// ask asks the Prometheus at web for a target between two times, as Grafana does with all
// machines chosen.
func (q target) ask(
	ctx context.Context, web string, from, to time.Time, step time.Duration,
) ([]series, error) {
	expr := strings.NewReplacer("$instance", ".*", "$vm", ".*").Replace(q.Expr)
	args := url.Values{
		"query": {expr}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
		"start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+web+"/api/v1/query_range?"+args.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("ask Prometheus for %s: %w", expr, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("ask Prometheus for %s: %s", expr, answer.Error)
	}
	var all []series
	for _, r := range answer.Data.Result {
		one := series{name: label.ReplaceAllStringFunc(q.LegendFormat, func(s string) string {
			return r.Metric[label.FindStringSubmatch(s)[1]]
		})}
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
				continue
			}
			one.points = append(one.points, point{time.UnixMilli(int64(at * 1e3)), value})
		}
		if len(one.points) > 0 {
			all = append(all, one)
		}
	}
	return all, nil
}

// ask asks for all panels of a dashboard, and returns the series of each. missing is a query
// that returned none, or "".
func (d *dashboard) ask(
	ctx context.Context, web string, from, to time.Time,
) (data [][]series, missing string, err error) {
	data = make([][]series, len(d.Panels))
	for i, p := range d.Panels {
		for _, q := range p.Targets {
			all, err := q.ask(ctx, web, from, to, time.Second)
			if err != nil {
				return nil, "", err
			}
			if len(all) == 0 {
				missing = q.Expr
			}
			data[i] = append(data[i], all...)
		}
	}
	return data, missing, nil
}
