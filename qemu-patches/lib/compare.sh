# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What another QEMU forces: two series, patch by patch.

# A patch without what differs in any case: its date, numbers of lines, hashes of
# files, and the lines around a change.
bare_patch() {
	awk '
		/^diff --git / { part = "diff"; next }
		part == "diff" && /^(--- (a\/|\/dev\/null)|[^-+])/ { next }
		part == "" && /^Subject: / { part = "message" }
		part == "message" && /^---$/ { part = "stat" }
		part == "message" || part == "diff"' "$1"
}

# Patches with the same subject have the same name after their number.
unnumbered() {
	basename -a "$@" | sed 's/^[0-9]*-//'
}

# The other series, if there is just one.
only_other_series() {
	local base others=()
	for base in "$here"/*/BASE; do
		[ "$base" -ef "$patches/BASE" ] || others+=("$(basename "$(dirname "$base")")")
	done
	[ ${#others[@]} = 1 ] || die "compare with which series? There are: ${others[*]:-no others}"
	echo "${others[0]}"
}

# compare_series [VERSION]: prints for each patch of VERSION what this series has
# in its place. Needs no source.
compare_series() {
	local other file twin name same=0 differ=0
	other=${1:-$(only_other_series)} || exit
	[ -r "$here/$other/BASE" ] || die "no series for QEMU $other in $here"
	for file in "$here/$other"/[0-9][0-9][0-9][0-9]-*.patch; do
		name=$(unnumbered "$file")
		twin=$(find "$patches" -name "[0-9][0-9][0-9][0-9]-$name")
		if [ -z "$twin" ]; then
			echo "only in $other: $(basename "$file")"
		elif diff -u --label "$other/$(basename "$file")" --label "$series/$(basename "$twin")" \
			<(bare_patch "$file") <(bare_patch "$twin"); then
			same=$((same + 1))
		else
			differ=$((differ + 1))
		fi
	done
	comm -13 <(unnumbered "$here/$other"/[0-9]*.patch | sort) \
		<(unnumbered "$patches"/[0-9]*.patch | sort) | sed "s/^/only in $series: /"
	say "from $other to $series: $same patches say the same, $differ differ"
}
