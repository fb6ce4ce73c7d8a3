// SPDX-License-Identifier: Apache-2.0

// Package report measures migrations of a virtual machine with hints and without them, and
// describes the machine and its host. What it returns names neither of them: no host, address,
// path, UUID or name of a machine, so that it can be published.
package report
