# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What comes from Debian: build dependencies and the source package. Sources of
# other releases are read through lists of our own; the system's stay as they are.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

build_packages=(
	gcc libc6-dev make ninja-build pkg-config python3 python3-venv
	flex bison perl libglib2.0-dev libpixman-1-dev zlib1g-dev libfdt-dev
	git dpkg-dev xz-utils patch ca-certificates debian-archive-keyring
	seabios ipxe-qemu qemu-system-data
)

# The mirror of Debian's main archive that this machine uses already.
debian_mirror() {
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' \
		'Created-By: Packages' | sed -n 's/^Debian|Debian|//p' | head -n 1
}

as_root() {
	[ "$(id -u)" = 0 ] || die "needs root to install: $*"
}

update_system_lists() {
	as_root "package lists"
	say "updating package lists"
	run "$work/apt.log" apt-get update
}

# apt with sources and state of our own: apt_private COMMAND...
apt_private() {
	local tool=$1
	shift
	"$tool" -o Dir::Etc::SourceList="$work/apt/sources.list" \
		-o Dir::Etc::SourceParts="$work/apt/parts" \
		-o Dir::State::Lists="$work/apt/lists" \
		-o Dir::Cache="$work/apt/cache" \
		-o APT::Sandbox::User=root "$@"
}

# Writes the private sources list, for the given lines "TYPE SUITE".
setup_private_apt() {
	local mirror entry type suite
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || { update_system_lists; mirror=$(debian_mirror); }
	[ -n "$mirror" ] || die "apt's configuration names no Debian mirror"
	[ -r "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
	mkdir -p "$work"/apt/{parts,lists/partial,cache/archives/partial}
	for entry in "$@"; do
		read -r type suite <<<"$entry"
		echo "$type [signed-by=$keyring] $mirror $suite main"
	done >"$work/apt/sources.list"
	run "$work/apt.log" apt_private apt-get update
}

installed() {
	dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

have_meson() {
	command -v meson >/dev/null &&
		printf '1.5.0\n%s\n' "$(meson --version)" | sort -CV
}

install_packages() {
	as_root "$@"
	say "installing $*"
	run "$work/apt.log" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "$@"
}

install_build_deps() {
	local missing=() package
	for package in "${build_packages[@]}"; do
		installed "$package" || missing+=("$package")
	done
	if [ ${#missing[@]} -gt 0 ]; then
		# A first try with the lists at hand; a fresh machine has none.
		apt-get install -s "${missing[@]}" >/dev/null 2>&1 || update_system_lists
		install_packages "${missing[@]}"
	fi
	have_meson || install_meson
}

# Debian 12's meson is too old for QEMU 10; its backports have a newer one.
install_meson() {
	local codename
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	if [ "$codename" = bookworm ]; then
		setup_private_apt "deb bookworm-backports"
		(cd "$work" && run "$work/apt.log" apt_private apt-get download meson)
		install_packages "$work"/meson_*.deb
	else
		install_packages meson
	fi
	have_meson || die "meson 1.5 or newer is needed, $codename has $(meson --version)"
}

base_field() {
	sed -n "s/^$1=//p" "$patches/BASE"
}

# Puts the source package into $cache/dl/, and its directory into $sources.
fetch_base() {
	local version package release
	version=$(base_field version) package=$(base_field package)
	release=$(base_field release)
	sources=$cache/dl/$(base_field dsc)
	[ -d "$sources" ] || {
		say "fetching the source of $package $version from $release"
		setup_private_apt "deb-src $release"
		mkdir "$work/dl"
		(cd "$work/dl" && run "$work/apt.log" apt_private apt-get \
			--download-only source "$package=$version") ||
			die "the mirror has no $package $version any more: BASE needs a newer version"
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
