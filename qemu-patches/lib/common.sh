# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Messages, the cache, temporary directories.

# Progress goes to stderr, results to stdout.
say() {
	[ -n "${quiet:-}" ] || echo "qemu: $*" >&2
}

die() {
	echo "qemu.sh: $*" >&2
	exit 1
}

# run LOG COMMAND...: quiet unless it fails, then the end of its log is shown.
run() {
	local log=$1
	shift
	"$@" >>"$log" 2>&1 || {
		tail -n 25 "$log" >&2
		die "'${*:1:4} ...' failed; whole log: $(keep_log "$log")"
	}
}

keep_log() {
	local kept=$cache/failed.log
	cp "$1" "$kept" && echo "$kept"
}

cache=${FBPP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fbpp}/qemu

# All work happens in a temporary directory inside the cache, so that what is
# finished is put into place with one rename.
make_work() {
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM HUP
}

# One process at a time fills the cache; others wait and then find it full.
lock_cache() {
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock -n 9 || {
		say "waiting for another qemu.sh"
		flock 9
	}
}
