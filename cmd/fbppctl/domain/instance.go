// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"fmt"
	"strings"

	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// RunDir has the folders of the sockets, as fbppd@.service says.
const RunDir = "/run/fbpp"

// Names of QEMU's socket and of the serial port's in such a folder. Both are as long.
const (
	socketName      = "vhost.sock"
	agentSocketName = "agent.sock"
)

// Instance returns the name of fbppd@NAME.service for a machine, and of its folder. It
// is the machine's name, with \xNN for bytes that systemd.unit(5) does not allow.
func Instance(machine string) (string, error) {
	var b strings.Builder
	for i := range len(machine) {
		if c := machine[i]; allowed(c) && c != '\\' && (c != '.' || i > 0) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	if machine == "" {
		return "", fmt.Errorf("a machine without a name has no fbppd")
	}
	if err := unixsock.Check(socket(b.String())); err != nil {
		return "", fmt.Errorf("the machine's name is too long for the path of a socket: %w", err)
	}
	return b.String(), nil
}

// allowed tells which bytes the name of an instance may have.
func allowed(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte(`:_.-\`, c) >= 0
}

func socket(instance string) string { return RunDir + "/" + instance + "/" + socketName }

func agentSocket(instance string) string { return RunDir + "/" + instance + "/" + agentSocketName }

// instanceOf is the inverse of socket. It is false for other paths, and for names that
// are no instance of systemd's.
func instanceOf(path string) (string, bool) {
	instance, below := strings.CutPrefix(path, RunDir+"/")
	instance, ours := strings.CutSuffix(instance, "/"+socketName)
	if !below || !ours || instance == "" || instance[0] == '.' {
		return "", false
	}
	for i := range len(instance) {
		if !allowed(instance[i]) {
			return "", false
		}
	}
	return instance, true
}
