#!/usr/bin/env bash
# `make demo`: the whole road in two to three minutes. Compiles a small U-Net, draws a pet-like data
# set, trains, scores the test split, and leaves demo/loss.png, demo/predictions.png and a page of the
# run, demo/report.html.
set -eu
cd "$(dirname "$0")/.."
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
started=$SECONDS

rm -rf demo
mkdir demo
say "1. Compile: the text of a U-Net to a plan (models/unet.seg, 8 channels at its first level)"
run build/segc models/unet.seg -D width=8 -D size=64 -o demo/unet.plan
say "2. Data: 400 pictures of pets and their trimaps, drawn by rule"
run build/segrun data synth demo/pets --count 400
say "3. Train: 15 epochs with Adam; the best by valid Dice is kept"
run build/segrun train demo/unet.plan --data demo/pets -e 15 -b 8 --lr 2e-3 -p demo/saved_models
say "4. Score the test split, and draw the sheet: picture, true mask, predicted mask"
run build/segrun eval demo/unet.plan -m demo/saved_models/unet.best.safetensors --data demo/pets \
    --plot y -o demo/predictions.png
cp demo/saved_models/loss.png demo/loss.png
say "5. One page of it all: curves, scores, best and worst pictures, kernel times"
run build/segrun report demo/saved_models --data demo/pets --plan demo/unet.plan -o demo/report.html
say "Done in $((SECONDS - started)) s. Look at demo/report.html, demo/predictions.png, demo/loss.png."
