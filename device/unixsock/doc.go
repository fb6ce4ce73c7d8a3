// SPDX-License-Identifier: Apache-2.0

// Package unixsock makes the sockets that fbppd listens on beside the one for
// the vhost-user frontend.
package unixsock
