#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the unit tests that need no guest as programs for arm64, under QEMU's user mode
# emulation. Arguments are packages; without one it is the library, the device and the driver.
#
# This shows that the code is right for arm64's layouts, assembly and most system calls. It does
# not show how a real processor orders memory accesses, since QEMU runs on x86-64, which orders
# them more strictly. Nor does it show what QEMU cannot pass on, see below: so the device as a
# whole, fbppd and its sandbox have not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../debian/debian.sh
. tests/debian/debian.sh

debian_install qemu-user-static || exit 1
skipped=(
	# No address of a SIGBUS.
	TestGuardTurnsFaultsIntoErrors TestMemoryThatIsTruncatedBreaksTheQueueOnly
	TestMemoryTranslatesGuestAddresses TestLogThatIsTooSmallOrTruncatedIsSurvived
	TestGuardNests TestRegistersOfADeviceThatIsGone
	# No userfaultfd.
	TestRingThatHasYetToArrive TestPostcopyWithoutPrivileges
	# No preadv2(2), by which the window is read.
	TestRequestAndAnswerCrossTheWindow TestCloseEndsWaitAskOfABlockingDescriptor
	# A program for arm64 cannot start itself.
	TestChildGivesUpWhatItDoesNotNeed TestNoThreadOfAChildCanGetMore
	TestChildSaysWhyItLoadsNothing TestChildReachesTheKernel
	# It keeps descriptors that do not fit into a message.
	TestStreamsOutOfStepEndTheConnection TestDescriptorsOfBadMessagesAreClosed FuzzDispatch
	# It takes memory for address space that is only reserved.
	TestMemoryChangesTakeLittleMemory
)
if [ $# = 0 ]; then
	mapfile -t packages < <(go list ./vhostuser/... ./device/... ./driver-ebpf/... ./cmd/cli \
		./cmd/fbpp-agent | grep -v '/fbpp/device$') # all of that one needs the window
	set -- "${packages[@]}"
fi
pattern=$(
	IFS='|'
	echo "^(${skipped[*]})\$"
)
GOARCH=arm64 CGO_ENABLED=0 go test -exec qemu-aarch64-static -skip "$pattern" "$@"
