// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"flag"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
)

// idle returns a program whose device does nothing. It counts in closed how often the
// device is closed.
func idle(closed *int, openErr error) Program {
	return Program{
		Name:         "idle",
		Capabilities: `{"type": "rng"}`,
		Flags:        func(fs *flag.FlagSet) { fs.Int("number", 0, "a number") },
		Open: func() (*vhostuser.Device, func() error, error) {
			if openErr != nil {
				return nil, nil, openErr
			}
			dev := &vhostuser.Device{NumQueues: 1, Kick: func(*vhostuser.Queue) {}}
			return dev, func() error { *closed++; return nil }, nil
		},
	}
}

func TestCommandLines(t *testing.T) {
	socket := "--socket-path=" + filepath.Join(t.TempDir(), "s")
	for _, tt := range []struct {
		name string
		args []string
		want string // part of the error; empty: no error
	}{
		{"neither a path nor a descriptor", nil, "--socket-path or --fd"},
		{"both of them", []string{socket, "--fd=3"}, "--socket-path or --fd"},
		{"a descriptor that is no socket", []string{"--fd=9999"}, "socket"},
		{"an unknown option", []string{socket, "--nonsense"}, "nonsense"},
		{"a wrong number", []string{socket, "--number=x"}, "number"},
		{"a stray argument", []string{socket, "x"}, `unexpected argument "x"`},
		{"a path", []string{socket}, ""},
		{"a path and an option of its own", []string{socket, "--number=3"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // as SIGTERM does
			err := idle(new(int), nil).Run(ctx, tt.args, nil, nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPrintCapabilitiesIgnoresOtherOptions(t *testing.T) {
	var out strings.Builder
	if err := idle(nil, nil).Run(t.Context(), []string{"--nonsense", "--print-capabilities", "--fd=3"},
		&out, nil); err != nil {
		t.Fatal(err)
	}
	if out.String() != "{\"type\": \"rng\"}\n" {
		t.Errorf("printed %q", out.String())
	}
}

func TestADeviceThatCannotBeOpenedEndsTheProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	want := errors.New("no such disk")
	if err := idle(nil, want).Run(t.Context(), []string{"--socket-path=" + path}, nil,
		nil); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		t.Error("the socket is left behind")
	}
}

func TestAConnectedDescriptorIsServedToItsEnd(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fds[1]) // the frontend hangs up
	closed := 0
	p := idle(&closed, nil)
	if err := p.Run(t.Context(), []string{"--fd", strconv.Itoa(fds[0])}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if closed != 1 {
		t.Errorf("the device was closed %d times", closed)
	}
}
