// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest/kbuild"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// buildKeeps is what a build needs for two compilers, their files and what they write, in MiB.
const buildKeeps = 256

// buildProgram is the name of the guest's program that builds.
const buildProgram = "build"

// startBuild has the guest build a part of the kernel over and over. It returns when the
// first build has ended: what comes later can be compared with it.
func startBuild(ctx context.Context, v *vm.VM, say func(string)) error {
	say("the first build")
	if err := v.Spawn(ctx, buildProgram, "/init", "build", "/dev/vda"); err != nil {
		return err
	}
	_, err := awaitBuild(ctx, v)
	return err
}

// awaitBuild waits until the build that is under way has ended.
func awaitBuild(ctx context.Context, v *vm.VM) (kbuild.Status, error) {
	var s kbuild.Status
	line, err := v.Tell(ctx, buildProgram, "status")
	if err != nil {
		return s, fmt.Errorf("wait for a build: %w", err)
	}
	if err := json.Unmarshal([]byte(line), &s); err != nil {
		return s, fmt.Errorf("decode what the builds came to: %w", err)
	}
	if s.Error != "" {
		return s, fmt.Errorf("build %d failed: %s", s.Builds+1, s.Error)
	}
	return s, nil
}

// checkBuild waits for the build that has moved with the guest, and checks that it and all
// before it have made the same objects.
func checkBuild(ctx context.Context, v *vm.VM) error {
	s, err := awaitBuild(ctx, v)
	if err != nil {
		return fmt.Errorf("check the builds: %w", err)
	}
	return soundBuilds(s)
}

// soundBuilds returns an error unless objects were compared, and all were alike.
func soundBuilds(s kbuild.Status) error {
	if len(s.Different) > 0 {
		return fmt.Errorf("check the builds: in %d builds these objects were not always the same: %s",
			s.Builds, strings.Join(s.Different, ", "))
	}
	if s.Compared == 0 {
		return fmt.Errorf("check the builds: none of %d was compared with the first", s.Builds)
	}
	return nil
}
