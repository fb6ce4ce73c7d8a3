// SPDX-License-Identifier: Apache-2.0

package freepages

import "slices"

// Object returns the walk that is built in, as an ELF file.
func Object() []byte { return slices.Clone(_WalkBytes) }
