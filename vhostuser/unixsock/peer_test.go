// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestPeerIsTheProcessAtTheOtherEnd(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if pid, err := PeerPID(conn); err != nil || pid != os.Getpid() {
		t.Errorf("the peer is %d, %v", pid, err)
	}
	conn.Close()
	if pid, err := PeerPID(conn); err == nil {
		t.Errorf("the peer of a connection that is closed is %d", pid)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if pid, err := PeerPID(file); err == nil {
		t.Errorf("the peer of what is no socket is %d", pid)
	}
}
