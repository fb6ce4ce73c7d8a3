// SPDX-License-Identifier: Apache-2.0

// Package unixsock makes the Unix sockets that a backend program listens on beside
// the one for its frontend, checks the paths of all of them, and says who is at the other end.
package unixsock
