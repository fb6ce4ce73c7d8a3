// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// The bill of this very test names what it is built of, and is the same each time.
func TestBillNamesEveryModule(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := run(out, "p", "1", []string{self}); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("two bills of one program differ")
	}
	bom := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(&first, cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, c := range *bom.Components {
		seen[c.Name] = c.Version != ""
	}
	if !seen["std"] || !seen["github.com/CycloneDX/cyclonedx-go"] || bom.SerialNumber != "" ||
		bom.Metadata.Timestamp != "" {
		t.Errorf("the bill has %v, %q, %q", seen, bom.SerialNumber, bom.Metadata.Timestamp)
	}
	if run(new(bytes.Buffer), "p", "1", []string{"/etc/passwd"}) == nil {
		t.Error("a file that is no program has a bill")
	}
}
