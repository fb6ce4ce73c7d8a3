# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Functions that install Debian packages on this machine, and that fetch packages
# of other releases. Scripts source this file, and the Go package beside it runs
# it. After an error a function prints the reason on standard error, and returns 1.

# The suite of Debian that an os-release file names, or nothing.
debian_codename() {
	sed -n 's/^VERSION_CODENAME="\{0,1\}\([a-z]*\).*/\1/p' "$1"
}

debian_installed() {
	dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# Installs those of the packages that are missing: debian_install PACKAGE...
# A package that is a file is installed as it is.
debian_install() {
	local p log missing=()
	for p; do
		debian_installed "$p" || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || {
		echo "needs root to install ${missing[*]}" >&2
		return 1
	}
	echo "installing ${missing[*]}" >&2
	log=$(mktemp) || return 1
	{
		# Fetch the package lists only if the present ones are not enough.
		apt-get install -s "${missing[@]}" >/dev/null 2>&1 || apt-get update
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
	} >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		rm -f "$log"
		echo "cannot install ${missing[*]}" >&2
		return 1
	}
	rm -f "$log"
}

# Prints the base of 'base/dists/SUITE/InRelease' in apt's list of what it would
# fetch, which it reads from standard input: debian_mirror_of SUITE. apt's sources
# may name the suite by its code name or by "stable". A repository that is not
# Debian's may use the same names.
debian_mirror_of() {
	local uris suite
	uris=$(sed -n "s|^'\([^']*/dists/[^/']*/InRelease\)'.*|\1|p")
	for suite in "$1" stable oldstable; do
		[ -n "$suite" ] || continue
		sed -n "s|dists/$suite/InRelease\$||p" <<<"$uris" | {
			grep -E '/debian/|/debian\.list/|deb\.debian\.org' || true
		} | head -n 1 | grep . && return
		sed -n "s|dists/$suite/InRelease\$||p" <<<"$uris" | head -n 1 | grep . && return
	done
	return 1
}

# Prints the mirror of Debian's archive that this machine's apt is set up for.
debian_mirror() {
	local empty mirror
	empty=$(mktemp -d) || return 1
	# With empty lists apt would fetch every suite, and prints from where. That
	# works with each syntax of apt's sources.
	mirror=$(LC_ALL=C apt-get update --print-uris -o Dir::State::Lists="$empty" |
		debian_mirror_of "$(debian_codename /etc/os-release)") || true
	rm -rf "$empty"
	[ -n "$mirror" ] || {
		echo "apt's configuration names no Debian mirror" >&2
		return 1
	}
	echo "$mirror"
}

# Prints the keyring of Debian's archive in a folder. It is a .pgp on newer
# systems.
debian_keyring() {
	local dir=$1 f
	for f in "$dir"/debian-archive-keyring.{gpg,pgp}; do
		[ -r "$f" ] && echo "$f" && return
	done
	echo "no keyring of Debian's archive in $dir: install debian-archive-keyring" >&2
	return 1
}

# Makes DIR a package source of its own, and fetches its lists:
# debian_source DIR "TYPE SUITE"..., where TYPE is deb or deb-src. It reads the
# mirror and the keyring from the system's package state, and changes nothing there.
# The packages are for the architecture $debian_arch, or amd64.
debian_source() {
	local dir=$1 mirror keyring entry type suite
	shift
	mirror=$(debian_mirror) && keyring=$(debian_keyring /usr/share/keyrings) || return 1
	mkdir -p "$dir"/{lists,archives}/partial || return 1
	for entry; do
		read -r type suite <<<"$entry"
		echo "$type [arch=${debian_arch:-amd64} signed-by=$keyring] $mirror $suite main"
	done >"$dir/sources.list" || return 1
	debian_apt "$dir" apt-get update --error-on=any
}

# Runs a program of apt on such a source alone, in the current folder:
# debian_apt DIR PROGRAM ARGUMENT...
#
# It does without dpkg's lock, because nothing is installed, and without apt's own
# user, because the downloads belong to the caller.
debian_apt() {
	local dir=$1 program=$2
	shift 2
	LC_ALL=C APT_LISTCHANGES_FRONTEND=none "$program" \
		-o Dir::Etc::SourceList="$dir/sources.list" \
		-o Dir::Etc::SourceParts=/dev/null \
		-o Dir::Etc::Preferences=/dev/null \
		-o Dir::Etc::PreferencesParts=/dev/null \
		-o Dir::State="$dir" \
		-o Dir::State::Lists="$dir/lists" \
		-o Dir::State::Status=/dev/null \
		-o Dir::Cache="$dir" \
		-o Dir::Cache::Archives="$dir/archives" \
		-o APT::Architecture="${debian_arch:-amd64}" \
		-o APT::Sandbox::User=root \
		-o Acquire::Languages=none \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-o Acquire::Retries=3 \
		-o Debug::NoLocking=1 \
		"$@"
}
