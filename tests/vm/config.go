// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// Config describes a VM: QEMU, the guest and its devices.
type Config struct {
	QEMU      string     // path of the program
	Target    guest.Arch // "": x86-64
	Accel     Accel
	AccelWith string        // further properties of the accelerator, as in QEMU's option -accel
	CPU       string        // as in QEMU's option -cpu; "": one that suits the accelerator
	Firmware  string        // path of a ROM image that runs instead of a kernel
	UEFI      *UEFI         // boots the kernel from a disk; nil: QEMU boots it
	Kernel    *guest.Kernel // not needed with Firmware
	Initramfs string        // path of the archive
	MemoryMiB int
	// Memory are the memory backends, as in QEMU's option -object. A backend with
	// the id "ram" becomes the machine's RAM. Without one, Options have to assign
	// the backends. nil: one shared memfd.
	Memory []string
	CPUs   int      // 0: 2
	Append []string // further words of the kernel's command line

	// Backend is the socket of the vhost-user backend of the fbpp device. If it is
	// empty the VM has no such device.
	Backend string
	// Device holds further properties of the fbpp device.
	Device map[string]string
	// Port puts the fbpp device behind a PCIe root port with this id. On the root
	// bus, which is the default, a guest cannot reset a single device.
	Port string
	// AgentSocket is the backend's socket for the serial port by which an agent
	// can report. If it is empty the VM has no such port.
	AgentSocket string
	// Devices are further devices, as in QEMU's option -device.
	Devices []string
	// Options are further words of QEMU's command line.
	Options []string
}

// deviceID is the fbpp device's id in QEMU.
const deviceID = "fbpp0"

// Names of a VM's sockets and logs, in its folder.
const (
	consoleLog    = "console.log"
	monitorSocket = "qmp.sock"
	orderSocket   = "ctl.sock"
	migrateSocket = "migrate.sock"
)

// args returns QEMU's arguments. Those of the two ends of a migration differ only in
// paths, and in incoming.
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
		cpu = c.Accel.cpu(c.Target)
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", machine(c.Target), "-accel", accel, "-cpu", cpu,
		"-smp", fmt.Sprint(cpus), "-m", fmt.Sprintf("%dM", c.MemoryMiB),
		"-chardev", "file,id=console,path=" + dir + "/" + consoleLog, "-serial", "chardev:console",
		// QEMU connects to these sockets. If it listened, early output could be lost.
		"-chardev", "socket,id=orders,path=" + dir + "/" + orderSocket, "-serial", "chardev:orders",
		"-chardev", "socket,id=monitor,path=" + dir + "/" + monitorSocket,
		"-mon", "chardev=monitor,mode=control",
	}
	args = append(args, c.boot(dir)...)
	for _, m := range c.memory() {
		args = append(args, "-object", m)
		if strings.Contains(m, ",id=ram,") {
			args = append(args, "-machine", "memory-backend=ram")
		}
	}
	if c.Backend != "" {
		// QEMU reconnects after the backend was restarted.
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

// boot returns the arguments for the firmware, or for the kernel and initramfs.
func (c *Config) boot(dir string) []string {
	switch {
	case c.Firmware != "":
		return []string{"-bios", c.Firmware}
	case c.UEFI != nil:
		return c.UEFI.args(dir)
	}
	return []string{
		"-kernel", c.Kernel.Image, "-initrd", c.Initramfs, "-append", c.KernelLine(),
	}
}

// KernelLine returns the kernel's command line.
func (c *Config) KernelLine() string {
	line := []string{"console=" + console(c.Target), "panic=-1", "quiet"}
	if c.Target != guest.AArch64 {
		// The kernel checks the timer at boot, and panics if a busy host delays its interrupts.
		line = append(line, "no_timer_check")
	}
	return strings.Join(append(line, c.Append...), " ")
}

// memory returns the memory backends. The default is shared, so that fbppd can map
// it.
func (c *Config) memory() []string {
	if c.Memory != nil {
		return c.Memory
	}
	return []string{fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on", c.MemoryMiB)}
}

// commandLine quotes a command for a shell.
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
