// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// object is an ELF file.
type object struct {
	file    *elf.File
	symbols []elf.Symbol
}

func readObject(file []byte) (*object, error) {
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	return &object{f, symbols}, nil
}

// section returns what a section holds.
func (o *object) section(name string) ([]byte, error) {
	section := o.file.Section(name)
	if section == nil {
		return nil, fmt.Errorf("it has no section %s: %w", name, errTypes)
	}
	data, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read section %s: %w", name, err)
	}
	return data, nil
}

// places returns where each variable lies in its section.
func (o *object) places() map[string]uint32 {
	places := make(map[string]uint32)
	for _, s := range o.symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_OBJECT {
			places[s.Name] = uint32(s.Value)
		}
	}
	return places
}
