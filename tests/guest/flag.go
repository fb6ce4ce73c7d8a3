// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"slices"
)

// Set implements flag.Value: a series is one of [AllSeries].
func (s *Series) Set(name string) error {
	if !slices.Contains(AllSeries(), Series(name)) {
		return fmt.Errorf("the kernel series are %v", AllSeries())
	}
	*s = Series(name)
	return nil
}

// String implements flag.Value.
func (s Series) String() string { return string(s) }
