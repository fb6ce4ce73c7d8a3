#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the tree for faults that a program can find, so that a reviewer need not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../debian/debian.sh
. tests/debian/debian.sh

failed=0
# expect_none MESSAGE COMMAND...: it is a fault if the command prints anything.
expect_none() {
	local message=$1 lines
	shift
	lines=$("$@") || true # grep that finds nothing fails
	[ -n "$lines" ] || return 0
	printf 'lint: %s:\n%s\n' "$message" "$lines" >&2
	failed=1
}

# files PATTERN...: prints the files of the tree that match, also untracked ones.
files() {
	git ls-files --cached --others --exclude-standard -- "$@" |
		while read -r f; do [ ! -e "$f" ] || echo "$f"; done
}

mapfile -t go_files < <(files '*.go')
# Without the files that bpf2go generates.
mapfile -t written < <(printf '%s\n' "${go_files[@]}" | grep -vE '_bpfe[lb]\.go$')
mapfile -t others < <(files '*.sh' '*.pl' '*.md' '*.c' '*.h' '*.S' '*.pml' Makefile .ci \
	contrib ':!*/go.sum')
# Libraries are checked with the programs that source them.
mapfile -t scripts < <(files '*.sh' .ci/run contrib | sort -u | xargs grep -lE '^#!/bin/(ba)?sh')

unsafe_elsewhere() {
	grep -lE '^(import )?[[:space:]]*(_ )?"unsafe"$' "${written[@]}" |
		grep -vE '_unsafe(_test)?\.go$'
}
too_long() {
	wc -l "${written[@]}" | awk '$1 >= 500 && $2 != "total" { print $2 ": " $1 " lines" }'
}

# Imports that imports.txt does not allow.
wrong_way() {
	local module
	module=$(go list -m)
	# shellcheck disable=SC2016 # a template of Go has dollars
	go list -e -tags=guest -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}{{
		range .TestImports}}{{$p}} {{.}}{{"\n"}}{{end}}{{
		range .XTestImports}}{{$p}} {{.}}{{"\n"}}{{end}}' ./... |
		grep " $module/" | sed "s|$module/||g" | sort -u | awk '
		function below(path, prefix) { return index(path "/", prefix "/") == 1 }
		NR == FNR && /^[a-z]/ { rules[++n] = $0 }
		NR == FNR { next }
		{
			for (i = 1; i <= n; i++) {
				words = split(rules[i], word, " ")
				if (!below($1, word[1]))
					continue
				for (j = 1; j <= words; j++)
					if (below($2, word[j]))
						next
				break
			}
			print $1 " imports " $2
		}' tests/scripts/imports.txt -
}

# Programs without --version. The programs of tests in the guest and of the tests of
# introspection need none.
without_version() {
	go list -f '{{if eq .Name "main"}}{{.Dir}} {{.Imports}}{{end}}' \
		./cmd/... ./tests/... ./vhostuser/... | grep -vE '/tests/(guest|introspect)/' |
		grep -vE '/(cmd/cli|vhostuser/program)[] ]' | cut -d' ' -f1
}

# Subjects that git log --oneline cuts off. Older ones stay as they are.
long_subjects() {
	git log --since=2026-11-28T20:00:00Z --no-merges --format='%h %s' |
		awk 'length($0) - length($1) - 1 > 72'
}

debian_install shellcheck
expect_none "not formatted by gofmt" gofmt -l "${go_files[@]}"
expect_none "no licence line" grep -L 'SPDX-License-Identifier:' "${written[@]}" "${scripts[@]}"
expect_none "unsafe outside of *_unsafe.go" unsafe_elsewhere
expect_none "500 lines or more" too_long
expect_none "more than 100 columns" ./tests/scripts/columns.pl "${written[@]}" "${others[@]}"
expect_none "imports that imports.txt does not allow" wrong_way
expect_none "programs without --version" without_version
expect_none "commit subjects of more than 72 characters" long_subjects
shellcheck -xa "${scripts[@]}" || failed=1
go vet ./... || failed=1
go vet -tags=guest ./driver-ebpf/... ./cmd/fbppctl/localise || failed=1
go vet -tags=aarch64,secureboot ./tests/e2e || failed=1
go vet -tags=series ./tests/bare || failed=1
GOARCH=arm64 go vet -tags=guest ./driver-ebpf/... ./cmd/fbpp-agent || failed=1
go tool staticcheck -tags=guest,aarch64,secureboot,series ./... || failed=1
go mod tidy -diff || failed=1

exit $failed
