# What the scripts in tests/cli share: a folder of their own, checks that count, small inputs.
#
#   ok WHAT COMMAND...         the command succeeds
#   fails CODE WHAT COMMAND... it exits with that code
#   says WHAT PATTERN          what the last command printed (both streams) matches
#   same WHAT A B              two files are equal
#   skip WHAT WHY
#   finish                     prints the count; the last line of every script
#
# $segc and $segrun are the programs, $work the folder, which is removed at the end.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/${SEG_BUILD:-build}
segc=$build/segc
segrun=$build/segrun
work=$(mktemp -d "${TMPDIR:-/tmp}/seg-cli-XXXXXX") || exit 3
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
export SEG_CACHE=${SEG_CACHE:-$root/build/test-cache}
passed=0 failed=0 skipped=0
cd "$work" || exit 3

# result WHAT BOOLEAN: counts it, with what the last command said where it failed.
result() {
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1"
        [ -e "$work/said" ] && sed 's/^/     | /' "$work/said" | tail -n 15
    fi
}
fails() {
    local code=$1 what=$2 got
    shift 2
    timeout 110 "$@" >"$work/said" 2>&1 </dev/null
    got=$?
    [ $got = "$code" ] || echo "     exit code $got, expected $code: $*"
    [ $got = "$code" ]
    result "$what" $?
}
ok() { fails 0 "$@"; }
says() {
    grep -qE -- "$2" "$work/said"
    result "$1" $?
}
same() {
    cmp "$2" "$3" >"$work/said" 2>&1
    result "$1" $?
}
check() { # check WHAT COMMAND...: a shell condition
    local what=$1
    shift
    "$@" >"$work/said" 2>&1
    result "$what" $?
}
skip() {
    skipped=$((skipped + 1))
    echo "skip $1: $2"
}
finish() {
    if [ $skipped -gt 0 ]; then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
    [ $failed = 0 ]
}

# A network that trains in a moment, named tiny, and its plan.
small_model() {
    cat >tiny.seg <<'MODEL'
param size = 32
param width = 8

model tiny {
    input  image : u8[3, size, size]
    target mask  : u8[1, size, size]
    x = relu(batch_norm(conv(image / 255, width, kernel = 3, padding = 1, bias = false)))
    y = relu(batch_norm(conv(max_pool(x, kernel = 2), 2*width, kernel = 3, padding = 1, bias = false)))
    x = conv(concat(x, conv_transpose(y, width, kernel = 2, stride = 2)), 1, kernel = 3, padding = 1)
    output probability = sigmoid(x)
    loss   binary_cross_entropy(probability, mask)
    metric dice(probability, mask)
}
MODEL
    "$segc" tiny.seg -o tiny.plan || echo "FAIL compiling tiny.seg"
}
# The tensors of a checkpoint without its header, whose metadata holds times.
tensors() {
    local length
    length=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
    tail -c +$((9 + length)) "$1"
}
same_tensors() { # same_tensors WHAT A B
    tensors "$2" >"$work/a.tensors"
    tensors "$3" >"$work/b.tensors"
    same "$1" "$work/a.tensors" "$work/b.tensors"
}
small_data() { "$segrun" data synth pets --count 24 --size 48 -q >/dev/null || echo "FAIL data synth"; }
