// SPDX-License-Identifier: Apache-2.0

package systemd

import "strings"

// documented are commands of the documents, as they stand there. The agent's come first: fbppd
// by hand goes on until it is ended.
var documented = []string{
	"modinfo uio_pci_generic",
	"sysctl kernel.kptr_restrict=1",
	"fbpp-agent --check",
	"fbpp-agent --once",
	"setfacl -m u:libvirt-qemu:rw /dev/userfaultfd",
	"systemctl start fbppd@vm1",
	"fbppctl --vm=vm1 status",
	"fbppctl --vm=vm1 disable",
	"fbppctl --vm=vm1 enable",
	"fbppctl --vm=vm1 history",
	"fbppctl --control-path=/run/fbpp/vm1/control.sock cache last",
	"curl --unix-socket /run/fbpp/vm1/control.sock http://fbppd/metrics",
	"systemctl restart fbppd@vm1",
	"systemctl restart 'fbppd@*'",
	"journalctl -u fbppd@vm1",
	"journalctl -t fbpp-hook",
	"systemctl enable --now fbpp-exporter.socket",
}

// hostUnits starts the units of a host, with a configuration file of the machine's own.
// fbppd serves, confined by its unit and by itself, and the exporter starts with its socket.
func (m *machine) hostUnits() {
	m.t.Helper()
	m.shell(`mkdir -p /etc/fbpp
		echo 'FBPPD_OPTIONS="--source=auto --cache=last"' >/etc/fbpp/vm1.conf
		useradd --system libvirt-qemu
		systemctl enable fbppd@vm1.service`)
	for _, command := range documented {
		m.shell(command)
	}
	show := m.run("/usr/bin/systemctl", "show", "fbppd@vm1.service", "-p", "ActiveState,NRestarts")
	if !strings.Contains(show, "ActiveState=active") || !strings.Contains(show, "NRestarts=0") {
		m.t.Errorf("fbppd@vm1: %s", show)
	}
	if said := m.run("/usr/bin/fbppctl", "--vm=vm1", "--json", "status"); !strings.Contains(said,
		`"cache":"last"`) || !strings.Contains(said, `"introspect"`) {
		m.t.Errorf("fbppd@vm1 did not read its configuration: %s", said)
	}
	if said := m.run("/usr/bin/fbppctl", "list"); !strings.Contains(said, "vm1") {
		m.t.Errorf("fbppctl list says %q", said)
	}
	said := m.run("/usr/bin/journalctl", "-b", "--no-pager", "-o", "cat", "-u", "fbppd@vm1.service")
	if !strings.Contains(said, "confined") || strings.Contains(said, `"missing"`) {
		m.t.Errorf("fbppd@vm1 is not confined: %s", said)
	}
	metrics := m.shell(`exec 3<>/dev/tcp/127.0.0.1/9747
		printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
		cat <&3`)
	if !strings.Contains(metrics, `fbpp_up{vm="vm1"} 1`) {
		m.t.Errorf("the exporter says %s", metrics)
	}
	if left := m.shell("ls -A /var/lib/fbpp"); left != "vm1" {
		m.t.Errorf("/var/lib/fbpp has %q", left)
	}
}

// apparmor has the guest's kernel confine a program as libvirt confines QEMU. It may use
// userfaultfd with the line that docs/libvirt.md gives, and not without, and reaches fbppd.
// Debian's kernels do not ask AppArmor who connects to a socket, so that needs no line here.
func (m *machine) apparmor() {
	m.t.Helper()
	if on := m.run("/bin/cat", "/sys/module/apparmor/parameters/enabled"); on != "Y" {
		m.t.Fatalf("AppArmor is %q in the guest", on)
	}
	// As virt-aa-helper makes the profile of one machine.
	m.shell(`sed 's/LIBVIRT_TEMPLATE/libvirt-test/; s|^}|  /usr/bin/socat* rmix,\n}|' \
		/etc/apparmor.d/libvirt/TEMPLATE.qemu >/etc/apparmor.d/libvirt/libvirt-test`)
	const load = "apparmor_parser -r /etc/apparmor.d/libvirt/libvirt-test"
	const openUserfaultfd = `aa-exec -p libvirt-test -- \
		socat -u OPEN:/dev/null OPEN:/dev/userfaultfd,wronly 2>&1`
	const reachFBPPD = `setpriv --reuid=fbpp --regid=fbpp --clear-groups aa-exec -p libvirt-test -- \
		socat -u OPEN:/dev/null UNIX-CONNECT:/run/fbpp/vm1/vhost.sock 2>&1`
	// libvirt's own package makes this file, which is for what is local.
	const local = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
	m.shell("mkdir -p /etc/apparmor.d/local/abstractions && touch " + local)
	m.shell(load)
	said, err := m.vm.Run(m.ctx, "/bin/bash", "-ec", openUserfaultfd)
	if err == nil || !strings.Contains(said, "Permission denied") {
		m.t.Errorf("without the line AppArmor lets QEMU use userfaultfd: %q, %v", said, err)
	}
	m.shell("echo 'include <abstractions/fbpp>' >>" + local)
	m.shell(load)
	m.shell(openUserfaultfd)
	m.shell(reachFBPPD)
}
