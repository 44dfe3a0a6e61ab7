# Pictures with several classes, from drawn ones to coloured masks: data synth --classes, data check,
# train, eval, predict, trimaps as classes; and what is wrong with such masks.
. "$(dirname "$0")/common.sh"
export OMP_NUM_THREADS=1
cat >tiny.seg <<'MODEL'
param classes = 3
model tiny {
    input  image : u8[3, 32, 32]
    target mask  : u8[1, 32, 32]
    x = image / 255
    for d in [1, 2, 4] {
        x = relu(batch_norm(conv(x, 16, kernel = 3, padding = d, dilation = d, bias = false)))
    }
    output probability = softmax(conv(x, classes, kernel = 1))
    loss   cross_entropy(probability, mask)
    metric dice(probability, mask)
}
MODEL
"$segc" tiny.seg -o tiny.plan >/dev/null || echo "FAIL compiling tiny.seg"
"$segc" tiny.seg -D classes=2 -o two.plan >/dev/null

# Draw, look, train.
ok "draws" "$segrun" data synth shapes --classes 3 --count 60 --size 48 -q
ok "data check" "$segrun" data check shapes -q
says "counts the numbers" '2 cross +[0-9]+  0\.0[0-9]+'
says "and the pictures" '^60 pictures, 0 odd, 0 broken'
ok "trains" "$segrun" train tiny.plan --data shapes -b 4 -e 6 --lr 1e-2 -p runs
says "names the classes" 'background [0-9.]+ %, disc [0-9.]+ %, cross [0-9.]+ %'
ok "eval, with sheet and files" "$segrun" eval tiny.plan -m runs/tiny.last.safetensors --data shapes \
    --plot y -o sheet.png --csv scores.csv --json scores.json -q

# A class's Dice must be above that of calling everything it: 2 s / (1 + s).
better() {
    awk '/class +Dice/ { table = 1; next }
         table { n++; if ($2 <= 2 * $4 / (1 + $4)) worse++; all += $4; share[n] = $4 }
         END { exit !(n == 3 && !worse && all > 0.999 && all < 1.001) }' "$work/said"
}
cp said eval.txt
better
result "every class is found better than by guessing" $?
check "CSV has a column a class" grep -q '^name,dice,iou,background,disc,cross,tta$' scores.csv
check "and a line a picture" test "$(wc -l <scores.csv)" = 16
check "JSON has the classes" grep -q '"cross": {' scores.json
ok "eval --tta flip" "$segrun" eval tiny.plan -m runs/tiny.last.safetensors --data shapes --tta flip -q

# The run goes on bit for bit.
ok "half" "$segrun" train tiny.plan --data shapes -b 4 -e 3 --lr 1e-2 -p half -q
ok "the rest" "$segrun" train tiny.plan --data shapes -e 6 -r half/tiny.last.safetensors -q
check "its recipe is readable" grep -q '"outline": "foreground"' runs/recipe.json
same_tensors "gives the same weights" runs/tiny.last.safetensors half/tiny.last.safetensors

# Masks for pictures, which are masks to train on.
ok "predict" "$segrun" predict tiny.plan -m runs/tiny.best.safetensors shapes/images -o out \
    --tta flip --largest-component
says "says what the numbers are" '2 cross, #'
mkdir -p again/masks
cp -r shapes/images again
for mask in out/*.mask.png; do
    name=${mask##*/}
    cp "$mask" "again/masks/${name%.mask.png}.png"
done
ok "data check of the predictions" "$segrun" data check again -q
says "finds class numbers in them" '^ +1 +[0-9]+ +0\.[0-9]+'
ok "and training takes them" "$segrun" train tiny.plan --data again -b 4 -e 1 -p runs2 -q

# Out as ONNX and back.
ok "export" "$segc" tiny.seg --export tiny.onnx -m runs/tiny.last.safetensors
ok "import" "$segc" import tiny.onnx -o back.seg
"$segc" back.seg -o back.plan >/dev/null
ok "eval of the imported one" "$segrun" eval back.plan -m back.safetensors --data shapes --csv back.csv -q
same "the same scores of every picture" scores.csv back.csv

# What goes wrong.
fails 1 "fewer classes than names" "$segrun" train two.plan --data shapes -b 4 -e 1 -p bad
says "says both" 'classes.txt: 3 classes; the network has 2'
rm shapes/classes.txt
fails 1 "a number that is no class" "$segrun" train two.plan --data shapes -b 4 -e 1 -p bad
says "says which, where, what there is" 'masks/drawn_[0-9]+.png: number 2 at column [0-9]+, row [0-9]+; .* 2 classes are 0 to 1'
fails 2 "a threshold" "$segrun" eval tiny.plan -m runs/tiny.best.safetensors --data shapes --threshold 0.4
small_data
ok "two classes: pet and not" "$segrun" train two.plan --data pets -b 4 -e 1 -p runs3 -q
fails 1 "trimaps of two classes" "$segrun" train tiny.plan --data pets -b 4 -e 1 -p bad
says "says how there are three" 'hint: --outline class'
ok "trimaps of three" "$segrun" train tiny.plan --data pets --outline class -b 4 -e 1 -p pets3
says "have names" 'background [0-9.]+ %, pet [0-9.]+ %, outline [0-9.]+ %'
ok "goes on" "$segrun" train tiny.plan --data pets -e 2 -r pets3/tiny.last.safetensors -q
ok "info" "$segrun" info pets3/tiny.best.safetensors
says "says the rule" 'outline as a class'
ok "eval knows it" "$segrun" eval tiny.plan -m pets3/tiny.best.safetensors --data pets -q
says "and the names" '^  outline '
rm again/masks/drawn_0000.png
cp again/images/drawn_0001.jpg again/masks/drawn_0001.png
fails 1 "data check: broken files" "$segrun" data check again -q
says "a picture without a mask" 'drawn_0000: there is no mask'
says "a mask in colours" 'drawn_0001.png: a colour picture'
printf 'background\ncross\ncross\n' >again/classes.txt
fails 1 "a name twice" "$segrun" data check again -q
says "says whose" "classes.txt:3: 'cross' is the name of class 1 too"
printf 'background\ndis\351c\n' >again/classes.txt
fails 1 "a name in Latin-1" "$segrun" data check again -q
says "says where" 'classes.txt:2: a byte that is no part of a name'
finish
