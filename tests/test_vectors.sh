#!/usr/bin/env bash
# Host kernels for processors with narrower vectors than this one: a few convolutions against the
# float64 oracle, built for AVX2 and for SSE2 alone. docs/testing.md has the whole table.
set -u
cd "$(dirname "$0")/.." || exit 3
build=${SEG_BUILD:-build}
passed=0 failed=0 skipped=0
cc=${SEG_CC:-cc}

# one MACHINE FLAG WAY PROGRAM...: skipped where this processor lacks FLAG.
one() {
    local machine=$1 flag=$2 way=$3 said
    shift 3
    if ! grep -qw "$flag" /proc/cpuinfo 2>/dev/null; then
        echo "skip $machine: this processor has no $flag"
        skipped=$((skipped + 1))
    elif said=$(SEG_CC="${cc%% *} -march=$machine" SEG_TEST_WAY=$way "$@" 2>&1) \
            && grep -q 'largest error' <<<"$said"; then
        passed=$((passed + 1))
    else
        echo "$said"
        echo "FAIL $machine $way $*"
        failed=$((failed + 1))
    fi
}
one haswell avx2 winograd_large "$build/tests/test_ops" dropout
one x86-64 sse2 model "$build/tests/test_bf16" ops dropout
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
