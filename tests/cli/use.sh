# What one does with a trained network: eval, predict, info, bench, data check; and segc's reports.
. "$(dirname "$0")/common.sh"
small_model
small_data
"$segrun" train tiny.plan --data pets -b 4 -e 2 --lr 1e-3 -p run -q >/dev/null 2>&1
weights=run/tiny.best.safetensors

ok "eval" "$segrun" eval tiny.plan -m $weights --data pets --plot y -o sheet.png --csv scores.csv --json scores.json
says "the headline" "[Dd]ice"
check "the sheet is a PNG" test "$(head -c 4 sheet.png | tail -c 3)" = PNG
ok "eval of the worst" "$segrun" eval tiny.plan -m $weights --data pets --split train --plot worst --count 2 -o worst.png
check "the sheet of the worst is a PNG" test "$(head -c 4 worst.png | tail -c 3)" = PNG
check "a line of scores a picture, and a header" test "$(wc -l <scores.csv)" = 7
check "scores as JSON" grep -q '"' scores.json
ok "eval with mirror images" "$segrun" eval tiny.plan -m $weights --data pets --tta flip --csv flip.csv --json flip.json
says "says so" "threshold 0.5, tta flip"
check "in the CSV" bash -c "tail -n +2 flip.csv | grep -c ,flip$ | grep -qx 6"
check "in the JSON" grep -q "\"tta\": \"flip\"" flip.json
check "and scores differ from those without" bash -c "! diff <(sort scores.csv | sed s/,none//) <(sort flip.csv | sed s/,flip//)"
ok "eval of another split, in batches of one" "$segrun" eval tiny.plan -m $weights --data pets --split train -b 1
for batch in 2 5; do
    "$segrun" eval tiny.plan -m $weights --data pets -b $batch --csv scores-$batch.csv >/dev/null 2>&1
done
same "scores of pictures do not depend on the batch" scores-2.csv scores-5.csv

picture=$(find pets/images -name '*.jpg' | sort | head -n 1)
name=$(basename "$picture" .jpg)
ok "predict a picture and a folder" "$segrun" predict tiny.plan -m $weights "$picture" pets/images -o out
ok "predict with a mirror image" "$segrun" predict tiny.plan -m $weights "$picture" -o out-flip --tta flip --largest-component
differ() { ! cmp -s "$1" "$2"; }
check "which changes probabilities" differ "$(find out -name "*$name.probability.png" | head -n 1)" out-flip/$name.probability.png
fails 2 "no such tta" "$segrun" predict tiny.plan -m $weights "$picture" --tta spin
for kind in mask probability overlay; do
    check "$name.$kind.png is there" test -s "$(find out -name "*$name.$kind.png" | head -n 1)"
done
ok "info of a plan" "$segrun" info tiny.plan
says "its model" "tiny"
ok "info of a checkpoint" "$segrun" info $weights
says "its recipe" "1e-0?3|0\.001"
ok "info of a plan as JSON" "$segrun" info tiny.plan --json -
ok "bench" "$segrun" bench tiny.plan -b 2 --program train --runs 3 --profile
says "pictures a second" "images/s|pictures"
ok "bench of the loader" "$segrun" bench tiny.plan -b 4 --program data --data pets --runs 3
ok "data check" "$segrun" data check pets
mkdir -p mine/annotations
echo "Abyssinian_1 1 1 1" >mine/annotations/trainval.txt
fails 1 "data synth into a data set of other origin" "$segrun" data synth mine --count 8
check "what was refused changed nothing" test ! -e mine/images

ok "segc --summary" "$segc" tiny.seg --summary
says "totals" "[Pp]arameters"
ok "segc --explain" "$segc" tiny.seg --explain
ok "segc --check" "$segc" tiny.seg --check
ok "segc --dot" "$segc" tiny.seg --dot
says "a graph" "digraph"
mkdir dumps
ok "segc --dump" "$segc" tiny.seg -o t.plan --dump dumps
check "a file a pass" test "$(find dumps -name '*.ir' | wc -l)" -ge 6
ok "segc --emit-source" "$segc" tiny.seg -o t.plan --emit-source source
check "kernels to read" test "$(find source -name '*.c' | wc -l)" -ge 3
"$segc" tiny.seg -o a.plan
"$segc" tiny.seg -o b.plan
same "the same text gives the same plan" a.plan b.plan
ok "segc --no-fuse" "$segc" tiny.seg --no-fuse -o unfused.plan
ok "bench of two plans in turn" "$segrun" bench tiny.plan -d cpu -b 2 --runs 3 --steps --compare unfused.plan --json bench.json
says "their ratio" "times as long"
check "all numbers as JSON" grep -q '"timings": \[' bench.json
fails 1 "bench with a plan that is not there" "$segrun" bench tiny.plan -d cpu --compare nothing.plan --runs 3
printf 'model x {\n    output y = nothing\n}\n' >wrong.seg
fails 1 "--diagnostics=json" "$segc" wrong.seg --diagnostics=json -o p.plan
says "is JSON" '^[[{]'
ok "unet.seg has 31,037,633 parameters" "$segc" "$root/models/unet.seg" --summary
says "in its totals" "31,037,633|31037633"
finish
