// SPDX-License-Identifier: Apache-2.0

package backend

// packed are the rules of packed rings.
func packed() []check { return nil }
