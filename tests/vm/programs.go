// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// Names of the programs that tests keep running in a guest.
const (
	integrityName = "integrity"
	keepName      = "keep"
	fragmentName  = "fragment"
	cacheName     = "cache"
	pulseName     = "pulse"
)

// Run runs a program in the guest to its end and returns its output. An exit status
// other than 0 is an error that contains the output.
func (v *VM) Run(ctx context.Context, args ...string) (string, error) {
	r, err := v.Guest.Do(ctx, ctl.Request{Op: ctl.OpRun, Args: args})
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return r.Output, fmt.Errorf("run %q in the guest: exit status %d: %s", args, r.Exit, r.Output)
	}
	return r.Output, nil
}

// Spawn starts a program in the guest, under a name for later orders, and does not
// wait for its end.
func (v *VM) Spawn(ctx context.Context, name string, args ...string) error {
	_, err := v.Guest.Do(ctx, ctl.Request{Op: ctl.OpStart, Name: name, Args: args})
	return err
}

// Memory returns what the guest's kernel says about its memory.
func (v *VM) Memory(ctx context.Context) (memory.Info, error) {
	return parseInfo(v.Run(ctx, "/init", "memory"))
}

// Fill has the guest write so many MiB of memory with content other than zeroes, and
// free it again. It returns what the kernel then says about its memory.
func (v *VM) Fill(ctx context.Context, mib int) (memory.Info, error) {
	return parseInfo(v.Run(ctx, "/init", "fill", fmt.Sprint(mib)))
}

// Zeroes has the guest allocate so many MiB of new memory and check that it is zero.
func (v *VM) Zeroes(ctx context.Context, mib int) (memory.Zeroes, error) {
	var z memory.Zeroes
	text, err := v.Run(ctx, "/init", "zeroes", fmt.Sprint(mib))
	if err != nil {
		return z, err
	}
	if err := json.Unmarshal([]byte(text), &z); err != nil {
		return z, fmt.Errorf("decode what new memory holds: %w", err)
	}
	return z, nil
}

// Keep has the guest write so many MiB of memory and keep them until the guest ends.
// It returns when all of it is written.
func (v *VM) Keep(ctx context.Context, mib int) error {
	if err := v.Spawn(ctx, keepName, "/init", "keep", fmt.Sprint(mib)); err != nil {
		return err
	}
	_, err := v.Tell(ctx, keepName, "are you done?")
	return err
}

// Fragment has the guest write so many MiB of memory, free most of it in pieces of up
// to 32 KiB, and keep the rest until the guest ends. It returns when that is done.
func (v *VM) Fragment(ctx context.Context, mib int) error {
	if err := v.Spawn(ctx, fragmentName, "/init", "fragment", fmt.Sprint(mib)); err != nil {
		return err
	}
	_, err := v.Tell(ctx, fragmentName, "are you done?")
	return err
}

// Cache has the guest read files into its page cache, and hold them open until the
// guest ends. It returns when all are read.
func (v *VM) Cache(ctx context.Context, paths ...string) error {
	if err := v.Spawn(ctx, cacheName, append([]string{"/init", "cache"}, paths...)...); err != nil {
		return err
	}
	_, err := v.Tell(ctx, cacheName, "are you done?")
	return err
}

// Cached returns how many pages of each file that Cache read are in the page cache. read,
// unless empty, is one of them that is read again before.
func (v *VM) Cached(ctx context.Context, read string) (map[string]int64, error) {
	line, err := v.Tell(ctx, cacheName, "read "+read)
	if err != nil {
		return nil, err
	}
	var pages map[string]int64
	if err := json.Unmarshal([]byte(line), &pages); err != nil {
		return nil, fmt.Errorf("decode what is cached: %w", err)
	}
	return pages, nil
}

// StartIntegrity starts the integrity program in the guest: it keeps allocating,
// writing, verifying and freeing checksummed memory, with a worker for each CPU.
// o.Workers is ignored.
func (v *VM) StartIntegrity(ctx context.Context, o memory.PoolOptions) error {
	return v.Spawn(ctx, integrityName, "/init", "integrity",
		fmt.Sprintf("-pages=%d", o.Pages), fmt.Sprintf("-seed=%d", o.Seed),
		fmt.Sprintf("-rate=%d", o.Rate))
}

// Integrity gives the integrity program an order: "status", "verify", "pause"
// or "resume".
func (v *VM) Integrity(ctx context.Context, order string) (memory.Report, error) {
	var r memory.Report
	line, err := v.Tell(ctx, integrityName, order)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return r, fmt.Errorf("decode the integrity report: %w", err)
	}
	return r, nil
}

// StartPulse has the guest work at an even pace until it ends, on so many pages and with so many
// writes a second. It returns the guest-physical address of the count of writes: 8 bytes, little
// endian.
func (v *VM) StartPulse(ctx context.Context, pages, rate int) (uint64, error) {
	err := v.Spawn(ctx, pulseName, "/init", "pulse", fmt.Sprintf("-pages=%d", pages),
		fmt.Sprintf("-rate=%d", rate))
	if err != nil {
		return 0, err
	}
	return v.Pulse(ctx)
}

// Pulse asks again for the address that StartPulse has returned, which stays the same.
func (v *VM) Pulse(ctx context.Context) (address uint64, err error) {
	line, err := v.Tell(ctx, pulseName, "where is it?")
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal([]byte(line), &address); err != nil {
		return 0, fmt.Errorf("decode where the pulse is: %w", err)
	}
	return address, nil
}

// Tell writes a line to a program in the background and returns the next line
// that the program prints.
func (v *VM) Tell(ctx context.Context, name, line string) (string, error) {
	r, err := v.Guest.Do(ctx, ctl.Request{Op: ctl.OpTell, Name: name, Line: line})
	return r.Output, err
}

func parseInfo(text string, err error) (memory.Info, error) {
	var i memory.Info
	if err != nil {
		return i, err
	}
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		return i, fmt.Errorf("decode the guest's memory: %w", err)
	}
	return i, nil
}
