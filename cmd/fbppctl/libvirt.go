// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/domain"
)

// libvirtCommand has the commands for machines of libvirt.
func libvirtCommand(t *target) *cobra.Command {
	v := new(virsh)
	cmd := &cobra.Command{
		Use: "libvirt", Short: "give machines of libvirt the fbpp device",
		Long: `libvirt edits the definitions of libvirt's machines, with virsh. A definition holds from
the machine's next start.`,
	}
	cmd.PersistentFlags().StringVar(&v.uri, "connect", "", "libvirt's `URI`, as of virsh --connect")
	cmd.AddCommand(
		libvirtEnableCommand(t, v), libvirtDisableCommand(t, v), libvirtShowCommand(t, v),
		libvirtHookCommand(),
	)
	return cmd
}

// machineArgument takes the one argument that says which machine.
func machineArgument(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return fmt.Errorf("name one virtual machine")
	}
	return nil
}

func libvirtEnableCommand(t *target, v *virsh) *cobra.Command {
	var o domain.Options
	var dry bool
	cmd := &cobra.Command{
		Use: "enable VM", Short: "add the device and shared memory to a machine's XML",
		Args: machineArgument,
		Long: `enable adds the fbpp device and shared memory to a machine's XML. A second time it changes
nothing. A machine that the device is of no use to gets a reason, and is not changed: its
migrations are ordinary ones.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Check(); err != nil {
				return cli.Usagef("%w", err)
			}
			return t.edit(cmd, *v, args[0], dry, func(d *domain.Domain) error {
				if err := d.Enable(o); err != nil {
					return err
				}
				return knowsDevice(cmd.Context(), d.Emulator())
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Emulator, "emulator", "", "`PATH` of the QEMU with the device, on each host")
	fs.StringArrayVar(&o.Properties, "property", nil,
		"a property of the device, as `KEY=VALUE`; can be given several times")
	fs.BoolVar(&o.Port, "port", false,
		"add the serial port by which an agent reports under kernel lockdown")
	fs.BoolVar(&dry, "dry-run", false, "only print what would change")
	return cmd
}

func libvirtDisableCommand(t *target, v *virsh) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "disable VM", Short: "take the device from a machine's XML",
		Args: machineArgument,
		Long: `disable takes the fbpp device and its port from a machine's XML. Shared memory and
the emulator stay, as other devices may need them. Before this QEMU is removed from the host, the
machine needs another emulator.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.edit(cmd, *v, args[0], dry, func(d *domain.Domain) error {
				d.Disable()
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only print what would change")
	return cmd
}

// edit changes a machine's definition, and prints the difference.
func (t *target) edit(
	cmd *cobra.Command, v virsh, machine string, dry bool, change func(*domain.Domain) error,
) error {
	return t.withDomain(cmd, v, machine, func(ctx context.Context, text string,
		d *domain.Domain) error {
		is, err := v.state(ctx, machine)
		if err != nil {
			return err
		}
		if !is.persistent && !dry {
			return fmt.Errorf("%s is transient: libvirt would keep it. Change the XML that it is made of",
				d.Name())
		}
		before, err := d.XML()
		if err != nil {
			return err
		}
		if err := change(d); err != nil {
			return fmt.Errorf("%s is left as it is, and migrates as ever: %w", d.Name(), err)
		}
		after, err := d.XML()
		if err != nil {
			return err
		}
		if before != after && !dry {
			if err := v.replace(ctx, machine, text, after); err != nil {
				return err
			}
		}
		return printEdit(cmd.OutOrStdout(), domain.Diff(before, after), is, dry)
	})
}

// printEdit prints what was changed, and when it holds.
func printEdit(out io.Writer, diff string, is state, dry bool) error {
	var b strings.Builder
	b.WriteString(diff)
	switch {
	case diff == "":
		b.WriteString("Nothing to change.\n")
	case dry:
		b.WriteString("Nothing was changed (--dry-run).\n")
	case is.running:
		b.WriteString("The machine runs: this holds from its next start.\n")
	case is.saved:
		b.WriteString("The machine is saved: it is restored as it was, and this holds from the start" +
			" after that.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// knowsDevice returns an error if the emulator is on this host and does not know the
// device: the machine would not start. On another host it cannot be asked.
func knowsDevice(ctx context.Context, emulator string) error {
	if _, err := os.Stat(emulator); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, emulatorTimeout)
	defer cancel()
	said, err := exec.CommandContext(ctx, emulator, "-device", domain.DeviceDriver+",help").
		CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s does not know %s, and the machine would not start: give --emulator with"+
			" the QEMU that does: %w: %s", emulator, domain.DeviceDriver, err,
			strings.TrimSpace(string(said)))
	}
	return nil
}

// withDomain runs f with a machine's definition, of which text is what libvirt has.
func (t *target) withDomain(
	cmd *cobra.Command, v virsh, machine string,
	f func(ctx context.Context, text string, d *domain.Domain) error,
) error {
	if err := t.ofHost(); err != nil {
		return err
	}
	if !t.flags.Changed("timeout") {
		t.timeout = libvirtTimeout
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
	defer cancel()
	text, err := v.definition(ctx, machine)
	if err != nil {
		return err
	}
	d, err := domain.Parse(text)
	if err != nil {
		return err
	}
	return f(ctx, text, d)
}

// libvirtState is what libvirt show --json prints.
type libvirtState struct {
	VM      string `json:"vm"`
	Enabled bool   `json:"enabled"`
	// Unit is the service of its fbppd, and Folder that of the sockets.
	Unit   string `json:"unit"`
	Folder string `json:"folder"`
	// Reasons are why it is left as it is. There are none for a machine that can
	// have the device.
	Reasons []string `json:"reasons"`
}

func libvirtShowCommand(t *target, v *virsh) *cobra.Command {
	return &cobra.Command{
		Use: "show VM", Short: "say whether a machine has the device, or can have it",
		Args: machineArgument,
		Long: `show says whether a machine's XML has the fbpp device or can have it, and what its fbppd is
called. libvirt enable --dry-run prints what would change.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withDomain(cmd, *v, args[0], func(_ context.Context, _ string, d *domain.Domain) error {
				s, err := libvirtStateOf(d)
				if err != nil {
					return err
				}
				return t.show(cmd.OutOrStdout(), s, func(out io.Writer) error {
					return printLibvirtState(out, s)
				})
			})
		},
	}
}

func libvirtStateOf(d *domain.Domain) (libvirtState, error) {
	instance, enabled := d.Instance()
	if !enabled {
		var err error
		if instance, err = domain.Instance(d.Name()); err != nil {
			return libvirtState{}, err
		}
	}
	return libvirtState{
		VM: d.Name(), Enabled: d.Enabled(), Unit: unit(instance),
		Folder: filepath.Join(domain.RunDir, instance), Reasons: append([]string{}, d.Unfit()...),
	}, nil
}

func printLibvirtState(out io.Writer, s libvirtState) error {
	can := "can have it"
	switch {
	case s.Enabled:
		can = "has it"
	case len(s.Reasons) > 0:
		can = "cannot have it: " + strings.Join(s.Reasons, "; ")
	}
	_, err := fmt.Fprintf(out, "machine    %s\ndevice     %s\nunit       %s\nsockets    %s\n",
		s.VM, can, s.Unit, s.Folder)
	return err
}

// unit returns the name of the service of an instance.
func unit(instance string) string { return "fbppd@" + instance + ".service" }
