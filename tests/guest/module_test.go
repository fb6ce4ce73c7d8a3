// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeModule returns a small ELF file whose .modinfo section holds text.
func fakeModule(t *testing.T, modinfo string) []byte {
	t.Helper()
	names := "\x00.modinfo\x00.shstrtab\x00"
	header := elf.Header64{
		Ident:     [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
		Type:      uint16(elf.ET_REL),
		Machine:   uint16(elf.EM_X86_64),
		Version:   1,
		Ehsize:    64,
		Shentsize: 64,
		Shnum:     3,
		Shstrndx:  2,
	}
	header.Shoff = uint64(64 + len(modinfo) + len(names))
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(modinfo))},
		{
			Name: 10, Type: uint32(elf.SHT_STRTAB),
			Off: uint64(64 + len(modinfo)), Size: uint64(len(names)),
		},
	}
	var b bytes.Buffer
	for _, part := range []any{header, []byte(modinfo), []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestLoadOrderPutsDependenciesFirst(t *testing.T) {
	dir := t.TempDir()
	for name, depends := range map[string]string{
		"virtio_pci":     "virtio,virtio-pci-dev",
		"virtio":         "virtio_ring",
		"virtio_ring":    "",
		"virtio-pci-dev": "virtio",
		"unrelated":      "",
	} {
		path := filepath.Join(dir, "kernel", name+".ko")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		content := fakeModule(t, "license=GPL\x00depends="+depends+"\x00name="+name+"\x00")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	available, err := indexModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	order, err := loadOrder(t.Context(), available, []string{"virtio_pci", "built_in"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range order {
		names = append(names, m.name)
	}
	want := []string{"virtio_ring", "virtio", "virtio_pci_dev", "virtio_pci"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Fatal(diff)
	}
}

func TestModuleDependsRefusesWhatIsNoModule(t *testing.T) {
	if _, err := moduleDepends([]byte("not ELF")); err == nil {
		t.Fatal("text was read as a module")
	}
	if found, err := indexModules(filepath.Join(t.TempDir(), "none")); err != nil || len(found) != 0 {
		t.Fatalf("a folder that does not exist has %v, %v", found, err)
	}
	path := filepath.Join(t.TempDir(), "x.ko.gz")
	if _, err := readModule(t.Context(), path); err == nil {
		t.Fatal("an unknown compression was read")
	}
}
