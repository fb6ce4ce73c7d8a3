// SPDX-License-Identifier: Apache-2.0

package main

import "slices"

// spread is a figure over several rounds.
type spread struct {
	Median, Min, Max float64
	N                int
}

// newSpread returns the spread of values; no values have the zero spread.
func newSpread(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := v[len(v)/2]
	if len(v)%2 == 0 {
		mid = (v[len(v)/2-1] + mid) / 2
	}
	return spread{Median: mid, Min: v[0], Max: v[len(v)-1], N: len(v)}
}

// row is the summary of one case's rounds.
type row struct {
	benchCase
	Failures []string // one for each round without figures, or with damage

	Total, Setup, Downtime, Prepare, SourceCPU spread // ms
	Transferred, Resident                      spread // bytes
	Normal, Zero, Skipped, Repeated            spread // pages
	Lead, Stall, LongestStall, Local           spread // ms
	Requests                                   spread // pages asked for after the switchover
	Floor                                      spread // bytes; N is 0 where it is not known
	AboveFloor                                 spread // share of the floor
	hints                                      []*record
}

// summarize makes a row of each case, in the order in which they were planned.
func summarize(cases []planned, records []record) []row {
	floors := floorsByLoad(records)
	var rows []row
	for _, c := range cases {
		var have []record
		r := row{benchCase: c.benchCase}
		for _, rec := range records {
			if rec.benchCase != c.benchCase {
				continue
			}
			if rec.failed() {
				r.Failures = append(r.Failures, rec.reason())
			}
			if rec.Error == "" {
				have = append(have, rec)
			}
		}
		of := func(f func(*record) int64) spread {
			var v []float64
			for i := range have {
				v = append(v, float64(f(&have[i])))
			}
			return newSpread(v)
		}
		r.Total = of(func(r *record) int64 { return r.TotalMS })
		r.Setup = of(func(r *record) int64 { return r.SetupMS })
		r.Downtime = of(func(r *record) int64 { return r.DowntimeMS })
		r.Lead = of(func(r *record) int64 { return r.LeadMS })
		r.Stall = of(func(r *record) int64 { return r.StallMS })
		r.LongestStall = of(func(r *record) int64 { return r.LongestStallMS })
		r.Local = of(func(r *record) int64 { return r.LocalMS })
		r.Requests = of(func(r *record) int64 { return r.Requests })
		r.Prepare = of(func(r *record) int64 { return r.PrepareMS })
		r.SourceCPU = of(func(r *record) int64 { return r.SourceCPUMS })
		r.Transferred = of(func(r *record) int64 { return r.Transferred })
		r.Resident = of(func(r *record) int64 { return r.Resident })
		r.Normal = of(func(r *record) int64 { return r.Normal })
		r.Zero = of(func(r *record) int64 { return r.Zero })
		r.Skipped = of(func(r *record) int64 { return r.Skipped })
		r.Repeated = of(func(r *record) int64 { return r.Repeated })
		if floor := floors[c.Load]; floor > 0 {
			r.compare(have, floor)
		}
		for i := range have {
			if have[i].Exchange != nil && have[i].Exchange.Generation != 0 {
				r.hints = append(r.hints, &have[i])
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// compare compares each run with its floor, or with that of the load if the run has none.
func (r *row) compare(runs []record, ofLoad float64) {
	var floors, above []float64
	for _, rec := range runs {
		floor := ofLoad
		if rec.FloorBytes != 0 {
			floor = float64(rec.FloorBytes)
		}
		floors = append(floors, floor)
		above = append(above, float64(rec.Transferred)/floor-1)
	}
	r.Floor, r.AboveFloor = newSpread(floors), newSpread(above)
}

// floorsByLoad returns the least that each load's migration had to send, in
// bytes: the median over the runs that know it.
func floorsByLoad(records []record) map[load]float64 {
	values := make(map[load][]float64)
	for _, r := range records {
		if r.FloorBytes > 0 && r.Link == unlimited {
			values[r.Load] = append(values[r.Load], float64(r.FloorBytes))
		}
	}
	floors := make(map[load]float64)
	for l, v := range values {
		floors[l] = newSpread(v).Median
	}
	return floors
}

// find returns the row of a case that has figures.
func find(rows []row, c benchCase) (*row, bool) {
	for i := range rows {
		if rows[i].benchCase == c && rows[i].Total.N > 0 {
			return &rows[i], true
		}
	}
	return nil, false
}

// exchange returns one part of the exchange with the guest over a row's rounds,
// in microseconds.
func (r *row) exchange(part func(*record) int64) spread {
	var v []float64
	for _, rec := range r.hints {
		v = append(v, float64(part(rec)))
	}
	return newSpread(v)
}
