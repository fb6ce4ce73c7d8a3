// SPDX-License-Identifier: Apache-2.0

// Package preflight finds out whether this guest can, and may, report its free
// memory, and loads what does it.
package preflight
