#!/usr/bin/env bash
# Goldens: whole texts that the compiler must print again.
#
#   tests/golden/PASS/CASE.seg    a model; `# segc: OPTIONS` in its first line adds options
#   tests/golden/PASS/CASE.want   what `segc --stop-after PASS CASE.seg` prints
#   tests/golden/errors/CASE.*    what `segc --check CASE.seg` says, with exit code 1
#   tests/golden/OPTION/CASE.*    for summary and explain: what `segc --OPTION CASE.seg` prints
#
# Cases run in their own folder, so that messages name only the file. Files that cases use lie in
# folders below. `run.sh --bless` writes what differs (make bless): review it with git diff.
# SEGC is the compiler (build/segc).
set -u
here=$(cd "$(dirname "$0")" && pwd)
segc=${SEGC:-$here/../../build/segc}
bless=0
[ "${1:-}" = --bless ] && bless=1
passed=0 failed=0
got=$(mktemp -d) || exit 3
trap 'rm -rf "$got"' EXIT

# What the compiler says about a case, in $got/text; sets `expected` to the exit code it must have.
run_case() {
    local pass=$1 case=$2 options
    options=$(sed -n '1s/^# *segc: *//p' "$case.seg")
    expected=0
    case $pass in
    errors) expected=1; set -- --check ;;
    summary|explain) set -- "--$pass" -o "$got/plan" ;;
    *) set -- --stop-after "$pass" ;;
    esac
    # shellcheck disable=SC2086
    timeout 60 "$segc" "$@" $options "$case.seg" >"$got/text" 2>"$got/messages"
    code=$?
    if [ "$pass" = errors ] || [ "$code" != "$expected" ]; then
        cat "$got/messages" >>"$got/text"
    fi
}

for folder in "$here"/*/; do
    pass=$(basename "$folder")
    cd "$folder" || exit 3
    for file in *.seg; do
        [ -e "$file" ] || continue
        case=${file%.seg}
        run_case "$pass" "$case"
        if [ "$code" != "$expected" ]; then
            echo "FAIL $pass/$case: exit code $code, expected $expected"
            cat "$got/text"
            failed=$((failed + 1))
        elif cmp -s "$case.want" "$got/text"; then
            passed=$((passed + 1))
        elif [ $bless = 1 ]; then
            cp "$got/text" "$case.want"
            echo "blessed $pass/$case"
        elif [ ! -e "$case.want" ]; then
            echo "FAIL $pass/$case: no $case.want (make bless writes it)"
            failed=$((failed + 1))
        else
            echo "FAIL $pass/$case"
            diff -u "$case.want" "$got/text"
            failed=$((failed + 1))
        fi
    done
done
[ $bless = 1 ] || echo "$passed passed, $failed failed"
[ $failed = 0 ]
