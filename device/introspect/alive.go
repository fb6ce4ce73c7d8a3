// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/kallsyms"
)

// ErrEnding is wrapped by errors about a kernel that does not rule its memory
// alone: it boots, ends, sleeps, has crashed, or is about to start another one.
var ErrEnding = errors.New("the kernel is not in normal operation")

// noCPU is what panic_cpu holds while nothing has crashed (PANIC_CPU_INVALID).
const noCPU = 1<<32 - 1

// checkRunning tells whether the kernel is in normal operation. Each way to
// another kernel without a reset of the machine leads through one of the states
// that it refuses: a kexec has an image first, and a crash names the processor
// that crashed (Linux: kernel/kexec_core.c, kernel/panic.c).
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

// word32 reads 4 bytes that the kernel has a symbol for.
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
