// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/qmp"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/report"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// reached is a QEMU that takes commands of QMP.
type reached struct {
	report.Monitor
	dirtyRing *bool // nil: nobody says
	close     func() error
}

// openQEMU reaches the machine's QEMU. The caller closes it.
func (r *reporting) openQEMU(ctx context.Context) (*reached, error) {
	if r.domain != "" {
		return openDomain(ctx, r.virsh, r.domain)
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", r.qmp)
	if err != nil {
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	ring := ringOfPeer(conn)
	m, err := qmp.New(ctx, conn)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("QEMU does not answer on %s: is another program connected?", r.qmp)
	}
	if err != nil {
		return nil, err
	}
	return &reached{Monitor: m, dirtyRing: ring, close: m.Close}, nil
}

// ringOfPeer looks for a dirty ring in the command line of the process that made the socket.
func ringOfPeer(conn net.Conn) *bool {
	pid, err := unixsock.PeerPID(conn.(*net.UnixConn))
	if err != nil {
		return nil
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte("-accel")) && !bytes.Contains(line, []byte("kvm")) {
		return nil // it may be a program that QEMU got the socket from
	}
	ring := bytes.Contains(line, []byte("dirty-ring-size="))
	return &ring
}

// openDomain reaches the QEMU of a machine of libvirt's.
func openDomain(ctx context.Context, v virsh, name string) (*reached, error) {
	xml, err := v.run(ctx, "", "dumpxml", "--domain="+name)
	if err != nil {
		return nil, err
	}
	ring := strings.Contains(xml, "<dirty-ring state='on'")
	return &reached{
		Monitor: domainMonitor{v, name}, dirtyRing: &ring, close: func() error { return nil },
	}, nil
}

// domainMonitor runs QMP commands by way of libvirt.
type domainMonitor struct {
	virsh virsh
	name  string
}

// Execute implements report.Monitor.
func (d domainMonitor) Execute(ctx context.Context, command string, args, result any) error {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	said, err := d.virsh.run(ctx, "", "qemu-monitor-command", "--domain="+d.name, string(line))
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	var answer struct {
		Return json.RawMessage
		Error  *qmp.Error
	}
	if err := json.Unmarshal([]byte(said), &answer); err != nil {
		return fmt.Errorf("%s: decode the answer: %w", command, err)
	}
	if answer.Error != nil {
		answer.Error.Command = command
		return answer.Error
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Return, result); err != nil {
		return fmt.Errorf("%s: decode the answer: %w", command, err)
	}
	return nil
}
