#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the unit tests that need no guest as programs for arm64, under QEMU's user mode
# emulation. Arguments are packages; without one it is the library, the device and the driver.
#
# This shows that the code is right for arm64's system calls, layouts and assembly. It does not
# show how a real processor orders memory accesses, since QEMU runs on x86-64, which orders
# them more strictly. QEMU also passes no userfaultfd on, and no address of a SIGBUS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../debian/debian.sh
. tests/debian/debian.sh

debian_install qemu-user-static || exit 1
[ $# -gt 0 ] || set -- ./vhostuser/... ./device/... ./driver-ebpf/... ./cmd/...
GOARCH=arm64 CGO_ENABLED=0 go test -exec qemu-aarch64-static "$@"
