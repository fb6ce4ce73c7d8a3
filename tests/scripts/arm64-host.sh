#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the unit tests that need no guest as programs for arm64, under QEMU's user mode
# emulation. Arguments are packages; without one it is the library, the device and the driver.
#
# This shows that the code is right for arm64's layouts, assembly and most system calls. It does
# not show how a real processor orders memory accesses, since QEMU runs on x86-64, which orders
# them more strictly. Nor does it show what QEMU cannot pass on, see below. fbppd's own tests start
# programs, which QEMU's user mode cannot. So fbppd is checked by fbpp-conform, which runs natively.
# Its sandbox, and memory that vanishes under it, have not been tried.
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
	# A program for arm64 cannot start itself.
	TestChildGivesUpWhatItDoesNotNeed TestNoThreadOfAChildCanGetMore
	TestChildSaysWhyItLoadsNothing TestChildReachesTheKernel TestChildThatFails
	# It keeps descriptors that do not fit into a message.
	TestStreamsOutOfStepEndTheConnection TestDescriptorsOfBadMessagesAreClosed FuzzDispatch
	# It takes memory for address space that is only reserved.
	TestMemoryChangesTakeLittleMemory
)

# conform checks an fbppd for arm64. The rules about memory that is truncated end it, and it is
# started again.
conform() {
	local dir broken start
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' RETURN
	GOARCH=arm64 CGO_ENABLED=0 go build -o "$dir/fbppd" ./cmd/fbppd
	go build -o "$dir/fbpp-conform" ./cmd/fbpp-conform
	start="exec qemu-aarch64-static $dir/fbppd --sandbox=none --log-level=error"
	start+=" --socket-path=$dir/vhost --control-path=$dir/control --agent-socket=$dir/agent"
	"$dir/fbpp-conform" backend --device=fbpp --socket-path="$dir/vhost" --start="$start" \
		--control-path="$dir/control" --agent-socket="$dir/agent" >"$dir/results" 2>"$dir/log" || true
	tail -n 1 "$dir/results"
	broken=$(grep '^not ok' "$dir/results" | grep -v '# TODO\|VHU-DEAD-[45] ' || true)
	if [ -n "$broken" ] || ! grep -q '^ok .* FBPP-WIN-1 ' "$dir/results"; then
		printf 'fbppd for arm64 breaks rules:\n%s\n' "$broken" >&2
		tail -n 5 "$dir/log" >&2
		return 1
	fi
}

if [ $# = 0 ]; then
	conform
	set -- ./vhostuser/... ./device/... ./driver-ebpf/... ./cmd/cli ./cmd/fbpp-agent
	mapfile -t packages < <(go list "$@" | grep -v '/fbpp/device$') # conform has checked that one
	set -- "${packages[@]}"
fi
pattern=$(
	IFS='|'
	echo "^(${skipped[*]})\$"
)
GOARCH=arm64 CGO_ENABLED=0 go test -exec qemu-aarch64-static -skip "$pattern" "$@"
