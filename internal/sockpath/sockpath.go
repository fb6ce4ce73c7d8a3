// SPDX-License-Identifier: Apache-2.0

// Package sockpath checks the paths of Unix sockets before the kernel is asked,
// which answers EINVAL to what is wrong with them.
package sockpath

import (
	"errors"
	"fmt"
)

// Max is the longest path in bytes: sun_path of unix(7) without its final NUL.
const Max = 107

// Check says what is wrong with a path of a socket that has to be a file. A name
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
	case len(path) > Max:
		return fmt.Errorf("the socket's path has %d bytes, and may have %d: %s", len(path), Max, path)
	}
	return nil
}
