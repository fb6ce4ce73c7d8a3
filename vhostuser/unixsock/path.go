// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"fmt"
)

// MaxPath is the longest path in bytes: sun_path of unix(7) without its final NUL.
const MaxPath = 107

// Check returns an error that says what is wrong with the path of a socket. The kernel would
// answer EINVAL to any wrong path. The socket has to be a file: a name that begins with "@"
// is an abstract socket of Linux, to which any process in the network namespace may connect,
// whatever the mode.
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
