# Recipes: optimisers, schedules, clipping, accumulation, the average of the weights, when a run ends,
# --config; what a stopped run goes on with; wrong recipes.
. "$(dirname "$0")/common.sh"
small_model
small_data
export OMP_NUM_THREADS=1
# curve FOLDER FORMULA: sets off to the epochs e whose rate, that of the last of two steps, is not
# the formula's.
curve() {
    off=$(awk -F, "NR > 1 { e = \$1; want = $2; d = \$9 - want; if (d < 0) d = -d; if (d > 1e-6 * want) n++ }
                   END { print n + 0 }" "$1/log.csv")
}

cat >full.json <<'JSON'
{"data": "pets", "batch": 4, "lr": 0.002, "seed": 5, "epochs": 4, "optimizer": "adamw", "weight-decay": 0.01,
 "schedule": "cosine", "warmup": 1, "min-lr": 1e-5, "clip": 0.5, "accumulate": 2, "ema": 0.9,
 "augment": "rotate=10@0.5,scale=0.2,crop=0.2,brightness=0.2,contrast=0.2,saturation=0.3", "quiet": true}
JSON
ok "a recipe from a file" "$segrun" train tiny.plan --config full.json -p whole
ok "stopped at once by --max-time" "$segrun" train tiny.plan --config full.json -p parts --max-time 0.001s
says "says how to go on" 'the time is over.*saved'
ok "goes on for an epoch or so" "$segrun" train tiny.plan --data pets -r parts/tiny.last.safetensors --max-time 0.1 -q
ok "and to the end" "$segrun" train tiny.plan --data pets -r parts/tiny.last.safetensors -q
same_tensors "every part of a recipe goes on bit for bit" whole/tiny.last.safetensors parts/tiny.last.safetensors
same_tensors "with the same best" whole/tiny.best.safetensors parts/tiny.best.safetensors
curve whole 'e == 1 ? 2e-3 : 1e-5 + (2e-3 - 1e-5) * (1 + cos(3.14159265358979 * (e - 1.5) / 3)) / 2'
check "cosine, behind an epoch of warm-up" test "$off" = 0
cp whole/recipe.json again.json
ok "recipe.json repeats the run" "$segrun" train tiny.plan --data pets --config again.json -p again -q
same_tensors "bit for bit" whole/tiny.last.safetensors again/tiny.last.safetensors
ok "info" "$segrun" info whole/tiny.last.safetensors
says "info shows the recipe" 'optimizer adamw'
ok "the average is what eval reads" "$segrun" eval tiny.plan -m whole/tiny.best.safetensors --data pets --split valid -q
best=$(awk -F, '$6 == 1 {d = $5} END {printf "%.4f", d}' whole/log.csv)
says "and scores as training did" "$best"

for choice in "--optimizer sgd --lr 0.05" "--optimizer nesterov --lr 0.05 --weight-decay 1e-4"; do
    # shellcheck disable=SC2086
    ok "train $choice" "$segrun" train tiny.plan --data pets -b 8 -e 2 -p "run-$passed" -q $choice
done
ok "train --schedule poly" "$segrun" train tiny.plan --data pets -b 8 -e 3 --lr 1e-3 --schedule poly --power 2 -p poly -q
curve poly '1e-3 * (1 - (e - 0.5) / 3) ^ 2'
check "poly" test "$off" = 0
ok "train --schedule plateau" "$segrun" train tiny.plan --data pets -b 8 -e 3 --lr 1e-12 --schedule plateau \
    --plateau 1 --factor 0.1 -p plateau -q
curve plateau 'e < 3 ? 1e-12 : 1e-13'
check "plateau" test "$off" = 0
ok "patience and --save-every" "$segrun" train tiny.plan --data pets -b 8 -e 40 --lr 0 --patience 2 --save-every 2 -p end
says "says why it ended" 'no better valid Dice for 2 epochs'
check "after three epochs" test "$(grep -c '^[0-9]' end/log.csv)" = 3
check "every second epoch is kept" test -s end/tiny.epoch-0002.safetensors

ok "--batch auto" "$segrun" train tiny.plan --data pets -b auto -e 1 -p auto
says "an eighth of the pictures at most" 'batch 2,'
ok "augmented with another number of threads" "$segrun" train tiny.plan --config full.json -p one --workers 1
same_tensors "the same pictures" whole/tiny.last.safetensors one/tiny.last.safetensors
ok "preview" "$segrun" data preview pets --augment rotate=20,crop=0.3@0.5 --count 2 --size 32 -o sheet.png -q
check "a sheet" test -s sheet.png
for wrong in rotate spin=3 rotate=400 crop=-0.1 rotate=10@2 "rotate=10,,"; do
    fails 2 "--augment $wrong" "$segrun" data preview pets --augment "$wrong"
done
says "says what is there" 'brightness contrast saturation'

fails 2 "an unknown schedule" "$segrun" train tiny.plan --data pets --schedule linear
says "names the schedules" 'constant\|cosine\|poly\|plateau'
fails 2 "a negative rate" "$segrun" train tiny.plan --data pets --lr -1
fails 2 "a floor above the rate" "$segrun" train tiny.plan --data pets --lr 1e-3 --min-lr 1
fails 2 "no time" "$segrun" train tiny.plan --data pets --max-time soon
says "says what a time is" '1h30m'
echo '{"lr": 1e-3, "shedule": "cosine"}' >typo.json
fails 2 "an unknown key" "$segrun" train tiny.plan --data pets --config typo.json
says "names it" 'typo.json: "shedule"'
echo '{"lr": -3}' >range.json
fails 2 "a value out of range" "$segrun" train tiny.plan --data pets --config range.json
says "names the file" 'range.json'
echo '{"lr": [1]}' >list.json
fails 2 "a value of the wrong kind" "$segrun" train tiny.plan --data pets --config list.json
echo '{"lr": 1' >cut.json
fails 2 "broken JSON" "$segrun" train tiny.plan --data pets --config cut.json
says "with its line" 'cut.json:2:'
fails 2 "no such file" "$segrun" train tiny.plan --data pets --config none.json
finish
