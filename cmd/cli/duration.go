// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/pflag"
)

// NoMax as max of [Duration] allows any longer duration.
const NoMax = time.Duration(math.MaxInt64)

// duration is a pflag.Value for a duration with limits. Its errors say how to write
// a duration.
type duration struct {
	p        *time.Duration
	min, max time.Duration
}

// Duration adds a flag for a duration from min to max.
func Duration(
	fs *pflag.FlagSet, p *time.Duration, name string, value, min, max time.Duration, usage string,
) {
	*p = value
	fs.Var(duration{p, min, max}, name, usage)
}

// String implements pflag.Value.
func (d duration) String() string { return d.p.String() }

// Type implements pflag.Value.
func (duration) Type() string { return "time" }

// Set implements pflag.Value.
func (d duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return errors.New("a time is a number with a unit, such as 500us, 5ms or 2s")
	case d.max == NoMax && v < d.min:
		return fmt.Errorf("the least is %v", d.min)
	case v < d.min || v > d.max:
		return fmt.Errorf("it is not between %v and %v", d.min, d.max)
	}
	*d.p = v
	return nil
}
