# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The patch series: apply, build, check, refresh.

series_patches() {
	ls "$patches"/[0-9][0-9][0-9][0-9]-*.patch
}

# Names a build: whatever changes the binary changes this.
series_hash() {
	{
		cat "$patches/BASE"
		series_patches | xargs cat
		printf '%s\n' "${configure_flags[@]}"
	} | sha256sum | cut -c 1-12
}

built_binary() {
	echo "$cache/$series-$(series_hash)/qemu-system-x86_64"
}

# A git repository whose only commit is the source with Debian's patches.
prepare_base() {
	base_repo=$cache/base-$(sha256sum <"$patches/BASE" | cut -c 1-12)
	[ -d "$base_repo" ] && return
	fetch_base
	say "unpacking"
	run "$work/log" dpkg-source --no-check -x "$sources/$(base_field dsc)" "$work/base"
	rm -rf "$work/base/.pc"
	run "$work/log" git -C "$work/base" init -b base
	# Some of Debian's files match the source's .gitignore.
	run "$work/log" git -C "$work/base" add -Af .
	GIT_AUTHOR_DATE=2000-01-01T00:00:00Z GIT_COMMITTER_DATE=2000-01-01T00:00:00Z run "$work/log" as_committer \
		git -C "$work/base" commit -m "$(base_field package) $(base_field version)"
	mv -T "$work/base" "$base_repo" 2>/dev/null || [ -d "$base_repo" ] # another was faster
}

as_committer() {
	GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@localhost \
		GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL=base@localhost "$@"
}

# A clone with an own branch, so that base..HEAD is the series.
clone_base() {
	run "$work/log" git clone -b base "$base_repo" "$1"
	run "$work/log" git -C "$1" switch -c series
}

# git am, not patch(1): it accepts no fuzz.
apply_patches() {
	local tree=$1
	shift
	as_committer git -C "$tree" am --quiet --keep-cr "$@" >>"$work/log" 2>&1 || {
		tail -n 15 "$work/log" >&2
		die "the series does not apply to $(base_field version)"
	}
}

# Prints where the source is that the series applies to.
source_tree() {
	make_work
	prepare_base
	echo "$base_repo"
}

make_tree() {
	[ ! -e "$1" ] || die "$1 exists already"
	make_work
	prepare_base
	clone_base "$1"
	# shellcheck disable=SC2046
	apply_patches "$1" $(series_patches)
	say "series applied in $1; 'qemu.sh refresh $1' writes the patches from it"
}

configure_build() {
	local tree=$1 build=$2
	mkdir -p "$build"
	(cd "$build" && run "$work/log" "$tree/configure" "${configure_flags[@]}" \
		--with-pkgversion="fbpp-$(series_hash)")
}

# Compiles, and shows a line for each five percent.
compile() {
	local build=$1 log=$work/ninja.log
	NINJA_STATUS='%p ' ninja -C "$build" qemu-system-x86_64 2>&1 |
		tee "$log" | progress || {
		grep -A 10 -E 'FAILED|error:' "$log" 2>/dev/null | head -n 40 >&2 || true
		die "QEMU does not build; whole log: $(keep_log "$log")"
	}
}

progress() {
	awk -v quiet="$quiet" '
		$1 ~ /^[0-9]+%$/ && int($1 / 5) > last {
			last = int($1 / 5)
			if (!quiet) print "qemu: compiling " $1 > "/dev/stderr"
		}'
}

build_series() {
	local binary
	binary=$(built_binary)
	if [ ! -x "$binary" ]; then
		lock_cache
		[ -x "$binary" ] || build_binary "$binary"
	fi
	echo "$binary"
}

build_binary() {
	local binary=$1 hash
	hash=$(series_hash)
	make_work
	install_build_deps
	prepare_base
	clone_base "$work/src"
	# shellcheck disable=SC2046
	apply_patches "$work/src" $(series_patches)
	say "configuring"
	configure_build "$work/src" "$work/build"
	compile "$work/build"
	mkdir "$work/out"
	cp "$work/build/qemu-system-x86_64" "$work/out/"
	"$work/out/qemu-system-x86_64" -version | grep -qF "(fbpp-$hash)" ||
		die "the QEMU that was built does not say fbpp-$hash in its version"
	mv "$work/out" "$(dirname "$binary")"
	say "built in ${SECONDS} s"
}

lint_patch() {
	local file=$1 name
	name=$(basename "$file")
	[[ $name =~ ^[0-9]{4}-[A-Za-z0-9._-]+\.patch$ ]] || die "$name: bad file name"
	grep -qE '^Subject: \[PATCH\] [^ :]+.*: ' "$file" ||
		die "$name: subject must be '[PATCH] area: what', without n/m"
	grep -qE '^Upstream: (https?://|N/A \(.+\)$)' "$file" ||
		die "$name: no 'Upstream:' trailer with a URL, or N/A and the reason"
}

check_series() {
	local file
	for file in $(series_patches); do
		lint_patch "$file"
	done
	say "headers are in order"
	make_work
	install_build_deps
	prepare_base
	clone_base "$work/src"
	# shellcheck disable=SC2046
	apply_patches "$work/src" $(series_patches)
	say "applies to $(base_field version)"
	export_patches "$work/src" "$work/fresh"
	for file in $(series_patches) "$work"/fresh/*.patch; do
		cmp -s "$patches/$(basename "$file")" "$work/fresh/$(basename "$file")" ||
			die "$(basename "$file") differs after a refresh: run qemu.sh refresh"
	done
	say "a refresh changes nothing"
	for file in $(series_patches); do
		(cd "$work/src" && scripts/checkpatch.pl --no-signoff --quiet --terse "$file" >&2) ||
			die "checkpatch.pl complains about $(basename "$file")"
	done
	say "checkpatch.pl is content"
}

export_patches() {
	local tree=$1 out=$2
	run "$work/log" git -C "$tree" format-patch -N --zero-commit --no-signature \
		--full-index -o "$out" base
}

refresh_series() {
	local tree=${1:-}
	make_work
	if [ -z "$tree" ]; then
		prepare_base
		tree=$work/src
		clone_base "$tree"
		# shellcheck disable=SC2046
		apply_patches "$tree" $(series_patches)
	fi
	git -C "$tree" rev-parse -q --verify base >/dev/null || die "$tree has no branch base"
	[ -n "$(git -C "$tree" log --oneline base..HEAD)" ] || die "$tree adds no commit to base"
	export_patches "$tree" "$work/fresh"
	rm -f "$patches"/[0-9][0-9][0-9][0-9]-*.patch
	cp "$work"/fresh/*.patch "$patches/"
	say "wrote $(series_patches | wc -l) patches"
}

bisect_series() {
	local file configured=
	make_work
	install_build_deps
	prepare_base
	clone_base "$work/src"
	for file in $(series_patches); do
		apply_patches "$work/src" "$file"
		[ -n "$configured" ] || configure_build "$work/src" "$work/build"
		configured=1
		say "building after $(basename "$file")"
		compile "$work/build"
	done
	say "builds after each patch"
}
