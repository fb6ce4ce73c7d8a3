#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the Debian package qemu-system-x86-fbpp: Debian's QEMU with the series for
# operators, of Debian's source package, by its rules and with its configuration, for x86-64
# guests. It lies beside Debian's own packages: what it loads in a folder of its own, and the
# program, with a name of its own, in /usr/bin, from where libvirt may start it under AppArmor:
# contrib/packaging/qemu.sh [--configure-only | --continue] FOLDER. It takes long, and some
# gigabytes below ~/.cache/fbpp, where a new Debian of the package's release is kept to build in.
# --continue goes on with what an interrupted one has configured, of whatever commit that was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C TZ=UTC
# shellcheck source=../../tests/debian/debian.sh
. tests/debian/debian.sh

name=qemu-system-x86-fbpp
prefix=/usr/lib/qemu-fbpp
maintainer='The fbpp authors <fbpp@users.noreply.github.com>'

die() {
	echo "qemu package: $*" >&2
	exit 1
}

say() { echo "qemu package: $*" >&2; }

# in_root COMMAND...: runs a command in the new Debian, with the source as its folder. The shell
# is process 1 there: make would not end by a signal if it were.
in_root() {
	# shellcheck disable=SC2016 # the other shell expands them
	unshare --mount --pid --fork --kill-child sh -ec '
		root=$1; shift
		trap "exit 1" TERM INT
		mount -t proc proc "$root/proc"
		chroot "$root" env -C /build/qemu -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			LC_ALL=C TZ=UTC DEB_BUILD_OPTIONS="nocheck terse parallel=$(nproc)" "$@"
	' sh "$root" "$@"
}

# make_root: makes that Debian, with all that Debian builds QEMU with.
make_root() {
	local mirror
	[ ! -d "$root" ] || return 0
	say "making a Debian $release in $root"
	mkdir -p "$(dirname "$root")"
	mirror=$(debian_mirror)
	new=$(mktemp -d "$root.XXXXXX")
	mmdebstrap --quiet --variant=buildd --skip=check/empty "$release" "$new" \
		"deb $mirror $release main" "deb-src $mirror $release main" >&2 ||
		die "cannot make a Debian $release"
	mkdir "$new/build"
	chroot "$new" sh -ec 'export DEBIAN_FRONTEND=noninteractive
		apt-get update
		apt-get build-dep -y --arch-only -P pkg.qemu.use-upstream-vdso,nocheck qemu
		apt-get install -y --no-install-recommends lintian' >"$new/build/apt.log" 2>&1 ||
		die "cannot install what QEMU is built with: $(tail -n 3 "$new/build/apt.log")"
	mv -T "$new" "$root"
	new=
}

# debianize: makes the one package of the tree's debian folder. What Debian says of the
# source, and so of the configuration, stays.
debianize() {
	local debian=$root/build/qemu/debian
	# Debian's maintainers are not those of this package.
	awk -v maintainer="$maintainer" '
		/^[^ \t]/ { skip = /^Uploaders:/ }
		/^Maintainer:/ { $0 = "Maintainer: " maintainer }
		!skip
		/^$/ { exit }' "$debian/control" >"$work/control"
	cat contrib/packaging/$name.control >>"$work/control"
	mv "$work/control" "$debian/control"
	{
		printf 'qemu (%s) unstable; urgency=medium\n\n' "$version"
		printf '  * With the series of fbpp, commit %s.\n\n' "$(git rev-parse HEAD)"
		printf ' -- %s  %s\n\n' "$maintainer" "$(date -u -R -d "@$time")"
		cat "$debian/changelog"
	} >"$work/changelog"
	mv "$work/changelog" "$debian/changelog"
	cp contrib/packaging/$name.lintian-overrides "$debian"
}

# configure_tree: makes the tree anew, and configures it with the options of Debian's rules. The
# last ones count.
configure_tree() {
	local options="--prefix=$prefix --bindir=/usr/bin --libdir=$prefix/lib"
	options+=" --libexecdir=$prefix/libexec --target-list=x86_64-softmmu --disable-tools"
	# The series and what is here for QEMU are what changes the package.
	time=$(git log -1 --format=%ct -- qemu-patches contrib/packaging/qemu{.sh,-system*})
	version=$(sed -n 's/^version=//p' "$base")+fbpp$(date -u -d "@$time" +%Y%m%d.%H%M%S)
	rm -rf --one-file-system "$root/build/qemu"
	# Debian's tree has Debian's patches; git am puts the series on top, without fuzz.
	qemu-patches/qemu.sh --operator tree "$root/build/qemu"
	debianize
	say "configuring $version"
	in_root make -f debian/rules enable-system=y QEMU_CONFIGURE_OPTIONS="$options" \
		b/qemu/configured >"$root/build/configure.log" 2>&1 ||
		die "configure fails: $(tail -n 20 "$root/build/configure.log")"
}

# pack: makes the package of what was built, with debhelper.
pack() {
	# shellcheck disable=SC2016 # the other shell expands them
	in_root env DESTDIR="/build/qemu/debian/$name" SOURCE_DATE_EPOCH="$time" sh -ec '
		name=$1 prefix=$2
		ninja -C b/qemu install >/dev/null
		at=debian/$name$prefix
		# As in Debian: these are for tests, or for those who write plugins.
		rm -rf "$at"/lib/qemu/accel-qtest-*.so "$at/include"
		rm -rf "$at"/share/applications "$at"/share/icons "debian/$name/usr/share/man"
		mv "debian/$name/usr/bin/qemu-system-x86_64" "debian/$name/usr/bin/qemu-system-x86_64-fbpp"
		dh_installdocs -p "$name"
		dh_installchangelogs -p "$name" --no-trim
		dh_lintian -p "$name"
		dh_compress -p "$name"
		dh_fixperms -p "$name"
		dh_strip -p "$name" --no-automatic-dbgsym
		# What only a module needs is not needed to start QEMU.
		dpkg-shlibdeps -T"debian/$name.substvars" -xqemu-system-common \
			-dDepends $(find debian/"$name"/usr/bin -type f -perm -1) \
			-dRecommends $(find "$at/lib" -name "*.so")
		dh_gencontrol -p "$name"
		dh_md5sums -p "$name"
		dh_builddeb -p "$name" --destdir=/build
	' sh "$name" "$prefix"
}

only='' continue=''
case ${1:-} in
--configure-only) only=1; shift ;;
--continue) continue=1; shift ;;
esac
[ $# = 1 ] || die "give the folder that the package goes to"
[ "$(id -u)" = 0 ] || die "needs root, to build in a Debian of its own"
out=$(mkdir -p "$1" && cd "$1" && pwd)
debian_install mmdebstrap git || die "the packages above are needed"
base=qemu-patches/10.0/BASE
release=$(sed -n 's/^release=//p' "$base")
cache=${FBPP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fbpp}
root=$cache/qemu-package/$release-$(sha256sum <"$base" | cut -c 1-12)
work=$(mktemp -d)
new= # a Debian that is not finished
trap 'rm -rf --one-file-system "$work" ${new:+"$new"}' EXIT

exec 9>"$(mkdir -p "$cache/qemu-package" && echo "$cache/qemu-package/lock")"
flock -n 9 || die "another one is at work in $root"
make_root
[ -n "$continue" ] || configure_tree
[ -z "$only" ] || { say "configured; see $root/build/configure.log"; exit; }
[ -e "$root/build/qemu/b/qemu/configured" ] || die "there is nothing to go on with"
version=$(in_root dpkg-parsechangelog -S Version)
time=$(in_root dpkg-parsechangelog -S Timestamp)
say "compiling $version; see $root/build/compile.log"
in_root make -f debian/rules enable-system=y b/qemu/built >"$root/build/compile.log" 2>&1 ||
	die "QEMU does not build: $(tail -n 20 "$root/build/compile.log")"
rm -f "$root"/build/*.deb
pack
in_root lintian --allow-root --fail-on error,warning "/build/${name}_${version#*:}_amd64.deb" ||
	die "lintian complains"
cp "$root"/build/*.deb "$out"
