// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// results is what build/bench/results.json holds.
type results struct {
	Origin  origin   `json:"origin"`
	Sizes   sizes    `json:"sizes"`
	Records []record `json:"runs"`

	path  string
	aside string // where earlier results were moved, if these do not continue them
}

// openResults continues the results at path if they are of the same host, programs and
// sizes. Otherwise, or if anew is set, it begins new ones. Old results that do not match
// are kept under another name.
func openResults(path string, o origin, s sizes, anew bool) (*results, error) {
	r := &results{Origin: o, Sizes: s, path: path}
	old, aside, err := resume(path, func(old *results) bool {
		// The host's free memory, and so the other sizes, may differ.
		return !anew && old.Origin.continues(o) && old.Sizes.Guest == s.Guest
	})
	if old != nil {
		r.Records = old.Records
	}
	r.aside = aside
	return r, err
}

// resume reads the results at path. It returns nil if there are none, or if they do not go on:
// then it moves them aside, and says where to.
func resume[T any](path string, goesOn func(*T) bool) (old *T, aside string, err error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("open results: %w", err)
	}
	old = new(T)
	if err := json.Unmarshal(text, old); err != nil {
		return nil, "", fmt.Errorf("open results: %s: %w (remove it to begin anew)", path, err)
	}
	if goesOn(old) {
		return old, "", nil
	}
	aside = path + time.Now().Format(".until-20060102-150405.000")
	if err := os.Rename(path, aside); err != nil {
		return nil, "", fmt.Errorf("open results: %w", err)
	}
	return nil, aside, nil
}

// continues tells whether runs of n can be added to those of o. Only the command line may
// differ, and the commit if it changed no program.
func (o origin) continues(n origin) bool {
	o.Command, n.Command = "", ""
	o.Commit, n.Commit = "", ""
	return o == n
}

// done tells whether a run has its figures already.
func (r *results) done(wanted run) bool {
	isDone := func(have record) bool { return have.run == wanted && !have.failed() }
	return slices.ContainsFunc(r.Records, isDone)
}

// add adds a record, or replaces an earlier one of the same run. It then writes all
// records, so that an interruption loses none.
func (r *results) add(n record) error {
	r.Records = slices.DeleteFunc(r.Records, func(have record) bool { return have.run == n.run })
	r.Records = append(r.Records, n)
	return writeResults(r.path, r)
}

func writeResults(path string, r any) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return writeFile(path, append(text, '\n'))
}

// writeFile replaces a file atomically: a full disk or a kill leaves the old one.
func writeFile(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
