#!/usr/bin/env bash
# Fuzzes every reader for a while (make fuzz; SECONDS_EACH=60): the targets of build-fuzz/fuzz_NAME,
# from seeds that the programs themselves make. What a run finds stays in build-fuzz/found/NAME/: the
# corpus, and crash-* where it found one; later runs go on from there. An input that takes more than
# 5 seconds is an error too. The last line is `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 3
build=build-fuzz found=build-fuzz/found
each=${SECONDS_EACH:-60}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1:detect_leaks=1}
work=$(mktemp -d) || exit 3
trap 'rm -rf "$work"' EXIT

# A GIF of 2x2 pixels: flags of the head, what stands before the frame, flags of the frame, its
# own colours.
gif() {
    printf 'GIF89a\2\0\2\0%b\0\0\0\0\0\377\377\377%b,\0\0\0\0\2\0\2\0%b%b\2\2\204Q\0;' "$1" "$2" "$3" "$4"
}

make_pictures() {
    local folder=$found/image/corpus colours='\1\2\3\4\5\6'
    $build/seeds pictures $folder || return
    gif '\0200' '' '\0' '' >$folder/plain.gif
    gif '\0200' '!\0371\4\1\0\0\1\0' '\0100' '' >$folder/interlaced.gif
    gif '\0200' '!\0376\3abc\0' '\0200' "$colours" >$folder/colours.gif
    cp "$work"/pets/images/*.jpg "$work"/pets/annotations/trimaps/*.png $folder/
}

make_models() {
    local folder=$found/seg/corpus file
    for file in models/*.seg tests/golden/{infer,errors,differentiate,fuse}/*.seg tests/onnx/*.seg; do
        cp "$file" "$folder/$(tr / _ <<<"$file")" || return
    done
}

# An export of a model to ONNX, with weights that are all 0.5.
make_onnx() {
    local name=$1
    shift
    build/segc "$@" --target host --precision fp32 -o "$work/$name.plan" >/dev/null &&
        $build/seeds weights "$work/$name.plan" "$work/$name.safetensors" &&
        build/segc "$@" --export "$found/onnx/corpus/$name.onnx" -m "$work/$name.safetensors" >/dev/null
}

# One small file of each kind and more.
make_seeds() {
    mkdir -p $found/{onnx,safetensors,plan,image,seg,config,list,run}/corpus
    cat >"$work/tiny.seg" <<'MODEL'
model tiny {
    input  image : u8[3, 8, 8]
    target mask  : u8[1, 8, 8]
    x = relu(batch_norm(conv(image / 255, 2, kernel = 3, padding = 1, name = "conv")))
    y = upsample(silu(max_pool(x, kernel = 2)), scale = 2, mode = bilinear) * sigmoid(linear(x, 2))
    output probability = sigmoid(conv(concat(x, y), 1, kernel = 1))
    loss   binary_cross_entropy(probability, mask)
    metric dice(probability, mask)
}
MODEL
    build/segc "$work/tiny.seg" --target host --precision fp32 -o "$work/tiny.plan" >/dev/null &&
        build/segc "$work/tiny.seg" --gemm cublas -o "$work/both.plan" >/dev/null &&
        $build/seeds plan "$work/tiny.plan" $found/plan/corpus/tiny.plan &&
        $build/seeds plan "$work/both.plan" $found/plan/corpus/both.plan || return
    build/segrun data synth "$work/pets" --count 8 --size 40 -q >/dev/null || return
    build/segrun train "$work/tiny.plan" --data "$work/pets" -e 1 -p "$work/run" -q --cache none \
        >/dev/null || return
    cp "$work"/run/*.safetensors $found/safetensors/corpus/
    make_onnx tiny "$work/tiny.seg" && make_onnx operators tests/onnx/operators.seg || return
    make_pictures && make_models || return
    cp "$work"/run/recipe.json $found/config/corpus/ || return
    printf '{"epochs": 3, "lr": 1e-3, "quiet": true, "schedule": "cosine", "batch": "auto", "seed": 7}' \
        >$found/config/corpus/options.json
    (printf 0 && cat "$work/run/log.csv") >$found/run/corpus/log &&
        (printf 1 && cat "$work/run/recipe.json") >$found/run/corpus/recipe &&
        (printf 2 && cat "$work/run/command.txt") >$found/run/corpus/command || return
    cp "$work"/pets/annotations/trainval.txt $found/list/corpus/ || return
    printf 'rotate=10@0.5,scale=0.2,crop=0.2,brightness=0.3,contrast=0.1,saturation=0.5@1' \
        >$found/list/corpus/augment
}

# The words of the texts that a target reads.
words() {
    case $1 in
    config) printf '"%s"\n' quiet data schedule batch seed lr config true false null cosine auto ;;
    run) printf '"%s"\n' 1e999 -1e300 nan inf 0x1p9 1e20 , '<' '&' true null '{' '[' ;;
    list) printf '"%s"\n' rotate= scale= crop= brightness= contrast= saturation= none @ '#' ;;
    safetensors) printf '"%s"\n' F16 BF16 F32 F64 I64 U8 BOOL dtype shape data_offsets __metadata__ \
        '\\u0041' '\\ud83d\\ude00' '\\\\' optimizer. num_batches_tracked conv.weight conv.bias ;;
    *) echo '"SEG"' ;; # libFuzzer takes no empty file
    esac
}

make_seeds || { echo "cannot make the seeds"; exit 3; }
passed=0 failed=0
for target in "$@"; do
    log=$found/$target/log
    words "$target" >"$work/words"
    "$build/fuzz_$target" -max_total_time="$each" -timeout=5 -rss_limit_mb=4096 -max_len=65536 \
        -close_fd_mask=3 -dict="$work/words" -artifact_prefix="$found/$target/" \
        -print_final_stats=1 "$found/$target/corpus" >"$log" 2>&1
    code=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$log")
    if [ $code = 0 ]; then
        passed=$((passed + 1))
        echo "ok   $target: $runs runs in $each s, $edges edges"
    else
        failed=$((failed + 1))
        echo "FAIL $target: see $log"
        grep -aE 'ERROR|runtime error|SUMMARY|bug' "$log" | head -n 4 | sed 's/^/     /'
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
