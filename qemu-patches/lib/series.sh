# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The patch series: apply, build, check, refresh.

# Every patch, in order.
all_patches() {
	ls "$patches"/[0-9][0-9][0-9][0-9]-*.patch
}

# A patch whose subject begins with "tests-only:" is for the project's tests, and
# not for a QEMU that others use.
is_tests_only() {
	[[ $(basename "$1") =~ ^[0-9]{4}-tests-only- ]]
}

# The patches of this flavour.
series_patches() {
	local file
	for file in $(all_patches); do
		[ -n "$operator" ] && is_tests_only "$file" || echo "$file"
	done
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
	echo "$cache/$series-$(series_hash)/qemu-system-$target"
}

# What -version says in brackets.
build_name() {
	local flavour=-tests
	[ -z "$operator" ] || flavour=
	echo "fbpp-$(series_hash)$flavour"
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
	local date=2000-01-01T00:00:00Z
	GIT_AUTHOR_DATE=$date GIT_COMMITTER_DATE=$date run "$work/log" as_committer \
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
	local tree=$1 build=$2 name=$3
	mkdir -p "$build"
	(cd "$build" && run "$work/log" "$tree/configure" "${configure_flags[@]}" \
		--with-pkgversion="$name")
}

# Compiles QEMU, or what else is named, and shows a line for each five percent.
compile() {
	local build=$1 log=$work/ninja.log
	NINJA_STATUS='%p ' ninja -C "$build" "${2:-qemu-system-$target}" 2>&1 |
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

# Builds QEMU into $work/out, with this name in its version. What else is built there is in
# $work/build.
build_out() {
	local name=$1
	make_work
	install_build_deps
	prepare_base
	clone_base "$work/src"
	# shellcheck disable=SC2046
	apply_patches "$work/src" $(series_patches)
	[ "$(build_name)" = "$name" ] || die "the series has changed meanwhile; once more, please"
	say "configuring"
	configure_build "$work/src" "$work/build" "$name"
	compile "$work/build"
	mkdir "$work/out"
	cp "$work/build/qemu-system-$target" "$work/out/"
}

build_binary() {
	local binary=$1 name
	name=$(build_name)
	build_out "$name"
	"$work/out/qemu-system-$target" -version | grep -qF "($name)" ||
		die "the QEMU that was built does not say $name in its version"
	mv "$work/out" "$(dirname "$binary")"
	say "built in ${SECONDS} s"
}

# QEMU's own tests of migration, those below a path. They boot a program without a kernel.
qtest_series() {
	local path tests=()
	build_out "$(build_name)"
	say "QEMU's tests of migration"
	compile "$work/build" tests/qtest/migration-test
	# In its build folder QEMU does not look for the system's firmware.
	export QTEST_QEMU_BINARY=$work/out/qemu-system-$target
	# The option -p leaves out what is further below, so each path is named.
	while read -r path; do
		tests+=(-p "$path")
	done < <("$work/build/tests/qtest/migration-test" --full -l |
		grep -E "^/$target/migration/${1:-postcopy}(/|$)")
	[ ${#tests[@]} -gt 0 ] || die "QEMU has no tests of migration below ${1:-postcopy}"
	"$work/build/tests/qtest/migration-test" --full -k "${tests[@]}" |
		grep -E '^(ok|not ok|1\.\.)' || die "QEMU's own tests of migration fail"
}

lint_patch() {
	local file=$1 name
	name=$(basename "$file")
	[[ $name =~ ^[0-9]{4}-[A-Za-z0-9._-]+\.patch$ ]] || die "$name: bad file name"
	grep -qxF 'From: fbpp project <fbpp@fbpp-project.github.io>' "$file" ||
		die "$name: its author is another than of the other patches"
	grep -qE '^Subject: \[PATCH\] [^ :]+.*: ' "$file" ||
		die "$name: subject must be '[PATCH] area: what', without n/m"
	grep -qE '^Upstream: (https?://|N/A \(.+\)$)' "$file" ||
		die "$name: no 'Upstream:' trailer with a URL, or N/A and the reason"
}

# Fixes of stock QEMU come first, what is for tests only comes last.
lint_order() {
	local file group=1 last=1
	for file in $(all_patches); do
		if is_tests_only "$file"; then
			group=3
		elif grep -q '^Upstream: .*stock QEMU' "$file"; then
			group=1
		else
			group=2
		fi
		[ "$group" -ge "$last" ] ||
			die "$(basename "$file"): stock fixes come first, then the feature, then tests-only"
		last=$group
	done
}

check_series() {
	local file
	operator= # all of it
	for file in $(series_patches); do
		lint_patch "$file"
	done
	lint_order
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
	operator= # all of it
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
	[ -n "$(git -C "$tree" log --oneline --grep='^tests-only: ' base..HEAD)" ] ||
		die "$tree has none of the tests-only patches: was it made with --operator?"
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
		[ -n "$configured" ] || configure_build "$work/src" "$work/build" "$(build_name)"
		configured=1
		say "building after $(basename "$file")"
		compile "$work/build"
	done
	say "builds after each patch"
}
