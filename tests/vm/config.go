// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// Config says what guest to run, and on what.
type Config struct {
	QEMU      string        // path of the program
	Target    Target        // "": X86_64
	Accel     Accel         // how the guest's code runs
	AccelWith string        // further properties of the accelerator, as in QEMU's option -accel
	CPU       string        // as in QEMU's option -cpu; "": what goes with the accelerator
	Firmware  string        // path of a ROM image that runs instead of a kernel
	Kernel    *guest.Kernel // what it boots
	Initramfs string        // path of the archive
	MemoryMiB int
	// Memory are the backends of the guest's memory, as in QEMU's option
	// -object. One with the id "ram" is all of it; where there is none, Options
	// say what each is for. nil: one memfd.
	Memory []string
	CPUs   int      // 0: 2
	Append []string // further words of the kernel's command line

	// Backend is the socket of the vhost-user backend that serves the free page
	// device. Without it the guest has no such device.
	Backend string
	// Device holds further properties of the device.
	Device map[string]string
	// Port puts the device behind a PCIe root port with this id rather than on
	// the root bus, where no device can be reset by itself.
	Port string
	// AgentSocket is the backend's socket for the serial port by which an agent
	// refuses. Without it the guest has no such port.
	AgentSocket string
	// Devices are further devices, as in QEMU's option -device.
	Devices []string
	// Options are further words of QEMU's command line.
	Options []string
}

// deviceID is the free page device's name inside QEMU.
const deviceID = "fbpp0"

// paths of one VM's sockets and logs, below its folder.
const (
	consoleLog    = "console.log"
	monitorSocket = "qmp.sock"
	orderSocket   = "ctl.sock"
	migrateSocket = "migrate.sock"
)

// args returns the command line of the guest. Two processes of one migration
// differ only in the paths and in incoming.
func (c *Config) args(dir string, incoming bool) []string {
	cpus := c.CPUs
	if cpus == 0 {
		cpus = 2
	}
	accel, cpu := string(c.Accel), c.CPU
	if c.AccelWith != "" {
		accel += "," + c.AccelWith
	}
	if cpu == "" {
		cpu = c.Accel.cpu()
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", c.Target.machine(), "-accel", accel, "-cpu", cpu,
		"-smp", fmt.Sprint(cpus), "-m", fmt.Sprintf("%dM", c.MemoryMiB),
		"-chardev", "file,id=console,path=" + dir + "/" + consoleLog, "-serial", "chardev:console",
		// QEMU connects to the test, so that no early byte is lost.
		"-chardev", "socket,id=orders,path=" + dir + "/" + orderSocket, "-serial", "chardev:orders",
		"-chardev", "socket,id=monitor,path=" + dir + "/" + monitorSocket,
		"-mon", "chardev=monitor,mode=control",
	}
	args = append(args, c.boot()...)
	for _, m := range c.memory() {
		args = append(args, "-object", m)
		if strings.Contains(m, ",id=ram,") {
			args = append(args, "-machine", "memory-backend=ram")
		}
	}
	if c.Backend != "" {
		// The connection is made anew when the backend was restarted.
		args = append(args, "-chardev", "socket,id=fbpp,path="+c.Backend+",reconnect-ms=200")
		device := "vhost-user-fbpp-pci,id=" + deviceID + ",chardev=fbpp"
		if c.Port != "" {
			args = append(args, "-device", "pcie-root-port,chassis=1,id="+c.Port)
			device += ",bus=" + c.Port
		}
		for _, key := range slices.Sorted(maps.Keys(c.Device)) {
			device += "," + key + "=" + c.Device[key]
		}
		args = append(args, "-device", device)
	}
	if c.AgentSocket != "" {
		args = append(args, "-chardev", "socket,id=agent,path="+c.AgentSocket+",reconnect-ms=200",
			"-device", "virtio-serial-pci",
			"-device", "virtserialport,chardev=agent,name=org.fbpp-project.agent.0")
	}
	args = append(args, c.Options...) // devices may refer to them
	for _, d := range c.Devices {
		args = append(args, "-device", d)
	}
	if incoming {
		args = append(args, "-incoming", "defer")
	}
	return args
}

// boot returns what says where the guest's first instruction comes from.
func (c *Config) boot() []string {
	if c.Firmware != "" {
		return []string{"-bios", c.Firmware}
	}
	line := append([]string{"console=ttyS0", "panic=-1", "quiet"}, c.Append...)
	return []string{
		"-kernel", c.Kernel.Image, "-initrd", c.Initramfs, "-append", strings.Join(line, " "),
	}
}

// memory returns the backends. They are shared, as fbppd maps the guest's
// memory by their files.
func (c *Config) memory() []string {
	if c.Memory != nil {
		return c.Memory
	}
	return []string{fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on", c.MemoryMiB)}
}

// commandLine writes a command so that a shell reads it back.
func commandLine(program string, args []string) string {
	var b strings.Builder
	b.WriteString(program)
	for _, a := range args {
		b.WriteByte(' ')
		if strings.ContainsAny(a, " \t'\"$&;()|<>*?") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}
