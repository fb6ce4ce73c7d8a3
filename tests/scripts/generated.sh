#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Compiles the eBPF programs anew and compares with what is committed. Only the
# compiler that made those can tell: another version's code differs by right.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C

made_with=19.1.7
packages=(clang-19 llvm-19 libbpf-dev)

missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	echo "generated: installing ${missing[*]}" >&2
	log=$(mktemp)
	{ apt-get update &&
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		echo "generated: cannot install ${missing[*]}" >&2
		exit 1
	}
	rm -f "$log"
fi
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
