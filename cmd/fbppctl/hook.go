// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/domain"
)

// How long fbppctl waits for libvirt, and libvirt's hook for systemd. A machine's start
// waits for the hook.
const (
	libvirtTimeout  = time.Minute
	systemdTimeout  = 10 * time.Second
	emulatorTimeout = 20 * time.Second // for a QEMU that prints its properties
)

// libvirtHookCommand is for contrib/libvirt/fbpp, which libvirt calls as
// https://libvirt.org/hooks.html says: with the machine's name, what happens, which part
// of that, a last word, and the machine's XML on standard input. It prints nothing:
// libvirt would take that for the XML of a machine that arrives.
func libvirtHookCommand() *cobra.Command {
	return &cobra.Command{
		Use: "hook VM OPERATION PART [EXTRA]", Short: "start and stop fbppd as libvirt's hook",
		Args: cobra.RangeArgs(3, 4), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), domain.MaxSize+1))
			if err != nil {
				return fmt.Errorf("read the machine's XML: %w", err)
			}
			verb := verbFor(args[1], args[2])
			if verb == "" {
				return nil
			}
			instance, ok, err := domain.InstanceIn(string(text))
			if err != nil || !ok {
				return err
			}
			// A clone has the socket of the machine that it was made of, which may run.
			if own, _ := domain.Instance(args[0]); verb == "stop" && own != instance {
				return fmt.Errorf("%s uses the socket of %s, which is left as it is:"+
					" after a clone or a new name run 'fbppctl libvirt enable'", args[0], unit(instance))
			}
			return systemctl(cmd.Context(), verb, unit(instance))
		},
	}
}

// verbFor returns what systemd has to do with fbppd, or "". A machine that arrives by
// migration or from a file is prepared like any other. After a restart of libvirt the
// machines that run are reconnected.
func verbFor(operation, part string) string {
	switch operation + " " + part {
	case "prepare begin", "reconnect begin":
		return "start"
	case "release end":
		return "stop"
	}
	return ""
}

// systemctl has systemd start or stop a unit. After the time is up the job goes on.
func systemctl(ctx context.Context, verb, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", verb, unit)
	cmd.WaitDelay = time.Second // for programs that hold its output
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", verb, unit, err, strings.TrimSpace(string(said)))
	}
	return nil
}
