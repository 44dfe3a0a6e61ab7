# ONNX on the command line: a trained network goes out and comes back, and what goes wrong.
. "$(dirname "$0")/common.sh"
small_model
small_data
"$segrun" train tiny.plan --data pets -b 4 -e 2 --lr 1e-3 -p run -q >/dev/null 2>&1
weights=run/tiny.best.safetensors

ok "segc --export" "$segc" tiny.seg --export tiny.onnx -m $weights
says "the file" '^tiny\.onnx$'
check "the model's text is in it" grep -aq 'output probability = sigmoid' tiny.onnx
"$segc" tiny.seg --export again.onnx -m $weights >/dev/null
same "the same network gives the same file" tiny.onnx again.onnx
ok "segc import" "$segc" import tiny.onnx -o back.seg
says "the model and its weights" '^back\.safetensors: [0-9]+ tensors$'
ok "what was imported stands in the one style" "$segc" fmt --check back.seg
ok "and compiles" "$segc" back.seg -o back.plan
ok "segrun eval of the first" "$segrun" eval tiny.plan -m $weights --data pets --csv a.csv
ok "segrun eval of the imported one" "$segrun" eval back.plan -m back.safetensors --data pets --csv b.csv
same "the same scores of every picture" a.csv b.csv
picture=$(find pets/images -name '*.jpg' | sort | head -n 1)
"$segrun" predict tiny.plan -m $weights "$picture" -o out-a >/dev/null 2>&1
"$segrun" predict back.plan -m back.safetensors "$picture" -o out-b >/dev/null 2>&1
same "the same probabilities" out-a/*.probability.png out-b/*.probability.png
ok "the imported one can be trained" "$segrun" train back.plan --data pets -b 4 -e 1 -p run-back -q
ok "at another size, too" "$segc" back.seg -D size=48 --check

ok "segc import --help" "$segc" import --help
says "its options" '--float-input'
fails 2 "--export without weights" "$segc" tiny.seg --export x.onnx
fails 2 "-m without --export" "$segc" tiny.seg -m $weights
fails 1 "weights that are not there" "$segc" tiny.seg --export x.onnx -m nothing.safetensors
fails 1 "weights of another width" "$segc" tiny.seg -D width=4 --export x.onnx -m $weights
says "which" 'of another shape'
check "no file was written" test ! -e x.onnx
fails 3 "a folder that is not there" "$segc" tiny.seg --export nowhere/x.onnx -m $weights
fails 2 "import of nothing" "$segc" import
fails 2 "--size of letters" "$segc" import tiny.onnx --size large
fails 2 "--mean alone" "$segc" import tiny.onnx --mean 0.5
fails 1 "import of a file that is not there" "$segc" import nothing.onnx
fails 1 "import of a text" "$segc" import tiny.seg
says "what it is not" 'not an ONNX file'
fails 1 "another size than the file's" "$segc" import tiny.onnx --size 64
says "both" '32 pixels, and --size says 64'
head -c 2000 tiny.onnx >cut.onnx
fails 1 "a truncated file" "$segc" import cut.onnx -o cut.seg
check "nothing was written" test ! -e cut.seg
mkdir full && cp tiny.onnx full/ && chmod a-w full
if [ -w full ]; then skip "a folder that cannot be written" "this user may write everywhere"
else fails 3 "a folder that cannot be written" "$segc" import tiny.onnx -o full/x.seg; fi
finish
