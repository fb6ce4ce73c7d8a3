#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Migrates guests that booted under Secure Boot. Arguments are further ones of go test.
#
# The guests' firmware, boot loaders and kernels are fetched into the cache. On this machine
# it installs mtools, which write the disk that they boot from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../debian/debian.sh
. tests/debian/debian.sh

debian_install mtools || exit 1
go test -v -count=1 -timeout 60m -tags secureboot -run '^TestGuestUnderSecureBootReports$' \
	"$@" ./tests/e2e
