// SPDX-License-Identifier: Apache-2.0

//go:build !docs

package cli

import "github.com/spf13/cobra"

// document writes documents in builds for packaging only.
func document(*cobra.Command, []string) (bool, error) { return false, nil }
