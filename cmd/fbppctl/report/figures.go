// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"fmt"
)

// figures is the part of query-migrate that a report has. Times are in milliseconds.
type figures struct {
	Status    string // "" before the first migration
	TotalTime uint64 `json:"total-time"`
	SetupTime uint64 `json:"setup-time"`
	Downtime  uint64
	RAM       struct {
		Transferred uint64
		Passes      uint64 `json:"dirty-sync-count"`
		PageSize    uint64 `json:"page-size"`
	}
	Hints struct {
		Status       string
		Skipped      uint64 // pages
		ExchangeTime uint64 `json:"exchange-time"` // microseconds
	} `json:"free-page-hints"`
}

func (s *session) query(ctx context.Context) (f figures, err error) {
	if err := s.do(ctx, "query-migrate", nil, &f); err != nil {
		return f, fmt.Errorf("ask for the migration: %w", err)
	}
	return f, nil
}

// ended tells whether the migration has completed, failed or been cancelled.
func (f *figures) ended() bool {
	switch f.Status {
	case "completed", "failed", "cancelled":
		return true
	}
	return false
}

func (f *figures) migration() Migration {
	return Migration{
		Result: f.Status, Hints: f.Hints.Status, SkippedBytes: f.Hints.Skipped * f.RAM.PageSize,
		TransferredBytes: f.RAM.Transferred, Passes: f.RAM.Passes, TotalMS: f.TotalTime,
		SetupMS: f.SetupTime, DowntimeMS: f.Downtime, ExchangeUS: f.Hints.ExchangeTime,
	}
}
