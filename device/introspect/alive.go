// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/kallsyms"
)

// ErrEnding is wrapped by errors about a kernel that may not be in control of all
// memory: it boots, shuts down, sleeps, has crashed, or has a kernel for kexec.
var ErrEnding = errors.New("the kernel is not in normal operation")

// noCPU is what panic_cpu holds while nothing has crashed (PANIC_CPU_INVALID).
const noCPU = 1<<32 - 1

// checkRunning checks that the kernel is in normal operation. It refuses every
// state from which another kernel can start without a reset of the machine: before
// a kexec an image is loaded, and a crash sets panic_cpu (Linux:
// kernel/kexec_core.c, kernel/panic.c).
func (k *Kernel) checkRunning() error {
	state, err := k.word32(symbolState)
	if err != nil {
		return err
	}
	if state != k.layout.Running {
		return fmt.Errorf("system_state is %d: %w", state, ErrEnding)
	}
	crashed, err := k.word32(symbolPanicCPU)
	if err != nil {
		return err
	}
	if crashed != noCPU {
		return fmt.Errorf("it crashed on processor %d: %w", crashed, ErrEnding)
	}
	image, err := k.variable(symbolKexec)
	if errors.Is(err, kallsyms.ErrNoSymbol) {
		return nil // without CONFIG_KEXEC_CORE
	}
	if err != nil {
		return err
	}
	if image != 0 {
		return fmt.Errorf("a kernel is loaded for kexec: %w", ErrEnding)
	}
	return nil
}

// word32 reads the 4 bytes at a symbol.
func (k *Kernel) word32(name string) (uint32, error) {
	address, err := k.symbols.Address(name)
	if err != nil {
		return 0, err
	}
	value, err := k.space.Uint32(address)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return value, nil
}
