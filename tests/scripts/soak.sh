#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs all random tests at full length, which takes hours. Each part prints its
# seed; the seed repeats a failure.
#
#   soak.sh [SEED]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

seed=${1:-$(date +%s)}
# How long each fuzzer runs, and how many rounds the adversary plays on each
# accelerator.
fuzz_time=${SOAK_FUZZ_TIME:-10m}
adversary_rounds=${SOAK_ADVERSARY_ROUNDS:-500}

for number in "$seed" "$adversary_rounds"; do
	[[ $number =~ ^[0-9]{1,19}$ ]] || {
		echo "soak: SEED and SOAK_ADVERSARY_ROUNDS are numbers, and not '$number'" >&2
		exit 2
	}
done

failed=()
begun=$SECONDS

# part NAME COMMAND...: runs a part. A failure does not end the script; it is
# reported at the end.
part() {
	local name=$1 from=$SECONDS result=passed
	shift
	printf 'soak: %s, seed %s: begins after %s min\n' "$name" "$seed" $(((SECONDS - begun) / 60))
	"$@" || { result=FAILED failed+=("$name"); }
	printf 'soak: %s: %s after %s min\n' "$name" "$result" $(((SECONDS - from) / 60))
}

# long PACKAGE ARGUMENT...: runs all tests of a package without a timeout.
long() {
	go test -v -count=1 -timeout 0 "$@"
}

# Minimizing is off: coverage depends on timing, so the same input need not reach
# the same code again.
fuzz() {
	local pkg=$1 target=$2
	go test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$fuzz_time" -fuzzminimizetime 1x
}

part "hazards and faults" long ./tests/e2e -args -soak -seed="$seed"
part "from one series to another" make test-series
part "QEMU's own tests of postcopy" ./qemu-patches/qemu.sh qtest
part "what the host sees of guests" long ./tests/introspect -args -soak
part "the adversary" long ./tests/adversary -args \
	-adversary.rounds="$adversary_rounds" -adversary.seed="$seed"
part "the model" go run ./tests/model/fbpp-model
while read -r dir target; do
	part "$target of $dir" fuzz "$dir" "$target"
done < <(git grep -o 'func Fuzz[A-Za-z0-9_]*' -- '*_test.go' |
	sed -E 's|^(.*)/[^/]*:func (.*)|./\1 \2|')

if [ ${#failed[@]} -gt 0 ]; then
	echo "soak: failed, again with 'make soak SEED=$seed':" >&2
	printf '  %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "soak: all passed in $(((SECONDS - begun) / 60)) min, seed $seed"
