// SPDX-License-Identifier: Apache-2.0

// Package docs tests that the project's documents agree with its code.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the checkout.
const root = "../.."

var (
	named   = regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9_]*)`")
	defined = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z][A-Za-z0-9_]*)\(`)
)

// A document must not name a test that does not exist: the promise would be untested.
func TestEachTestThatReliabilityNamesExists(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	exists := tests(t)
	names := named.FindAllStringSubmatch(string(text), -1)
	if len(names) < 20 {
		t.Fatalf("docs/reliability.md names %d tests: is it written otherwise now?", len(names))
	}
	for _, name := range names {
		if !exists[name[1]] {
			t.Errorf("docs/reliability.md names %s, which no file defines", name[1])
		}
	}
}

// Each line of a table that promises something names a test.
func TestEachPromiseHasATest(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		head := strings.HasSuffix(strings.TrimSpace(line), "tests |") || strings.HasPrefix(line, "|---")
		if strings.HasPrefix(line, "|") && !head && !named.MatchString(line) {
			t.Errorf("no test for: %s", line)
		}
	}
}

// tests returns the names of all tests and fuzzers.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range defined.FindAllStringSubmatch(string(text), -1) {
			found[name[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
