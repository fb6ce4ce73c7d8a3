#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the package qemu-system-x86-fbpp into a new Debian, beside Debian's own QEMU, and
# compares the two by QMP, by their help, and by the libraries that they use: whatever Debian's
# has, the other has, too. Then it purges the package, which leaves nothing.
# contrib/packaging/qemu-test.sh FOLDER, with the package.
set -euo pipefail
export LC_ALL=C
package=$(find "${1:?give the folder that has the package}" -name 'qemu-system-x86-fbpp_*.deb' |
	sort -V | tail -n 1)
package=${package:+$(realpath "$package")}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../../tests/debian/debian.sh
. tests/debian/debian.sh

die() {
	echo "qemu package: $*" >&2
	exit 1
}

# Debian has some of QEMU's modules in packages of their own.
debian=qemu-system-x86,qemu-system-gui,qemu-system-modules-opengl,qemu-system-modules-spice
debian+=,qemu-block-extra

# in_root COMMAND...: runs a command in the new Debian.
in_root() {
	# shellcheck disable=SC2016 # the other shell expands them
	unshare --mount --pid --fork --kill-child sh -ec '
		root=$1; shift
		mount -t proc proc "$root/proc"
		trap "exit 1" TERM INT
		chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C \
			DEBIAN_FRONTEND=noninteractive "$@"
	' sh "$root" "$@"
}

# programs: the two QEMUs, and where their modules are.
program() { [ "$1" = debian ] && echo /usr/bin/qemu-system-x86_64 || echo "/usr/bin/$name"; }
modules() {
	[ "$1" = debian ] && echo /usr/lib/x86_64-linux-gnu/qemu || echo /usr/lib/qemu-fbpp/lib/qemu
}

# ask WHOSE COMMAND: prints what a QEMU without a machine answers to a command of QMP. It is told
# to quit when the answer is there, in the third line: it would lose the end of a long one.
ask() {
	: >"$work/answer"
	# shellcheck disable=SC2094 # what is read is what the other end has written so far
	{
		printf '{"execute":"qmp_capabilities"}\n%s\n' "$2"
		for ((i = 0; i < 600 && $(wc -l <"$work/answer") < 3; i++)); do sleep 0.1; done
		echo '{"execute":"quit"}'
	} | in_root "$(program "$1")" -M none -accel tcg -nodefaults -display none -qmp stdio \
		>"$work/answer" || die "the QEMU of the $1 does not answer"
	jq -c 'select(has("return")) | .return | select(. != {})' "$work/answer"
}

# These print names, a line each, of what a QEMU has: NAMES WHOSE [WORD].
types() {
	ask "$1" '{"execute":"qom-list-types","arguments":{"implements":"'"$2"'","abstract":false}}' |
		jq -r '.[].name'
}
cpus() { ask "$1" '{"execute":"query-cpu-definitions"}' | jq -r '.[].name'; }
# Commands, events, members and values, but not the schema's numbers for types and arrays of them.
schema() {
	ask "$1" '{"execute":"query-qmp-schema"}' |
		jq -r '.. | strings | select(test("^\\[?[0-9]+\\]?$") | not)'
}
# Help for some options ends with an error.
help() {
	{ in_root "$(program "$1")" "$2" help 2>&1 || true; } | grep -oE '^ *[a-z][a-z0-9.-]+' |
		tr -d ' '
}
libraries() {
	in_root find "$(program "$1")" "$(modules "$1")" -type f -exec objdump -p {} + |
		awk '$1 == "NEEDED" { print $2 }'
}
module_names() { (cd "$root/$(modules "$1")" && find . -name '*.so'); }

# superset WHAT NAMES [WORD]: it is a fault if the package's QEMU lacks a name.
superset() {
	local what=$1 whose missing
	shift
	for whose in debian package; do
		"$1" "$whose" "${@:2}" | sort -u >"$work/$whose"
		[ -s "$work/$whose" ] || die "the QEMU of the $whose has no $what"
	done
	missing=$(comm -23 "$work/debian" "$work/package" | xargs)
	[ -z "$missing" ] || {
		echo "qemu package: $what of Debian's QEMU that are missing: $missing" >&2
		failed=1
	}
	echo "$what: Debian $(wc -l <"$work/debian"), package $(wc -l <"$work/package")," \
		"new: $(comm -13 "$work/debian" "$work/package" | xargs)"
}

# state: prints all files of the system but what dpkg, apt and caches leave behind.
state() {
	(cd "$root" && find . -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' \
		! -path './run/*' ! -path './tmp/*' ! -path './var/log/*' ! -path './var/cache/*' \
		! -path './var/lib/apt/*' ! -path './var/lib/dpkg/*' ! -path './root/.cache*' | sort)
}

[ -n "$package" ] || die "there is no package: run 'make packages-qemu'"
debian_install mmdebstrap jq || die "the packages above are needed"
name=qemu-system-x86_64-fbpp
failed=0
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work"
root=$work/root
release=$(sed -n 's/^release=//p' qemu-patches/10.0/BASE)
mmdebstrap --quiet --variant=apt --skip=check/empty,cleanup/apt/lists \
	--include="binutils,$debian" "$release" "$root" "$(debian_mirror)" >&2 ||
	die "cannot make a Debian $release"

cp "$package" "$root/tmp/qemu.deb"
# What its modules need is there before and after, so that only the package comes and goes.
needs=$(dpkg-deb -f "$package" Depends,Recommends | sed 's/^[A-Za-z]*: //' | tr ',' '\n' |
	sed 's/|.*//; s/(.*//' | grep -vw fbppd | xargs)
# shellcheck disable=SC2086 # a list
in_root apt-get install -y --no-install-recommends $needs >"$work/log" 2>&1 ||
	die "cannot install what it needs: $(tail -n 5 "$work/log")"
before=$(state)
in_root apt-get install -y --no-install-recommends /tmp/qemu.deb >"$work/log" 2>&1 ||
	die "cannot install it: $(tail -n 5 "$work/log")"
in_root $name -version | grep fbpp || die "it does not say what it is"

superset devices types device
superset objects types user-creatable
superset machines types machine
superset "CPU models" cpus
superset "words of QMP" schema
superset libraries libraries
superset modules module_names
for option in -netdev -chardev -display -audiodev -accel -tpmdev -object; do
	superset "kinds of $option" help $option
done
types package device | grep -x vhost-user-fbpp-pci >/dev/null || die "it has no fbpp device"
for library in numa seccomp uring gnutls; do
	libraries package | grep "^lib$library\." >/dev/null || die "it does not use lib$library"
done
grep -q 'vhost-net requested but could not be initialized' "$root/usr/bin/$name" ||
	die "it has no vhost-net"
ask package '{"execute":"query-commands"}' | jq -e 'any(.[]; .name == "query-vnc")' >/dev/null ||
	die "it has no VNC"

# Debian's firmware is found, and a machine with usual devices starts.
printf '{"execute":"qmp_capabilities"}\n{"execute":"query-status"}\n{"execute":"quit"}\n' |
	in_root $name -M q35 -accel tcg -nodefaults -display none -vga std -vnc none -S -qmp stdio \
		-nic user,model=virtio-net-pci -device qemu-xhci -object rng-random,id=r \
		-sandbox on,elevateprivileges=deny,spawn=deny,resourcecontrol=deny |
	grep '"status": "prelaunch"' >/dev/null || die "a machine does not start"

in_root dpkg --purge qemu-system-x86-fbpp >"$work/log" 2>&1 || die "cannot purge it"
diff <(echo "$before") <(state) || die "purging it left something"
[ $failed = 0 ] || die "Debian's QEMU has more"
echo "the package of QEMU is installed, compared and purged"
