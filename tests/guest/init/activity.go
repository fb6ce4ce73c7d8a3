// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/fbpp-project/fbpp/tests/guest/activity"
)

func printActivity(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected the name of a program, got %q", args)
	}
	a, err := activity.Read(args[0])
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}
