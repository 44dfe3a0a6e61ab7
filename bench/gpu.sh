#!/usr/bin/env bash
# Everything that needs a GPU, in one command of at most eight minutes: correctness, then times.
#
#   bench/gpu.sh --prepare [PETS]   on a machine that has all tools: fills bench/carry/
#   bench/gpu.sh                    on a machine with a GPU, where bench/carry/ was copied to
#       --only PART,...             of: ops nets training sanitizer times wgmma peers
#       --results FOLDER            instead of bench/results/
#       --seconds N                 for all together, instead of 470
#       --device cpu                without a GPU: builds, and rehearses times on the processor
#
# The machine with the GPU needs a driver, NVRTC (of a CUDA toolkit, or of PyTorch), a C compiler
# and make; compute-sanitizer, and Python with PyTorch, are used where they are there. flex, bison
# and all libraries but libc are not needed: bench/carry/ brings the generated sources, one header,
# and pictures of the data set PETS as bytes.
#
# Each part has a time limit and loses nothing of what others measured. The last lines are a table;
# all numbers go to RESULTS/gpu-DEVICE-DATE.json, what the parts printed to RESULTS/log/.
set -u
cd "$(dirname "$0")/.." || exit 3
carry=bench/carry
results=bench/results total=470 only='ops nets training sanitizer times wgmma peers' device=cuda

fail() {
    echo "gpu.sh: error: $1" >&2
    [ -z "${2:-}" ] || echo "hint: $2" >&2
    exit 3
}

# ---- on the machine that has all tools ---------------------------------------------------------

grammar_key() { cat grammar/seg.[ly] | cksum; }

commit_name() {
    local name
    name=$(git rev-parse HEAD 2>/dev/null) || return 1
    git diff --quiet HEAD 2>/dev/null || name="$name and changes"
    echo "$name"
}

prepare() {
    local pets=${1:-} header
    make --no-print-directory build/segc build/pictures || fail "the build failed"
    rm -rf "$carry"
    mkdir -p "$carry/grammar" "$carry/include"
    cp build/grammar/seg.tab.[ch] build/grammar/seg.lex.[ch] "$carry/grammar/"
    grammar_key >"$carry/grammar/of"
    # shellcheck disable=SC2046
    header=$(printf '#include <xxhash.h>\n' \
        | "${CC:-cc}" -E -x c - $(pkg-config --cflags libxxhash) \
        | sed -n 's/^# 1 "\(.*xxhash\.h\)".*/\1/p' | head -n 1)
    cp "$header" "$carry/include/" || fail "xxhash.h was not found"
    commit_name >"$carry/commit" || echo unknown >"$carry/commit"
    if [ -n "$pets" ]; then
        build/pictures "$pets" 256 16 "$carry/pets-256.u8" || fail "no pictures"
    else
        echo "no folder of pictures given: training will be compared on small drawn ones"
    fi
    echo "$(du -sh "$carry" | cut -f 1) in $carry/: copy it with the sources"
}

# ---- parts -------------------------------------------------------------------------------------

left() { echo $((total - SECONDS)); }

# The smaller of a part's limit and what is left.
limit() {
    local most
    most=$(left)
    echo $(($1 < most ? $1 : most < 1 ? 1 : most))
}

wanted() { [[ " $only " == *" $1 "* ]]; }

json_text() { printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"; }

parts=()
# add_part NAME STARTED PASSED FAILED SKIPPED NOTE
add_part() {
    local seconds=$((SECONDS - $2))
    printf '%-10s %5d passed, %d failed, %d skipped  (%d s)  %s\n' "$1" "$3" "$4" "$5" \
        "$seconds" "$6"
    parts+=("$(printf '{"name": "%s", "seconds": %d, "passed": %d, "failed": %d, "skipped": %d, ' \
        "$1" "$seconds" "$3" "$4" "$5")\"note\": $(json_text "$6")}")
    [ "$4" = 0 ] || bad=1
}

# logged LOG SECONDS COMMAND...: its output and, where it did not end by itself, a line of that
logged() {
    local file=$1 seconds=$2 code
    shift 2
    timeout -k 5 "$seconds" "$@" >"$file" 2>&1
    code=$?
    [ $code -le 1 ] || printf '\nstopped: exit code %d\n' $code >>"$file"
}

# Adds up the last counts of logs; one without a count, or that was stopped, is a failure.
count() {
    local file line p f s
    passed=0 failed=0 skipped=0
    for file; do
        line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$file" 2>/dev/null | tail -n 1)
        read -r p _ f _ s _ <<<"${line:-0 passed, 0 failed}"
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
        [ -n "$line" ] && ! grep -aq '^stopped: ' "$file" || failed=$((failed + 1))
    done
}

find_compiler() {
    local name
    for name in "${CC:-}" gcc cc clang; do
        [ -n "$name" ] && command -v "$name" && return
    done
    fail "there is no C compiler" "CC=... names one"
}

build() {
    local started=$SECONDS cc
    cc=$(find_compiler) || exit 3
    command -v make >/dev/null || fail "there is no make"
    mkdir -p build-lean/grammar
    if [ -d "$carry/grammar" ]; then
        [ "$(cat "$carry/grammar/of")" = "$(grammar_key)" ] \
            || fail "$carry/ was made from another grammar" "bench/gpu.sh --prepare again"
        cp -u "$carry"/grammar/seg.* build-lean/grammar/
        touch build-lean/grammar/seg.*
    elif ! command -v bison >/dev/null || ! command -v flex >/dev/null; then
        fail "there is no flex or no bison here, and no $carry/" \
            "run bench/gpu.sh --prepare where they are, and copy $carry/ here"
    fi
    make --no-print-directory -j"$(nproc)" LEAN=1 CC="$cc" WARNINGS=-w \
        CPPFLAGS="-D_GNU_SOURCE= -I$PWD/$carry/include" all tests >"$log/build.log" 2>&1 \
        || fail "the build failed: see $log/build.log" "$(tail -n 3 "$log/build.log")"
    add_part build "$started" 0 0 0 "$cc"
}

# Libraries of a toolkit, and those that come with PyTorch.
find_libraries() {
    local folder folders=(/usr/local/cuda/lib64 /usr/local/cuda-*/lib64)
    [ -z "$python" ] || mapfile -t -O "${#folders[@]}" folders < <("$python" -c 'import glob, site
for root in [*site.getsitepackages(), site.getusersitepackages()]:
    for folder in glob.glob(root + "/nvidia/*/lib"):
        print(folder)' 2>/dev/null)
    for folder in "${folders[@]}"; do
        [ ! -d "$folder" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
    done
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
}

# The device as segbench names it; the end where there is none.
find_device() {
    local said
    build-lean/segc models/unet.seg -D width=8 -D size=32 --target "host,cuda" \
        -o "$work/probe.plan" >/dev/null || fail "segc failed"
    said=$(build-lean/segbench "$work/probe.plan" -d "$device" -n 1 -T -P predict 2>&1) \
        || fail "no GPU that can be used: $(sed -n 's/^segbench: error: //p' <<<"$said")" \
            "--device cpu rehearses without one"
    device_name=$(grep -m 1 -E '^(cuda|cpu): ' <<<"$said")
    echo "$device_name"
    smi=$(nvidia-smi --format=csv,noheader \
        --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.draw,temperature.gpu \
        2>/dev/null | head -n 1)
    [ -z "$smi" ] || echo "nvidia-smi: $smi"
}

# ---- correctness -------------------------------------------------------------------------------

# All precisions at once, each in a few processes: compiling and the oracle need processors, not the
# GPU.
run_sharded() {
    local name=$1 started=$SECONDS seconds precision shard logs=() shards=$(($(nproc) / 3))
    seconds=$(limit "$2")
    shards=$((shards < 1 ? 1 : shards > 5 ? 5 : shards))
    for precision in fp32 tf32 bf16; do
        for ((shard = 0; shard < shards; shard++)); do
            logs+=("$log/$name-$precision-$shard.log")
            logged "${logs[-1]}" $((seconds + 10)) "build-lean/tests/gpu/test_gpu_$name" \
                "cuda-$precision" "$shard/$shards" "$seconds" &
        done
    done
    wait
    count "${logs[@]}"
    add_part "$name" "$started" "$passed" "$failed" "$skipped" "against float64"
}

run_training() {
    local started=$SECONDS arguments=()
    [ ! -s "$carry/pets-256.u8" ] || arguments=("$carry/pets-256.u8" 256 10 4)
    logged "$log/training.log" "$(limit 75)" build-lean/tests/gpu/test_gpu_training \
        "${arguments[@]}"
    count "$log/training.log"
    add_part training "$started" "$passed" "$failed" "$skipped" "losses and gradients as the host's"
}

# sanitize TOOL PRECISION NETWORK SECONDS
sanitize() {
    local name=$log/sanitizer-$1-$2-$3
    timeout -k 5 "$4" "$sanitizer" --tool "$1" --error-exitcode 9 build-lean/segbench \
        "$work/small-$3.plan" -d cuda -p "$2" -b 2 -n 1 -T -k >"$name.out" 2>&1
    case $? in
        0) echo "1 passed, 0 failed" ;;
        124 | 137) echo "0 passed, 0 failed, 1 skipped: no time" ;;
        *) echo "0 passed, 1 failed" ;;
    esac >"$name.log"
}

run_sanitizer() {
    local started=$SECONDS tool net precision seconds
    sanitizer=$(command -v compute-sanitizer \
        || find /usr/local/cuda*/bin/ -name compute-sanitizer 2>/dev/null | head -n 1)
    if [ -z "$sanitizer" ]; then
        add_part sanitizer "$started" 0 0 1 "there is no compute-sanitizer"
        return
    fi
    seconds=$(limit 75)
    for net in unet resnet34_unet; do
        build-lean/segc "models/$net.seg" -D size=32 --target cuda -o "$work/small-$net.plan" \
            >/dev/null
        for tool in memcheck racecheck; do
            for precision in fp32 tf32 bf16; do
                sanitize "$tool" "$precision" "$net" "$seconds" &
            done
        done
    done
    wait
    count "$log"/sanitizer-*.log
    add_part sanitizer "$started" "$passed" "$failed" "$skipped" "small training steps"
}

# ---- times -------------------------------------------------------------------------------------

measured=()
# measure NAME SEGBENCH-ARGUMENT...: a line to the screen and to $lines, the rest to NAME.json
measure() {
    local name=$1
    shift
    [ "$(left)" -gt 3 ] || return 1
    timeout -k 5 "$(limit 60)" build-lean/segbench "$@" -d "$device" -n "$timings" -k -1 \
        -j "$work/$name.json" >"$work/line" 2>"$log/times-$name.log" || return 1
    tee -a "$lines" <"$work/line"
    measured+=("$work/$name.json")
}

# compile NETWORK KIND SEGC-OPTION...
compile() {
    local net=$1 kind=$2
    shift 2
    # shellcheck disable=SC2086
    build-lean/segc "models/$net.seg" $small "$@" --target "$target" \
        -o "$work/$net-$kind.plan" >>"$log/segc.log" 2>&1 \
        || echo "times: no $kind plan of $net: see $log/segc.log"
}

# Kernels of all plans, several plans at once, when nothing is timed.
build_kernels() {
    local net precision program
    for net in $networks; do
        for precision in $precisions; do
            for program in train predict; do
                timeout "$(limit 90)" build-lean/segbench "$work/$net"-[123]-*.plan -d "$device" \
                    -p "$precision" -P $program -B >>"$log/kernels.log" 2>&1 &
            done
        done
    done
    wait
}

run_times() {
    local started=$SECONDS net precision program batch done=0 lost=0
    for net in $networks; do
        compile "$net" 1-fused
        compile "$net" 2-unfused --no-fuse
        [ "$target" = host ] || compile "$net" 3-gemm --gemm cublas
    done
    build_kernels
    echo "times: kernels of all plans built in $((SECONDS - started)) s"
    for precision in $precisions; do
        for net in $networks; do
            while read -r program batch; do
                if measure "$net-$precision-$program-$batch" "$work/$net"-[123]-*.plan \
                    -p "$precision" -P "$program" -b "$batch"; then
                    done=$((done + 1))
                else
                    lost=$((lost + 1))
                fi
            done < <(printf '%s\n' 'train 16' 'predict 16' 'train 2' 'predict 1' 'predict 2')
        done
    done
    add_part times "$started" "$done" "$lost" 0 "fused, then x unfused, x gemm"
}

# Launches by Hopper's wgmma are not in plans unless asked for: what tuning makes of them.
run_wgmma() {
    local started=$SECONDS net program done=0 lost=0
    if [ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)" \
        != 9.0 ]; then
        add_part wgmma "$started" 0 0 1 "no nvidia-smi, or not a GPU of 9.0"
        return
    fi
    for net in $networks; do
        compile "$net" wgmma --warp-groups --precision bf16
        for program in train predict; do
            if measure "wgmma-$net-$program" "$work/$net-1-fused.plan" "$work/$net-wgmma.plan" \
                -p bf16 -P $program -b 16; then
                done=$((done + 1))
            else
                lost=$((lost + 1))
            fi
        done
    done
    add_part wgmma "$started" "$done" "$lost" 0 "fused, then x the same with wgmma"
}

run_peers() {
    local started=$SECONDS seconds net
    seconds=$(($(left) - 15))
    if [ -z "$python" ] || [ $seconds -lt 20 ]; then
        add_part peers "$started" 0 0 1 "there is no Python, or no time left"
        return
    fi
    timeout -k 5 $((seconds + 10)) "$python" bench/peers/gpu.py --seconds "$seconds" \
        --json "$work/peers.json" 2>"$log/peers.log" | tee "$work/peers.txt"
    grep -E ' img/s' "$work/peers.txt" >>"$lines"
    for net in $networks; do # ours once more: what the machine did in between shows here
        [ ! -s "$work/$net-1-fused.plan" ] \
            || measure "again-$net" "$work/$net-1-fused.plan" -p bf16 -P train -b 16
    done
    add_part peers "$started" "$(grep -cE ' img/s' "$work/peers.txt")" 0 \
        "$(grep -c '^peers: skipped' "$work/peers.txt")" "$(head -n 1 "$work/peers.txt")"
}

# ---- results -----------------------------------------------------------------------------------

# joined FILE...: with commas between
joined() {
    local file comma=
    for file; do
        printf '%s' "$comma"
        cat "$file"
        comma=,
    done
}

write_json() {
    local cpu
    cpu=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
    printf '{"date": "%s", "commit": %s, "seconds": %d,\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(json_text "$commit")" $SECONDS
    printf ' "device": %s, "nvidia_smi": %s, "processor": %s,\n' "$(json_text "$device_name")" \
        "$(json_text "$smi")" "$(json_text "$cpu")"
    printf ' "parts": [\n%s],\n' "$(IFS=,; echo "${parts[*]}")"
    printf ' "times": [\n%s],\n' "$(joined "${measured[@]}")"
    printf ' "peers": %s}\n' "$(cat "$work/peers.json" 2>/dev/null || echo null)"
}

# ---- the command line --------------------------------------------------------------------------

while [ $# -gt 0 ]; do
    case $1 in
        --prepare) shift; prepare "$@"; exit ;;
        --results) results=$2; shift ;;
        --seconds) total=$2; shift ;;
        --only) only=${2//,/ }; shift ;;
        --device) device=$2; shift ;;
        --help | -h) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0"; exit ;;
        *)
            echo "gpu.sh: error: unknown option '$1'" >&2
            echo "hint: bench/gpu.sh --help" >&2
            exit 2
            ;;
    esac
    shift
done
networks='unet resnet34_unet' precisions='bf16 tf32 fp32' timings=20 small='' target=cuda bad=0
if [ "$device" = cpu ]; then
    networks=unet precisions=fp32 timings=3 small='-D width=8 -D size=64' target=host only=times
fi
mkdir -p "$results" || fail "cannot make $results"
results=$(cd "$results" && pwd) log=$results/log
rm -rf "$log"
mkdir -p "$log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SEG_CACHE=${SEG_CACHE:-$work/cache}
lines=$work/lines
: >"$lines"
commit=$(commit_name || cat "$carry/commit" 2>/dev/null || echo unknown)
python=$(command -v python3 || command -v python || true)
find_libraries
build
find_device
! wanted ops || run_sharded ops 80
! wanted nets || run_sharded nets 50
! wanted training || run_training
! wanted sanitizer || run_sanitizer
! wanted times || run_times
! wanted wgmma || run_wgmma
! wanted peers || run_peers
name=$(sed 's/^[a-z]*: //; s/,.*//; s/[^A-Za-z0-9]\+/-/g' <<<"$device_name")
file=$results/gpu-$name-$(date -u +%Y%m%d-%H%M%S).json
write_json >"$file"
echo
echo "$device_name; commit $commit; $SECONDS s; $file"
[ ! -s "$lines" ] || awk -f bench/table.awk "$lines"
exit $bad
