# The page of a training run: what is on it, and folders that lie. sanitize: yes
. "$(dirname "$0")/common.sh"
small_model
small_data
"$segrun" train tiny.plan --data pets -b 4 -e 2 --lr 1e-3 -p run -q >/dev/null 2>&1

whole() { [ "$(tail -n 1 "$1")" = "</body></html>" ]; }
alone() { ! grep -qE 'https?:|src="[^d]|<script|<link|@import' "$1"; }
ok "a page of the folder alone" "$segrun" report run/ -o page.html
says "says what more there is" "data FOLDER"
check "it is whole" whole page.html
check "with nothing from elsewhere" alone page.html
for part in curves recipe commands files model log; do
    check "it has: $part" grep -q "id=\"$part\"" page.html
done
check "and no scores" bash -c '! grep -q "id=.scores" page.html'
ok "with a data set, whose plan is found" "$segrun" report run --data pets -o scored.html --count 2 -d cpu --tta flip
check "the split of training and the other" grep -q "<h3>valid split, .*tta flip</h3>" scored.html
check "are scored" grep -q "<h3>test split, 6 pictures" scored.html
check "with definitions" grep -q "|A and B| / |A or B| a picture" scored.html
check "best and worst pictures of both" test "$(grep -c 'src="data:image/png;base64,iVBOR' scored.html)" = 4
check "kernel times" grep -q 'id="kernels"' scored.html
check "with nothing from elsewhere" alone scored.html
"$segrun" eval tiny.plan -m run/tiny.best.safetensors --data pets --tta flip >eval.txt 2>/dev/null
check "its Dice is that of eval" grep -q "<td>Dice</td><td>$(awk '$1 == "Dice" {print $2; exit}' eval.txt)</td>" scored.html
sed -n 's/.*base64,\(iVBOR[^"]*\)".*/\1/p' scored.html | head -n 1 | base64 -d >sheet.png 2>/dev/null
check "a sheet is a PNG to its end" test "$(tail -c 8 sheet.png | head -c 4)" = IEND
ok "one split, no sheets, no times" "$segrun" report run --plan tiny.plan --data pets --split valid --count 0 --program none -o p.html
check "has neither" bash -c '! grep -qE "<img|id=.kernels" p.html'

cat >classes.seg <<'MODEL'
model classes {
    input  image : u8[3, 32, 32]
    target mask  : u8[1, 32, 32]
    output probability = softmax(conv(image / 255, 3, kernel = 3, padding = 1))
    loss   cross_entropy(probability, mask)
    metric dice(probability, mask)
}
MODEL
"$segc" classes.seg -o classes.plan >/dev/null
"$segrun" data synth shapes --classes 3 --count 24 --size 32 -q >/dev/null
"$segrun" train classes.plan --data shapes -b 4 -e 1 -p classes -q >/dev/null 2>&1
ok "a run with several classes" "$segrun" report classes --data shapes --count 1 -o classes.html -d cpu
check "has a line of scores for each" test "$(grep -cE '^ +(background|disc|cross) +[0-9.-]+ ' classes.html)" -ge 6

# What is not there, and what is wrong.
fails 1 "a folder that is not there" "$segrun" report nothing
fails 1 "a folder without a run" "$segrun" report pets
says "is said" "no run in this folder"
fails 3 "a page into no folder" "$segrun" report run -o no/page.html
mkdir away && cp -r run away/run
cd away || exit 3
fails 1 "a plan that is not there" "$segrun" report run --data ../pets
cd ..
mkdir bare && cp tiny.seg run/log.csv bare
ok "a run without checkpoints" "$segrun" report bare -o p.html
fails 1 "cannot be scored" "$segrun" report bare --data pets -o none.html
says "and says why" "bare: no best and no last checkpoint to score"
echo "model other {}" >run/tiny.seg
fails 1 "a plan of another text is not run" "$segrun" report run --data pets -o other.html
says "but asked for" "name the plan with --plan"
check "and no page is left" test ! -e other.html

hostile='<script>alert(1)</script>"&'
printf '%s\nsegrun \033[31m \0 red\n' "$hostile" >run/command.txt
echo "{\"$hostile\": [\"$hostile\", {\"a\": null}], \"batch\": -7}" | sed 's/>"&/>\\"\&/g' >run/recipe.json
cp run/tiny.last.safetensors "run/<img onerror=x>.safetensors"
ok "texts that are HTML" "$segrun" report run --plan tiny.plan --program none -o hostile.html
check "are shown as text" grep -q '&lt;script&gt;alert(1)&lt;/script&gt;&quot;&amp;' hostile.html
check "and nothing else" bash -c '! grep -qE "<script|<img" hostile.html'
check "without control characters" bash -c '! grep -qP "[\x00-\x08\x0b-\x1f]" hostile.html'
row=1e999,0,nan,0x1p-9,1,0,1e300,0
(head -n 1 run/log.csv; printf '%s\n' "1,$row" "999999999,$row" "3,1e20,1,100000000000000016384,1,0,0,0,0") >odd.csv
cp run/log.csv log.csv
cp odd.csv run/log.csv
ok "numbers that are none" "$segrun" report run -o odd.html
(head -n 1 log.csv; for i in $(seq 5000); do echo "$i,0.5,0.5,0.5,0.5,0,1,1,1e-3"; done) >run/log.csv
ok "a long log" "$segrun" report run -o long.html
check "is thinned out" grep -q "5000 epochs, one of 3 shown" long.html
for line in 'x' '1,2,3' '0,1,1,1,1,1,1,1,1' '1e99,1,1,1,1,1,1,1,1' '1.5,1,1,1,1,1,1,1,1' '1,1,nan,1,1,1,1,1,1' '1,1,1,1,2,1,1,1,1' '1,1,1,1,1,1,-5,1,1' '1,1,1,1,1,1,1,1,1,1'; do
    (head -n 1 log.csv; echo "$line") >run/log.csv
    fails 1 "a log with the line $line" "$segrun" report run -o bad.html
    says "says where" 'log.csv:2: expected 9 numbers'
done
: >run/log.csv
ok "an empty log" "$segrun" report run -o empty.html
rm run/log.csv
ok "no log: the curves of the last checkpoint" "$segrun" report run -o page.html
check "are drawn" grep -q 'id="curves"' page.html
head -c 300 run/tiny.last.safetensors >cut && mv cut run/tiny.last.safetensors
fails 1 "no log, and the checkpoint is cut" "$segrun" report run -o bad.html
cp log.csv run/log.csv
for text in '{' '[1]' '{"a": 1, "a": 2}' '{"a": 1e999}' ''; do
    echo "$text" >run/recipe.json
    fails 1 "a recipe.json that is $text" "$segrun" report run -o bad.html
    says "says so" 'recipe.json:'
done
mkfifo run/fifo.last.safetensors
rm run/recipe.json
mkdir run/recipe.json
fails 1 "a recipe that is a folder" "$segrun" report run -o bad.html
rmdir run/recipe.json
rm -f run/command.txt
mkfifo run/command.txt
fails 1 "a pipe is not waited for" "$segrun" report run -o bad.html
check "none of these left a page" test ! -e bad.html
finish
