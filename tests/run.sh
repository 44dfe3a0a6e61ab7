#!/usr/bin/env bash
# Runs the test suites, one line each, and counts: `make check`, or `tests/run.sh [PATTERN...]`.
#
# A suite is a program build/tests/test_NAME (from tests/test_NAME.c or tests/FOLDER/test_NAME.c), a
# script tests/test_NAME.sh or tests/cli/NAME.sh, or the goldens. The last line that it prints is
# `N passed, N failed` or `N passed, N failed, N skipped`; cmocka's own summary counts as well. A
# suite that crashes, takes too long or prints no count has failed. Output goes to build/test-logs/.
# Programs and goldens run once more as built with sanitizers (`san/...`), except those that only
# compute: `# sanitize: no` or `/* sanitize: no` in the source says so. `timeout: SECONDS` there
# gives a suite more than the usual 120 seconds. Suites in tests/simt/ need a C++ compiler ($CXX, else
# g++); without one they are skipped. They use one processor, so they run beside all others.
set -u
cd "$(dirname "$0")/.." || exit 3
logs=build/test-logs
mkdir -p "$logs"
export SEG_CACHE=${SEG_CACHE:-$PWD/build/test-cache}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1}
# fontconfig keeps what it read until the process ends.
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/tests/leaks.txt:print_suppressions=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
counts=$logs/counts.txt
: >"$counts"

# The word behind `KEY: ` in a suite's source.
source_says() { sed -n "1,30s/.*\b$1: *\([a-z0-9]*\).*/\1/p" "$2" | head -n 1; }

# Reads a log; sets passed, failed, skipped; false where it holds no count.
count() {
    local line
    line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$1" | tail -n 1)
    if [ -n "$line" ]; then
        read -r passed failed skipped _ < <(sed -E \
            's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?.*/\1 \2 \4 0/' <<<"$line")
        return 0
    fi
    grep -aq '^\[==========\] .*test(s) run' "$1" || return 1
    passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$1" | awk '{n += $1} END {print n+0}')
    failed=$(sed -n 's/^\[  FAILED  \] .*: \([0-9]*\) test.*/\1/p' "$1" | awk '{n += $1} END {print n+0}')
    skipped=$(sed -n 's/^\[  SKIPPED \] .*: \([0-9]*\) test.*/\1/p' "$1" | awk '{n += $1} END {print n+0}')
}

# run_suite NAME SOURCE COMMAND...
run_suite() {
    local name=$1 source=$2 log=$logs/${1//\//-}.log limit started seconds code why='' passed failed skipped
    shift 2
    if [ ${#patterns[@]} -gt 0 ]; then
        local pattern wanted=0
        for pattern in "${patterns[@]}"; do
            # shellcheck disable=SC2053
            [[ $name == $pattern ]] && wanted=1
        done
        [ $wanted = 1 ] || return 0
    fi
    limit=$(source_says timeout "$source")
    started=$(date +%s%N)
    timeout -k 5 "${limit:-120}" "$@" >"$log" 2>&1 </dev/null
    code=$?
    seconds=$(( ($(date +%s%N) - started) / 100000000 ))
    if ! count "$log"; then
        passed=0 failed=1 skipped=0 why="  no count, exit code $code"
    elif [ $code -gt 1 ] && [ "$failed" = 0 ]; then
        failed=1 why="  exit code $code"
    elif [ $code = 1 ] && [ "$failed" = 0 ]; then
        failed=1 why="  exit code 1 with no failed test"
    fi
    [ $code = 124 ] && why="  stopped after ${limit:-120} s"
    printf '%-24s %5d passed, %d failed, %d skipped  (%d.%d s)%s\n' "$name" "$passed" "$failed" \
        "$skipped" $((seconds / 10)) $((seconds % 10)) "$why"
    if [ "$failed" != 0 ]; then
        grep -aE '^(FAIL|.*(ERROR|error:|runtime error|Sanitizer))' "$log" | head -n 5 | sed 's/^/    /'
        echo "    see $log"
    fi
    echo "$passed $failed $skipped" >>"$counts"
}

# run_program SOURCE: tests/[FOLDER/]test_NAME.c, as it is and sanitised.
run_program() {
    local source=$1 name=${1#tests/}
    name=${name%.c}
    run_suite "${name/test_/}" "$source" "build/tests/$name"
    if [ -d build-san ] && [ "$(source_says sanitize "$source")" != no ]; then
        run_suite "san/${name/test_/}" "$source" "build-san/tests/$name"
    fi
}

run_emulator() {
    local source name cxx=${CXX:-g++}
    for source in tests/simt/test_*.c; do
        if command -v "${cxx%% *}" >/dev/null 2>&1; then
            run_program "$source"
        else
            name=${source#tests/} name=${name%.c}
            run_suite "${name/test_/}" "$source" \
                echo "0 passed, 0 failed, 1 skipped: there is no C++ compiler ${cxx%% *}"
        fi
    done
}

patterns=("$@")
run_emulator &
emulator=$!
trap 'kill $emulator 2>/dev/null' EXIT
for source in tests/test_*.c tests/*/test_*.c; do
    [[ $source == tests/simt/* ]] || run_program "$source"
done
run_suite golden tests/golden/run.sh tests/golden/run.sh
[ -d build-san ] && SEGC=$PWD/build-san/segc run_suite san/golden tests/golden/run.sh tests/golden/run.sh
for source in tests/test_*.sh tests/cli/[a-z]*.sh; do
    [ -e "$source" ] || continue
    [ "$source" = tests/cli/common.sh ] && continue
    name=${source#tests/} name=${name%.sh}
    run_suite "${name/test_/}" "$source" bash "$source"
    if [ -d build-san ] && [ "$(source_says sanitize "$source")" = yes ]; then
        SEG_BUILD=build-san run_suite "san/${name/test_/}" "$source" bash "$source"
    fi
done

wait $emulator
read -r passed failed skipped < <(awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}' "$counts")
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
