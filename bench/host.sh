#!/usr/bin/env bash
# bench/host.sh [--fusions]: times the networks on this machine's processors, fused against unfused.
#
# Every network, program and batch is one run of `segrun bench --compare`: both plans in turn, with
# the machine's ceiling before, between and after. The last lines are a table; all numbers go to
# bench/results/host-DATE.json. If bench/peers/run.sh has measured here, its newest file's times
# stand beside (bench/table.c says how).
#
#   --fusions    at batch 2, with each single fusion of segc --no-fuse=... off, against all
#
# What is timed can be changed by the environment:
#   BENCH_NETWORKS="unet resnet34_unet"   BENCH_PROGRAMS="predict train"   BENCH_BATCHES="1 2 16"
#   BENCH_RUNS=5    timings of each plan (0: three seconds a plan)
#   BENCH_QUIET="CMD"    put before each timing, such as "taskset -c 0,1"
set -euo pipefail
cd "$(dirname "$0")/.."
fusions=0
case ${1:-} in
'') ;;
--fusions) fusions=1 ;;
*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | head -n -1; exit 2 ;;
esac
networks=${BENCH_NETWORKS:-unet resnet34_unet}
programs=${BENCH_PROGRAMS:-predict train}
batches=${BENCH_BATCHES:-1 2 16}
runs=${BENCH_RUNS:-5}
variants=''
if [ $fusions = 1 ]; then
    batches=${BENCH_BATCHES:-2}
    variants='epilogue prologue statistics sums concat'
fi
work=build/bench
result=bench/results/host-$(date -u +%Y%m%dT%H%M%SZ).json
mkdir -p $work bench/results
failed=0

# compile NETWORK PLAN OPTION...
compile() {
    local model=models/$1.seg plan=$2
    shift 2
    build/segc "$model" --target host "$@" -o "$plan" >/dev/null
}

# measure NETWORK PROGRAM BATCH OTHER.plan: its JSON, in $work/rows
measure() {
    local row=$work/row.json
    echo "bench: $1 $2 $3 against $(basename "$4" .plan)" >&2
    # shellcheck disable=SC2086
    if ${BENCH_QUIET:-} build/segrun bench "$work/$1.plan" --compare "$4" -d cpu --program "$2" \
        -b "$3" -n "$runs" --json $row -q >$work/log 2>&1; then
        [ ! -s $work/rows ] || echo , >>$work/rows
        cat $row >>$work/rows
    else
        echo "bench: left out: $(grep -m 1 error: $work/log)" >&2
        failed=1
    fi
}

: >$work/rows
for network in $networks; do
    compile "$network" "$work/$network.plan"
    compile "$network" "$work/$network-unfused.plan" --no-fuse
    for fusion in $variants; do
        compile "$network" "$work/$network-no-$fusion.plan" "--no-fuse=$fusion"
    done
    for program in $programs; do
        for batch in $batches; do
            measure "$network" "$program" "$batch" "$work/$network-unfused.plan"
            for fusion in $variants; do
                measure "$network" "$program" "$batch" "$work/$network-no-$fusion.plan"
            done
        done
    done
done

cpu=$(sed -n 's/^model name[[:space:]]*: *//p' /proc/cpuinfo | head -n 1 | tr -d '"\\')
commit=$(git rev-parse --short HEAD 2>/dev/null || true)
{
    printf '{"date": "%s", "cpu": "%s", "processors": %d, "commit": "%s", "runs": [\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$cpu" "$(nproc)" "$commit"
    cat $work/rows
    printf ']}\n'
} >"$result.tmp"
mv "$result.tmp" "$result"
peers=$(find bench/results -name 'peers-*.json' | sort | tail -n 1)
build/benchtable "$result" ${peers:+"$peers"}
echo "all numbers: $result${peers:+; peers: $peers}"
exit $failed
