#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the packages of the commit that is checked out, as .deb and .rpm:
# contrib/packaging/build.sh FOLDER. The same commit makes the same bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C TZ=UTC
out=$(mkdir -p "$1" && cd "$1" && pwd)

# The time of the commit is that of all files. Before the first release the version is
# below any other.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
VERSION=0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d.%H%M%S).$(git rev-parse --short=12 HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
STAGE=$work/stage
mkdir "$STAGE"
export SOURCE_DATE_EPOCH VERSION STAGE

# A clone has the commit and no changes. Go writes its name into the programs, which it
# does not do in a worktree.
[ -z "$(git status --porcelain)" ] || echo "packages: without your changes since HEAD" >&2
git clone -q . "$work/source"
cd "$work/source"

CGO_ENABLED=0 go build -trimpath -buildvcs=true -ldflags '-s -w' -o "$STAGE/" ./cmd/...

# Manual pages and shell completion come from the programs themselves.
CGO_ENABLED=0 go build -tags docs -o "$STAGE/docs/" ./cmd/...
page() { # PROGRAM SECTION PACKAGE
	local dir="$STAGE/$3-man"
	mkdir -p "$dir"
	"$STAGE/docs/$1" --write-docs "$dir" "$2"
}
page fbppd 8 fbppd
page fbppctl 1 fbppd
page fbpp-conform 1 fbppd
page fbpp-agent 8 fbpp-agent
mv "$STAGE"/fbppd-man/{bash,fish,zsh} "$STAGE"
gzip -9n "$STAGE"/*-man/*

mkdir -p "$STAGE/units"
for unit in contrib/*.service contrib/*.socket; do
	sed 's|/usr/local/bin|/usr/bin|' "$unit" >"$STAGE/units/$(basename "$unit")"
done

# Debian's changelog says which commit it is; the other has what users notice.
for package in fbppd fbpp-agent; do
	doc=$STAGE/$package-doc
	mkdir -p "$doc"
	cp contrib/packaging/"$package".copyright "$doc/copyright"
	gzip -9nc CHANGELOG.md >"$doc/NEWS.md.gz"
	printf '%s (%s) unstable; urgency=medium\n\n  * Made of commit %s.\n\n -- %s  %s\n' \
		"$package" "$VERSION" "$(git rev-parse HEAD)" \
		'The fbpp authors <fbpp@users.noreply.github.com>' \
		"$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
done
# Of which modules the programs consist (SBOM).
sbom() { # PACKAGE PROGRAM...
	local package=$1
	shift
	go -C contrib/packaging run ./sbom --name="$package" --version="$VERSION" "${@/#/"$STAGE/"}" |
		gzip -9n >"$STAGE/$package-doc/sbom.cdx.json.gz"
}
sbom fbppd fbppd fbppctl fbpp-conform
sbom fbpp-agent fbpp-agent
find "$STAGE" -type f -exec chmod 644 {} +
chmod 755 "$STAGE"/{fbppd,fbppctl,fbpp-conform,fbpp-agent}
find "$STAGE" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

go -C contrib/packaging build -o "$STAGE/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
for package in fbppd fbpp-agent; do
	for kind in deb rpm; do
		ZSH=/usr/share/zsh/site-functions
		[ "$kind" != deb ] || ZSH=/usr/share/zsh/vendor-completions
		export ZSH
		"$STAGE/nfpm" package --config "contrib/packaging/$package.yaml" \
			--packager "$kind" --target "$out"
	done
done
