#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches the kernels that Debian has now, and runs the driver's tests and one migration of
# each source on each of them. With PREEMPT_RT, the agent has to refuse instead.
#
#   newest-kernel.sh [KERNEL...]
#
# KERNEL is "suite/meta package". The exit status is 1 if a test failed, and 2 if a kernel
# could not be fetched and no test failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

kernels=("$@")
if ((${#kernels[@]} == 0)); then
	kernels=(trixie-backports/linux-image-cloud-amd64 sid/linux-image-cloud-amd64)
fi

status=0
lines=()
for kernel in "${kernels[@]}"; do
	if ! version=$(go run ./tests/guest/fetch "$kernel"); then
		lines+=("$kernel: NOT FETCHED: the mirror lacks it, or cannot be reached; see above")
		((status == 1)) || status=2
		continue
	fi
	tests='^(TestDriverInTheGuest|TestFreeMemoryIsNotSent)$'
	if [[ $kernel == *-rt-* ]]; then
		tests='^TestAgentRefusesAKernelThatLeavesInterruptsOn$'
	fi
	printf 'newest-kernel: %s %s\n' "$kernel" "$version"
	if FBPP_KERNEL=$kernel go test -v -count=1 -timeout 60m ./tests/e2e -run "$tests"; then
		lines+=("$kernel $version: passed")
	else
		lines+=("$kernel $version: FAILED; see above")
		status=1
	fi
done
printf 'newest-kernel: %s\n' "${lines[@]}"
exit "$status"
