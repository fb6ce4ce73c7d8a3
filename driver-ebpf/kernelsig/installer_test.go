// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

const (
	walkObject    = "../freepages/walk_x86_bpfel.o"
	walkArm64     = "../freepages/walk_arm64_bpfel.o"
	censusObject  = "../pagecensus/census_bpfel.o"
	samplerObject = "../workingset/sampler_bpfel.o"
)

func mustFile(t testing.TB, path string) []byte {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func mustInstaller(t testing.TB, file []byte) *Installer {
	t.Helper()
	in, err := ReadInstaller(file)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func digest(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:8])
}

// A signature is made by fbppctl and is good for agents of other versions. So the installer of an
// object must never change: neither by a change here, nor by one in package ebpf. Where the object
// itself is a new one, both values are.
func TestInstallerOfAnObjectStaysTheSame(t *testing.T) {
	for path, want := range map[string][2]string{
		samplerObject: {"60df5a2885608264", "77b4c0e3738a5d50"},
		walkArm64:     {"df5de7ec63e537a5", "fdd8882d5b98d4da"},
		walkObject:    {"a2fd8a602348b7dd", "70ad265f2d605768"},
		censusObject:  {"df084a0d19926b6d", "52f339d10b852fcc"},
	} {
		file := mustFile(t, path)
		in := mustInstaller(t, file)
		if got := [2]string{digest(file), digest(in.Bytes)}; got != want {
			t.Errorf("%s: object and installer are %q, were %q", path, got, want)
		}
	}
}

// Nothing of a program may be changed without the kernel finding it: neither its instructions nor
// what the kernel relocates in them.
func TestInstallerHasAllOfTheProgram(t *testing.T) {
	file := mustFile(t, walkObject)
	before := mustInstaller(t, file)
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	ext := f.Section(".BTF.ext")
	data, err := ext.Data()
	if err != nil {
		t.Fatal(err)
	}
	relocations := ext.Offset + uint64(get32(data[4:])) + uint64(get32(data[relocationTable:]))
	for what, at := range map[string]uint64{
		"an instruction":            f.Section("kprobe").Offset + 4,
		"one of another function":   f.Section(".text").Offset + 8*3 + 4,
		"the name of a member":      uint64(bytes.Index(file, []byte("per_cpu_pageset"))),
		"the kind of a relocation":  relocations + 4 + 8 + 12,
		"the license, GPL or other": f.Section("license").Offset,
	} {
		changed := slices.Clone(file)
		changed[at] ^= 1
		in, err := ReadInstaller(changed)
		if err != nil {
			t.Errorf("with %s changed: %v", what, err)
		} else if bytes.Equal(in.Bytes, before.Bytes) {
			t.Errorf("with %s changed the installer is the same", what)
		}
	}
}

// The kernel is told of maps by number. A program for which the same numbers stand for other maps
// needs another signature.
func TestMapsAreSignedByTheirNames(t *testing.T) {
	file := mustFile(t, walkObject)
	before := mustInstaller(t, file)
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	p := spec.Programs["walk_zone"]
	for i := range p.Instructions {
		if ins := &p.Instructions[i]; ins.IsLoadFromMap() && ins.Reference() == "control" {
			*ins = ins.WithReference("control2") // the order of the names stays
		}
	}
	after, err := NewInstaller(file, p)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(after.Bytes, before.Bytes) || len(after.Maps) != len(before.Maps) {
		t.Errorf("the same installer for the maps %q and %q", before.Maps, after.Maps)
	}
}

func TestMapsAreNumberedByTheirNames(t *testing.T) {
	in := mustInstaller(t, mustFile(t, walkObject))
	want := []string{".rodata", "control", "counts", "progress", "records"}
	if !slices.Equal(in.Maps, want) {
		t.Errorf("got %q, want %q", in.Maps, want)
	}
	if len(in.Bytes)%8 != 0 || in.context > maxContext {
		t.Errorf("%d bytes with a context of %d", len(in.Bytes), in.context)
	}
}

// Names that are longer than the kernel takes, and a program that is larger than an installer.
func TestProgramThatDoesNotFit(t *testing.T) {
	file := mustFile(t, censusObject)
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	p := spec.Programs["count_pages"]
	p.Name = "a_name_of_more_than_fifteen_bytes"
	if _, err := NewInstaller(file, p); err != nil {
		t.Errorf("a long name: %v", err)
	}
	for range 4096 {
		p.Instructions = append(p.Instructions, asm.Mov.Imm(asm.R0, 0))
	}
	if _, err := NewInstaller(file, p); !errors.Is(err, ErrLarge) {
		t.Errorf("a large program: %v, want ErrLarge", err)
	}
}

// What .BTF and .BTF.ext say is anybody's.
func FuzzDescribe(f *testing.F) {
	for _, path := range []string{walkObject, censusObject} {
		file := mustFile(f, path)
		f.Add(file)
		in := slices.Clone(file)
		in[len(in)/3] ^= 0xff
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		c := &code{functions: map[string]uint32{
			"walk_zone": 0, "visit": 1 << 12, "count_pages": 8, "count_page": 1 << 11,
		}}
		a, err := c.describe(file)
		if err == nil && (len(a.functions)%functionSize != 0 || len(a.relocations)%relocationSize != 0) {
			t.Errorf("%d and %d bytes of records", len(a.functions), len(a.relocations))
		}
	})
}
