// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// host is the folder in which each virtual machine of the host has a folder with the
// sockets of its fbppd.
type host string

// socket returns the path of the control socket of a virtual machine.
func (h host) socket(vm string) string { return filepath.Join(string(h), vm, "control.sock") }

// checkName refuses names that are no name of a folder.
func checkName(vm string) error {
	if vm == "." || vm == ".." || strings.ContainsAny(vm, "/\x00") {
		return fmt.Errorf("%q is no name of a virtual machine", vm)
	}
	return nil
}

// machines returns the names of the virtual machines that have a control socket, in
// order. A host without the folder has none.
func (h host) machines() ([]string, error) {
	entries, err := os.ReadDir(string(h))
	if os.IsNotExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look for virtual machines: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !utf8.ValidString(e.Name()) {
			continue // it cannot be a label
		}
		info, err := os.Stat(h.socket(e.Name()))
		switch {
		case os.IsPermission(err): // it is listed, with the error that comes of it
		case err != nil || info.Mode().Type() != fs.ModeSocket:
			continue
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// machine is what one fbppd of the host said.
type machine struct {
	name   string
	status device.Status
	err    error // why it said nothing
	took   time.Duration
}

// atOnce is how many fbppds are asked at the same time.
const atOnce = 32

// ask asks all fbppds of the host for their status, each for no longer than timeout.
func (h host) ask(ctx context.Context, timeout time.Duration) ([]machine, error) {
	names, err := h.machines()
	if err != nil {
		return nil, err
	}
	all, turns := make([]machine, len(names)), make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for i, name := range names {
		turns <- struct{}{}
		group.Go(func() {
			defer func() { <-turns }()
			all[i] = h.askOne(ctx, name, timeout)
		})
	}
	group.Wait()
	return all, nil
}

func (h host) askOne(ctx context.Context, name string, timeout time.Duration) machine {
	bounded, cancel := context.WithTimeoutCause(ctx, timeout, errSilent)
	defer cancel()
	begun := time.Now()
	status, err := control.NewClient(h.socket(name)).Status(bounded)
	if err != nil && context.Cause(bounded) == errSilent {
		err = fmt.Errorf("%w within %v", errSilent, timeout)
	}
	return machine{name: name, status: status, err: err, took: time.Since(begun)}
}
