#!/usr/bin/env bash
# Fuzzes every reader for a while (make fuzz; SECONDS_EACH=60): the targets of build-fuzz/fuzz_NAME,
# from seeds that the programs themselves make. What a run finds stays in build-fuzz/NAME/: the
# corpus, and crash-* where it found one. The last line is `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 3
build=build-fuzz
each=${SECONDS_EACH:-60}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1:detect_leaks=1}
work=$(mktemp -d) || exit 3
trap 'rm -rf "$work"' EXIT

# One small file of each kind and more.
make_seeds() {
    local name
    mkdir -p $build/{onnx,safetensors,plan,image,seg}/corpus
    cp models/*.seg tests/golden/infer/*.seg tests/golden/errors/*.seg tests/onnx/*.seg $build/seg/corpus/
    cat >"$work/tiny.seg" <<'MODEL'
model tiny {
    input  image : u8[3, 8, 8]
    target mask  : u8[1, 8, 8]
    x = relu(batch_norm(conv(image / 255, 2, kernel = 3, padding = 1)))
    y = upsample(silu(max_pool(x, kernel = 2)), scale = 2, mode = bilinear) * sigmoid(linear(x, 2))
    output probability = sigmoid(conv(concat(x, y), 1, kernel = 1))
    loss   binary_cross_entropy(probability, mask)
    metric dice(probability, mask)
}
MODEL
    build/segc "$work/tiny.seg" --target host -o $build/plan/corpus/tiny.plan >/dev/null || return
    build/segrun data synth "$work/pets" --count 8 --size 40 -q >/dev/null || return
    build/segrun train $build/plan/corpus/tiny.plan --data "$work/pets" -e 1 -p "$work/run" -q \
        --cache none >/dev/null || return
    cp "$work"/run/*.safetensors $build/safetensors/corpus/
    for name in "$work"/run/*.best.safetensors; do
        build/segc "$work/tiny.seg" --export $build/onnx/corpus/tiny.onnx -m "$name" >/dev/null || return
    done
    cp "$work"/pets/images/*.jpg "$work"/pets/annotations/trimaps/*.png "$work"/run/*.png \
        $build/image/corpus/ 2>/dev/null
    printf 'GIF89a\2\0\2\0\200\0\0\377\377\377\0\0\0,\0\0\0\0\2\0\2\0\0\2\2\204Q\0;' \
        >$build/image/corpus/small.gif
}

make_seeds || { echo "cannot make the seeds"; exit 3; }
passed=0 failed=0
for target in "$@"; do
    log=$build/$target/log
    "$build/fuzz_$target" -max_total_time="$each" -timeout=20 -rss_limit_mb=4096 -max_len=65536 \
        -artifact_prefix="$build/$target/" -print_final_stats=1 "$build/$target/corpus" >"$log" 2>&1
    code=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ $code = 0 ]; then
        passed=$((passed + 1))
        echo "ok   $target: $runs runs in $each s"
    else
        failed=$((failed + 1))
        echo "FAIL $target: see $log"
        grep -aE 'ERROR|runtime error|SUMMARY' "$log" | head -n 4 | sed 's/^/     /'
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
