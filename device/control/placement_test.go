// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
)

// placed is a device whose guest has memory, of which err ends the description.
type placed struct {
	Device
	err error
}

func (p placed) Placement(
	_ context.Context, begin func(*placement.Memory) error, each func(placement.Ranges) error,
) error {
	if err := begin(&placement.Memory{
		Free: 4096, Regions: []placement.Region{{Length: 1 << 20, FD: 3, Inode: 5}},
	}); err != nil {
		return err
	}
	if err := each(placement.Ranges{
		Class: placement.Hot, Ranges: []freeset.Range{{GPA: 4096, Length: 8192}},
	}); err != nil {
		return err
	}
	return p.err
}

// serveHTTP serves an answer on a socket, and returns a client of it.
func serveHTTP(t *testing.T, h http.Handler) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return NewClient(path)
}

func TestAPlacementIsReadAsItWasSent(t *testing.T) {
	idle := device.New(device.Options{})
	c := serveHTTP(t, Handler(placed{Device: idle}))
	pid, m, all, err := c.Placement(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if pid != os.Getpid() || m.Free != 4096 || len(m.Regions) != 1 || m.Regions[0].Inode != 5 {
		t.Errorf("the memory is %+v", m)
	}
	want := []placement.Ranges{{
		Class: placement.Hot, Ranges: []freeset.Range{{GPA: 4096, Length: 8192}},
	}}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("the ranges are %v", all)
	}
}

func TestAPlacementThatIsCutShortIsAnError(t *testing.T) {
	idle := device.New(device.Options{})
	c := serveHTTP(t, Handler(placed{idle, io.ErrNoProgress}))
	if _, _, _, err := c.Placement(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestNoPlacementWithoutAGuest(t *testing.T) {
	_, c, _ := mustServe(t)
	_, _, _, err := c.Placement(t.Context())
	if err == nil || !strings.Contains(err.Error(), device.ErrNoMemory.Error()) {
		t.Errorf("got %v", err)
	}
}

// An fbppd that a guest took over may say what it likes.
func TestAPlacementIsReadUpToABound(t *testing.T) {
	long := `{"class":"hot","ranges":[` + strings.Repeat(`{"gpa":1,"length":2},`, 4095) +
		`{"gpa":1,"length":2}]}` + "\n"
	for name, tc := range map[string]struct {
		first, more string // more is sent without end
		want        string
	}{
		"ranges without end":   {"{}\n", long, "no end"},
		"a line without end":   {"{", `"free":1,`, bufio.ErrTooLong.Error()},
		"too many regions":     {`{"regions":[{}` + strings.Repeat(",{}", 5000) + "]}\n", "", "regions"},
		"a class that is none": {"{}\n", `{"class":"free","ranges":[{}]}` + "\n", "no class"},
		"what is no JSON":      {"no\n", "", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, err := io.WriteString(w, tc.first)
				for err == nil && tc.more != "" {
					_, err = io.WriteString(w, tc.more)
				}
			}))
			_, _, _, err := c.Placement(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestAnOlderFBPPDIsNamedAsSuch(t *testing.T) {
	c := serveHTTP(t, http.NotFoundHandler())
	_, _, _, err := c.Placement(t.Context())
	if err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("got %v", err)
	}
}
