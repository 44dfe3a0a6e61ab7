#!/usr/bin/env bash
# What a change does to the emitted kernels: `make codediff AGAINST=REF` (default HEAD).
#
# Builds the compiler of another commit beside this one, lets both emit the sources of models/ and
# shows the difference: none after a refactoring. Exit code 1 where they differ.
set -eu
cd "$(dirname "$0")/.."
against=${1:-HEAD}
then=build-codediff
rm -rf "$then"
mkdir -p "$then/tree"
git archive "$against" | tar -x -C "$then/tree"
make -s -C "$then/tree" -j"$(nproc)" build/segc >"$then/build.log" 2>&1 || {
    tail -n 20 "$then/build.log"
    echo "error: the compiler of $against does not build" >&2
    exit 3
}
for model in models/*.seg; do
    name=$(basename "$model" .seg)
    "$then/tree/build/segc" "$model" -o "$then/plan" --emit-source "$then/before/$name"
    build/segc "$model" -o "$then/plan" --emit-source "$then/after/$name"
done
if diff -ru "$then/before" "$then/after"; then
    echo "the emitted sources of models/ are those of $against"
else
    exit 1
fi
