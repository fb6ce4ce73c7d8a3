// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"io"
)

// NewJSON returns a Sink that writes one JSON object per line: one for each rule, and
// at the end one with the key "summary".
func NewJSON(w io.Writer) Sink { return &jsonLines{enc: json.NewEncoder(w)} }

type jsonLines struct {
	enc   *json.Encoder
	suite string
}

func (j *jsonLines) Begin(suite string, _ int) error {
	j.suite = suite
	return nil
}

func (j *jsonLines) Add(r Result) error {
	return j.enc.Encode(struct {
		Suite string `json:"suite"`
		Rule
		Outcome   Outcome  `json:"outcome"`
		Detail    string   `json:"detail,omitempty"`
		Notes     []string `json:"notes,omitempty"`
		ElapsedMS float64  `json:"elapsed_ms"`
	}{j.suite, r.Rule, r.Outcome, r.Detail, r.Notes, float64(r.Elapsed.Microseconds()) / 1000})
}

func (j *jsonLines) End(s Summary, err error) error {
	end := struct {
		Suite   string  `json:"suite"`
		Summary Summary `json:"summary"`
		Error   string  `json:"error,omitempty"`
	}{Suite: j.suite, Summary: s}
	if err != nil {
		end.Error = err.Error()
	}
	return j.enc.Encode(end)
}
