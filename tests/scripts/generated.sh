#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Compiles the eBPF programs, and compares them with the committed ones. This needs
# the same version of the compiler: another version makes different code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C
# shellcheck source=../debian/debian.sh
. tests/debian/debian.sh

made_with=19.1.7
packages=(clang-19 llvm-19 libbpf-dev)

debian_install "${packages[@]}"
version=$(clang-19 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
if [ "$version" != "$made_with" ]; then
	echo "generated: SKIP: the objects were made with clang $made_with, here is $version" >&2
	exit 0
fi

# In a copy, so that a difference leaves the tree as it is.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$copy"
(cd "$copy" && go generate ./driver-ebpf/...)
failed=0
while read -r f; do
	cmp "$f" "$copy/$f" >&2 || failed=1
done < <(git ls-files '*_bpfel.go' '*_bpfel.o')
[ "$failed" = 0 ] || echo "generated: not what the sources give: run make generate" >&2
exit "$failed"
