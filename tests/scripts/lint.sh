#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What a reviewer should not have to look for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

failed=0
# expect_none MESSAGE COMMAND...: what the command prints is complained about.
expect_none() {
	local message=$1 lines
	shift
	lines=$("$@") || true # grep that finds nothing fails
	[ -n "$lines" ] || return 0
	printf 'lint: %s:\n%s\n' "$message" "$lines" >&2
	failed=1
}

mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.go' |
	while read -r f; do [ ! -e "$f" ] || echo "$f"; done)
# Nobody edits what bpf2go writes.
mapfile -t written < <(printf '%s\n' "${files[@]}" | grep -vE '_bpfe[lb]\.go$')

unsafe_elsewhere() {
	grep -lE '^(import )?[[:space:]]*(_ )?"unsafe"$' "${written[@]}" | grep -vE '_unsafe(_test)?\.go$'
}
too_long() {
	wc -l "${written[@]}" | awk '$1 >= 500 && $2 != "total" { print $2 ": " $1 " lines" }'
}

expect_none "not formatted by gofmt" gofmt -l "${files[@]}"
expect_none "no licence line" grep -L 'SPDX-License-Identifier:' "${written[@]}"
expect_none "unsafe outside of *_unsafe.go" unsafe_elsewhere
expect_none "500 lines or more" too_long
go vet ./... || failed=1
go vet -tags=guest ./driver-ebpf/... || failed=1
go tool staticcheck -tags=guest ./... || failed=1
go mod tidy -diff || failed=1

exit $failed
