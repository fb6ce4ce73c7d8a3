# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What comes from Debian: build dependencies and the source package. Sources of
# other releases are read through lists of our own; the system's stay as they are.

# shellcheck source=../tests/debian/debian.sh
. "$here/../tests/debian/debian.sh"

build_packages=(
	gcc libc6-dev make ninja-build pkg-config python3 python3-venv
	flex bison perl libglib2.0-dev libpixman-1-dev zlib1g-dev libfdt-dev
	git dpkg-dev xz-utils patch ca-certificates debian-archive-keyring
	seabios ipxe-qemu qemu-system-data
)

# fetch "TYPE SUITE" ARGUMENT...: runs apt-get on that suite, in the current folder.
fetch() {
	local entry=$1
	shift
	run "$work/apt.log" debian_source "$work/apt" "$entry"
	run "$work/apt.log" debian_apt "$work/apt" apt-get "$@"
}

have_meson() {
	command -v meson >/dev/null &&
		printf '1.5.0\n%s\n' "$(meson --version)" | sort -CV
}

install_build_deps() {
	debian_install "${build_packages[@]}" || die "QEMU cannot be built"
	have_meson || install_meson
}

# Debian 12's meson is too old for QEMU 10; its backports have a newer one.
install_meson() {
	local meson=meson
	if [ "$(debian_codename /etc/os-release)" = bookworm ]; then
		(cd "$work" && fetch "deb bookworm-backports" download meson)
		meson=("$work"/meson_*.deb)
	fi
	debian_install "${meson[@]}" || die "QEMU cannot be built"
	have_meson || die "meson 1.5 or newer is needed, here is $(meson --version)"
}

base_field() {
	sed -n "s/^$1=//p" "$patches/BASE"
}

# A mirror keeps a version only until a newer one has taken its place.
require_offered() {
	local package=$1 version=$2 release=$3 offered
	offered=$(debian_apt "$work/apt" apt-cache showsrc --only-source "$package" \
		2>>"$work/apt.log" | sed -n 's/^Version: //p' | sort -uV | xargs)
	[[ " $offered " == *" $version "* ]] ||
		die "$release of the mirror has no $package $version any more," \
			"only ${offered:-none}: see README.md, 'A version that is gone'"
}

# Puts the source package into $cache/dl/, and its directory into $sources.
fetch_base() {
	local version package release
	version=$(base_field version) package=$(base_field package)
	release=$(base_field release)
	sources=$cache/dl/$(base_field dsc)
	[ -d "$sources" ] || {
		say "fetching the source of $package $version from $release"
		run "$work/apt.log" debian_source "$work/apt" "deb-src $release"
		require_offered "$package" "$version" "$release"
		mkdir "$work/dl"
		(cd "$work/dl" && debian_apt "$work/apt" \
			apt-get --download-only source "$package=$version") >"$work/source.log" 2>&1 ||
			die "the mirror lists $package $version, but does not give it:" \
				"$(sed -n 's/^E: //p' "$work/source.log" | head -n 1)"
		verify_base "$work/dl"
		mkdir -p "$cache/dl"
		mv "$work/dl" "$sources"
	}
	verify_base "$sources"
}

verify_base() {
	(cd "$1" && grep -E '^[0-9a-f]{64}  ' "$patches/BASE" | sha256sum --quiet -c - >&2) ||
		die "source in $1 does not match $patches/BASE"
}
