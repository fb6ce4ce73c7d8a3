// SPDX-License-Identifier: Apache-2.0

package sdnotify

import (
	"net"
	"path/filepath"
	"testing"
)

func TestNotifySendsOneDatagram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify(Ready, Status("waiting\nfor a migration")); err != nil {
		t.Fatal(err)
	}
	var p [256]byte
	n, err := conn.Read(p[:])
	if want := "READY=1\nSTATUS=waiting for a migration"; err != nil || string(p[:n]) != want {
		t.Fatalf("%q, %v; want %q", p[:n], err, want)
	}
}

func TestNotifyWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "absent"))
	if err := Notify(Ready); err == nil {
		t.Fatal("a socket that is not there took it")
	}
}
