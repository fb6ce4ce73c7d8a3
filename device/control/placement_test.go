// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
		PID: 7, Free: 4096, Regions: []placement.Region{{Length: 1 << 20, FD: 3, Inode: 5}},
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
	m, all, err := c.Placement(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.PID != 7 || m.Free != 4096 || len(m.Regions) != 1 || m.Regions[0].Inode != 5 {
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
	if _, _, err := c.Placement(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestNoPlacementWithoutAGuest(t *testing.T) {
	_, c, _ := mustServe(t)
	_, _, err := c.Placement(t.Context())
	if err == nil || !strings.Contains(err.Error(), device.ErrNoMemory.Error()) {
		t.Errorf("got %v", err)
	}
}

// An fbppd that a guest took over may send ranges without end.
func TestAPlacementIsReadUpToABound(t *testing.T) {
	c := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, "{}\n")
		line := `{"class":"hot","ranges":[` + strings.Repeat(`{"gpa":1,"length":2},`, 4096)
		line = strings.TrimSuffix(line, ",") + "]}\n"
		for err == nil {
			_, err = fmt.Fprint(w, line)
		}
	}))
	if _, _, err := c.Placement(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
}
