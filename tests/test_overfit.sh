#!/usr/bin/env bash
# A small U-Net learns eight pictures by heart: train Dice over 0.98. Real pictures where they are
# (../shared/data/pets), else drawn ones. timeout: 200
. "$(dirname "$0")/cli/common.sh"
pets=$root/../shared/data/pets
if [ -e "$pets/annotations/trainval.txt" ]; then
    data=$pets
else
    skip "overfitting real pictures" "no ../shared/data/pets; drawn ones instead"
    "$segrun" data synth drawn --count 16 -q >/dev/null
    data=$work/drawn
fi
check "compiles" "$segc" "$root/models/unet.seg" -D width=8 -D size=64 -o unet.plan
ok "trains" "$segrun" train unet.plan --data "$data" --limit 8 --flip n -b 4 -e 120 --lr 3e-3 --seed 1 -p run -q
ok "is scored on what it learned" "$segrun" eval unet.plan -m run/unet.last.safetensors --data "$data" \
    --split train --limit 8 --json scores.json
dice=$(sed -n 's/.*"dice" *: *\([0-9.]*\).*/\1/p' scores.json | head -n 1)
echo "     train Dice $dice"
check "train Dice over 0.98" awk "BEGIN {exit !(${dice:-0} > 0.98)}"
finish
