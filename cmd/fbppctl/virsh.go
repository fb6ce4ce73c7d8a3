// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/domain"
)

// virsh asks libvirt by its own program, which knows how to reach it and who may.
type virsh struct {
	uri string // as in virsh --connect; "": virsh's default
}

// run runs a command of virsh, and returns what it printed.
func (v virsh) run(ctx context.Context, stdin string, args ...string) (string, error) {
	if v.uri != "" {
		args = append([]string{"--connect=" + v.uri}, args...)
	}
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"--quiet"}, args...)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	// A definition that is too long is refused by its reader, not kept.
	stdout := &atMost{left: 2 * domain.MaxSize}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), stdout, &stderr
	err := cmd.Run()
	switch said := strings.Join(strings.Fields(stderr.String()), " "); {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("virsh is missing: install libvirt's clients: %w", err)
	case context.Cause(ctx) != nil:
		return "", fmt.Errorf("wait for virsh: %w", context.Cause(ctx))
	case err != nil && said != "":
		return "", fmt.Errorf("virsh: %s", strings.TrimPrefix(said, "error: "))
	case err != nil:
		return "", fmt.Errorf("run virsh: %w", err)
	}
	return stdout.text.String(), nil
}

// definition returns the XML of a machine, as it will start next.
func (v virsh) definition(ctx context.Context, machine string) (string, error) {
	return v.run(ctx, "", "dumpxml", "--inactive", "--security-info", "--domain="+machine)
}

// replace makes libvirt keep a definition in place of the one before, unless somebody has
// changed that meanwhile.
func (v virsh) replace(ctx context.Context, machine, before, after string) error {
	now, err := v.definition(ctx, machine)
	if err != nil {
		return err
	}
	if now != before {
		return fmt.Errorf("the XML of %s was changed meanwhile: try again", machine)
	}
	return v.define(ctx, after)
}

// define makes libvirt keep a definition.
func (v virsh) define(ctx context.Context, text string) error {
	_, err := v.run(ctx, text, "define", "/dev/stdin")
	return err
}

// state is what libvirt says about a machine.
type state struct{ running, persistent, saved bool }

// state returns a machine's state.
func (v virsh) state(ctx context.Context, machine string) (state, error) {
	said, err := v.run(ctx, "", "dominfo", "--domain="+machine)
	if err != nil {
		return state{}, err
	}
	of := make(map[string]string)
	for line := range strings.Lines(said) {
		key, value, _ := strings.Cut(line, ":")
		of[key] = strings.TrimSpace(value)
	}
	return state{
		running:    of["State"] != "shut off",
		persistent: of["Persistent"] == "yes",
		saved:      of["Managed save"] == "yes",
	}, nil
}

// atMost keeps so many bytes of what is written to it, and fails afterwards.
type atMost struct {
	text strings.Builder
	left int
}

func (a *atMost) Write(p []byte) (int, error) {
	if len(p) > a.left {
		return 0, io.ErrShortBuffer
	}
	a.left -= len(p)
	return a.text.Write(p)
}
