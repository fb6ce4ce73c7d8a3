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
	"time"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
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

// qemu is how to reach a machine's QEMU: by one of two ways.
type qemu struct {
	qmp    string // the path of a socket
	domain string // a name in libvirt
	virsh  virsh
}

func (q *qemu) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&q.qmp, "qmp", "", "`PATH` of a QMP socket of QEMU's that nobody else uses")
	fs.StringVar(&q.domain, "domain", "", "the machine's `NAME` in libvirt, which reaches QEMU")
	fs.StringVar(&q.virsh.uri, "connect", "", "libvirt's `URI`, as of virsh --connect")
}

// given tells whether there is a way.
func (q *qemu) given() bool { return q.qmp != "" || q.domain != "" }

// check returns a cli.UsageError where there are two ways.
func (q *qemu) check() error {
	if q.qmp != "" && q.domain != "" {
		return cli.Usagef("give either --qmp or --domain")
	}
	return nil
}

// open reaches QEMU, or libvirt, which has to answer in time. The caller closes it.
func (q *qemu) open(ctx context.Context, timeout time.Duration) (*reached, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if q.domain != "" {
		return openDomain(ctx, q.virsh, q.domain)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", q.qmp)
	if err != nil {
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	ring := ringOfPeer(conn)
	m, err := qmp.New(ctx, conn)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("QEMU does not answer on %s: is another program connected?", q.qmp)
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
