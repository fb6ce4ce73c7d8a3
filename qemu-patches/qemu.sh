#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches, patches, builds and checks the QEMU that fbpp needs. See README.md.
set -euo pipefail
export LC_ALL=C GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/debian.sh
. "$here/lib/debian.sh"
# shellcheck source=lib/series.sh
. "$here/lib/series.sh"
# shellcheck source=lib/compare.sh
. "$here/lib/compare.sh"

usage() {
	cat <<-'EOF'
	usage: qemu.sh [OPTION...] COMMAND
	  --series VERSION  the folder with the series (10.0, or $FBPP_SERIES)
	  --target ARCH     the guest's architecture (x86_64, or $FBPP_TARGET)
	  --operator        leave out what is for tests only
	  --sanitize        with address and undefined behaviour sanitizers
	  --quiet           no progress
	  build         build the patched QEMU unless it is in the cache; print its path
	  path          print the path of the built QEMU, or fail
	  check         lint the patches, apply them, compare with a refresh, checkpatch
	  bisect        build after each patch
	  qtest [PATH]  run QEMU's own tests of migration below PATH (postcopy)
	  source        print where the source is, without the series
	  tree DIR      make a git tree with the series applied, to edit it
	  refresh [DIR] write the patches anew, from DIR or from what they apply to
	  compare [VERSION] show what differs from the series of another version
	EOF
}

series=${FBPP_SERIES:-10.0}
target=${FBPP_TARGET:-x86_64}
operator=
quiet=
sanitize=()
while [ $# -gt 0 ]; do
	case $1 in
	--series) series=${2:?--series needs a version}; shift 2 ;;
	--target) target=${2:?--target needs an architecture}; shift 2 ;;
	--operator) operator=1; shift ;;
	--sanitize) sanitize=(--enable-asan --enable-ubsan); shift ;;
	--quiet) quiet=1; shift ;;
	-h | --help) usage; exit 0 ;;
	-*) usage >&2; die "unknown option $1" ;;
	*) break ;;
	esac
done
command=${1:-}
[ -n "$command" ] || { usage >&2; exit 2; }
shift

patches=$here/$series
[ -r "$patches/BASE" ] || die "no series for QEMU $series in $here"
[[ $target =~ ^[a-z0-9_]+$ ]] || die "$target is no architecture of QEMU's"

# A flavour adds its flags here and so gets a cache entry of its own.
configure_flags=(
	--without-default-features "--target-list=$target-softmmu"
	--enable-tcg --enable-kvm --enable-vhost-user
	--disable-install-blobs --disable-download --python=/usr/bin/python3
	--firmwarepath=/usr/share/qemu:/usr/share/seabios:/usr/lib/ipxe/qemu
	"${sanitize[@]}"
)

case $command in
build) build_series ;;
path)
	binary=$(built_binary)
	options="${operator:+ --operator}${sanitize:+ --sanitize}"
	[ -x "$binary" ] || die "QEMU is not built yet: run $here/qemu.sh$options build"
	echo "$binary"
	;;
check) check_series ;;
bisect) bisect_series ;;
qtest) qtest_series "$@" ;;
source) source_tree ;;
tree) make_tree "${1:?tree needs a directory}" ;;
refresh) refresh_series "$@" ;;
compare) compare_series "$@" ;;
*) usage >&2; die "unknown command $command" ;;
esac
