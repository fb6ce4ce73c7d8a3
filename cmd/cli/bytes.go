// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// bytes is a pflag.Value for a size with limits. Its errors say how to write a size.
type bytes struct {
	p        *uint64
	min, max uint64
}

// Bytes adds a flag for a size from min to max bytes.
func Bytes(
	fs *pflag.FlagSet, p *uint64, name string, value, min, max uint64, usage string,
) {
	*p = value
	fs.Var(bytes{p, min, max}, name, usage)
}

// String implements pflag.Value.
func (b bytes) String() string {
	if b.p == nil {
		return ""
	}
	return size(*b.p)
}

// Type implements pflag.Value.
func (bytes) Type() string { return "size" }

// Set implements pflag.Value.
func (b bytes) Set(s string) error {
	v, err := humanize.ParseBytes(s)
	switch {
	case err != nil:
		return errors.New("a size is a number with a unit, such as 512MiB or 2GiB")
	case v < b.min || v > b.max:
		return fmt.Errorf("it is not between %s and %s", size(b.min), size(b.max))
	}
	*b.p = v
	return nil
}

// size writes a size as Set reads it.
func size(v uint64) string {
	for _, unit := range []struct {
		shift uint
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if v != 0 && v%(1<<unit.shift) == 0 {
			return fmt.Sprint(v>>unit.shift, unit.name)
		}
	}
	return fmt.Sprint(v, "B")
}
