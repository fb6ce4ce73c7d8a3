// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"fmt"
)

// MaxPath is the longest path in bytes: sun_path of unix(7) without its final NUL.
const MaxPath = 107

// Check says, before the kernel is asked, which answers EINVAL to anything that
// is wrong with it, what is wrong with a path of a socket that has to be a file. A name
// that begins with "@" is Linux's abstract socket, which anyone in the network
// namespace may connect to, whatever the mode.
func Check(path string) error {
	switch {
	case path == "":
		return errors.New("the socket has no path")
	case path[0] == '@':
		return fmt.Errorf("%q is an abstract socket, which everybody may connect to: "+
			"give a path, or ./%s for a file of that name", path, path)
	case path[0] == 0:
		return errors.New("the socket's path begins with a NUL byte")
	case len(path) > MaxPath:
		return fmt.Errorf("the socket's path has %d bytes, and may have %d: %s", len(path), MaxPath, path)
	}
	return nil
}
