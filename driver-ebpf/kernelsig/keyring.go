// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// withKeyring calls do with a keyring of the kernel that has just these certificates, as far as
// the kernel knows their kinds of keys. Only this thread reaches it, and it is gone afterwards.
// Where do fails, the error names the certificates that the kernel has not taken.
func withKeyring(certificates []Certificate, do func(keyring int) error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const thread = unix.KEY_SPEC_THREAD_KEYRING
	keyring, err := unix.AddKey("keyring", "fbpp", nil, thread)
	if err != nil {
		return fmt.Errorf("make a keyring: %w", err)
	}
	defer func() {
		_, e := unix.KeyctlInt(unix.KEYCTL_UNLINK, keyring, thread, 0, 0)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("remove the keyring: %w", e))
		}
	}()
	var lacking []error
	for _, c := range certificates {
		if _, err := unix.AddKey("asymmetric", c.Name, c.DER, keyring); err != nil {
			lacking = append(lacking, fmt.Errorf("; the kernel does not take %s: %w", c.Name, err))
		}
	}
	if err = do(keyring); err == nil {
		return nil
	}
	for _, why := range lacking {
		err = fmt.Errorf("%w%w", err, why)
	}
	return err
}
