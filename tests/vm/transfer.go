// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"path/filepath"
)

// Transfer says how to migrate. The zero value is a stream over a unix socket without
// a bandwidth limit.
type Transfer struct {
	Bandwidth    int64          // bytes per second; 0: no limit
	Capabilities []string       // of migrate-set-capabilities, set on both sides
	Parameters   map[string]any // of migrate-set-parameters, set on both sides
	File         string         // migrate into this file, and then from it; "": over a socket
}

// noLimit is more than any host can send, in bytes per second.
const noLimit = 1 << 40

// settings sets the capabilities and parameters on one side.
func (t *Transfer) settings(ctx context.Context, v *VM) error {
	if len(t.Capabilities) > 0 {
		var states []map[string]any
		for _, c := range t.Capabilities {
			states = append(states, map[string]any{"capability": c, "state": true})
		}
		err := v.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": states}, nil)
		if err != nil {
			return err
		}
	}
	if len(t.Parameters) > 0 {
		return v.Execute(ctx, "migrate-set-parameters", t.Parameters, nil)
	}
	return nil
}

// start begins to migrate src to dst.
func (t *Transfer) start(ctx context.Context, src, dst *VM) error {
	if err := t.settings(ctx, src); err != nil {
		return err
	}
	if err := t.settings(ctx, dst); err != nil {
		return err
	}
	bandwidth := t.Bandwidth
	if bandwidth == 0 {
		bandwidth = noLimit
	}
	err := src.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": bandwidth}, nil)
	if err != nil {
		return err
	}
	uri := "file:" + t.File
	if t.File == "" {
		uri = "unix:" + filepath.Join(dst.dir, migrateSocket)
		if err := dst.receive(ctx, uri); err != nil {
			return err
		}
	}
	return src.Execute(ctx, "migrate", map[string]any{"uri": uri}, nil)
}

// receive makes a destination receive its guest from uri.
func (v *VM) receive(ctx context.Context, uri string) error {
	if v.receiving.Swap(true) {
		return nil // an earlier migration failed before it connected: QEMU still listens
	}
	return v.Execute(ctx, "migrate-incoming", map[string]any{"uri": uri}, nil)
}

// MigrateBy migrates v to dst as t says, and waits until the guest has arrived there.
// It is an error if the migration does not complete. progress, unless nil, is called
// with each queried state.
func (v *VM) MigrateBy(
	ctx context.Context, dst *VM, t Transfer, progress func(*Migration),
) (*Migration, error) {
	if err := t.start(ctx, v, dst); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	m, err := v.WaitMigration(ctx, progress)
	if err != nil {
		return nil, err
	}
	if m.Status != "completed" {
		return m, fmt.Errorf("migrate: it %s: %s\nsource: %sdestination: %s",
			m.Status, m.ErrorDesc, v.Diagnosis(), dst.Diagnosis())
	}
	if t.File != "" {
		if err := dst.receive(ctx, "file:"+t.File); err != nil {
			return m, err
		}
	}
	return m, dst.Arrive(ctx)
}
