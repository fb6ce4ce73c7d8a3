// SPDX-License-Identifier: Apache-2.0

package backend

// FreePage is the free page device of docs/spec.md.
func FreePage() *Profile {
	return &Profile{Name: "fbpp", Does: "the free page device", ReadOnly: 0}
}
