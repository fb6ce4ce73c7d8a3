// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
)

// ConfigSize is the length of the device configuration space in bytes.
const ConfigSize = 32

// ConfigEnabled is the flag of [Config] that is set while the operator of the host
// wants reports.
const ConfigEnabled = 1 << 0

// ConfigPrograms is the flag of [Config] by which a device says that it knows the messages
// about programs. An older one takes them for malformed [FBPP-PROG-9].
const ConfigPrograms = 1 << 1

// Config is the device configuration space (section 4).
type Config struct {
	Flags         uint32
	BudgetUS      uint32 // longest time to hold one zone's lock, microseconds
	BudgetEntries uint32 // most blocks to visit in one hold
}

// Encode writes the configuration into p, which has at least ConfigSize bytes.
func (c *Config) Encode(p []byte) {
	_ = p[ConfigSize-1]
	le := binary.LittleEndian
	le.PutUint32(p[0:], c.Flags)
	le.PutUint32(p[4:], c.BudgetUS)
	le.PutUint32(p[8:], c.BudgetEntries)
	le.PutUint32(p[12:], 0)
	le.PutUint64(p[16:], 0)
	le.PutUint64(p[24:], 0)
}

// DecodeConfig reads a configuration space. A newer device may have more than
// ConfigSize bytes; the rest is ignored.
func DecodeConfig(p []byte) (Config, error) {
	if len(p) < ConfigSize {
		return Config{}, fmt.Errorf("decode config: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	return Config{
		Flags:         le.Uint32(p[0:]),
		BudgetUS:      le.Uint32(p[4:]),
		BudgetEntries: le.Uint32(p[8:]),
	}, nil
}
