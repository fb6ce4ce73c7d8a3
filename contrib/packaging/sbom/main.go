// SPDX-License-Identifier: Apache-2.0

// Command sbom prints of which Go modules the programs of a package consist, by what Go's
// linker wrote into them: a software bill of materials in CycloneDX's JSON. It says nothing of
// where and when it was made, so the same programs have the same one.
package main

import (
	"debug/buildinfo"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	name := flag.String("name", "", "`NAME` of the package")
	version := flag.String("version", "", "`VERSION` of the package")
	flag.Parse()
	if err := run(os.Stdout, *name, *version, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "sbom: %v\n", err)
		os.Exit(1)
	}
}

func run(out io.Writer, name, version string, programs []string) error {
	if name == "" || version == "" || len(programs) == 0 {
		return fmt.Errorf("give --name, --version and programs")
	}
	parts := make(map[string]cdx.Component) // by reference
	of := make(map[string][]string)         // the modules of each program
	for _, path := range programs {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read what %s was built of: %w", path, err)
		}
		ref := "program:" + filepath.Base(path)
		parts[ref] = cdx.Component{
			BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: filepath.Base(path),
			Version: info.Main.Version,
		}
		// The standard library is a module by the name of std.
		std := &debug.Module{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")}
		for _, m := range append([]*debug.Module{std}, info.Deps...) {
			if m.Replace != nil {
				m = m.Replace
			}
			c := module(m)
			parts[c.BOMRef] = c
			of[ref] = append(of[ref], c.BOMRef)
		}
	}
	root := "package:" + name
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &cdx.Component{
		BOMRef: root, Type: cdx.ComponentTypeApplication, Name: name, Version: version,
	}}
	of[root] = slices.Collect(maps.Keys(of))
	bom.Components, bom.Dependencies = new([]cdx.Component), new([]cdx.Dependency)
	for _, ref := range slices.Sorted(maps.Keys(parts)) {
		*bom.Components = append(*bom.Components, parts[ref])
	}
	for _, ref := range slices.Sorted(maps.Keys(of)) {
		slices.Sort(of[ref])
		needs := of[ref]
		*bom.Dependencies = append(*bom.Dependencies, cdx.Dependency{Ref: ref, Dependencies: &needs})
	}
	return cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
}

// module describes a module, with Go's checksum of it.
func module(m *debug.Module) cdx.Component {
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	c := cdx.Component{
		BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
		PackageURL: purl,
	}
	if m.Sum != "" {
		c.Properties = &[]cdx.Property{{Name: "fbpp:go.sum", Value: m.Sum}}
	}
	return c
}
