# Weights from one network to another: convert, train --init, segc --freeze.
# sanitize: yes
. "$(dirname "$0")/common.sh"
small_model
small_data
one=("$segrun" train tiny.plan --data pets -b 4 -e 1 --lr 0 -q)
"$segrun" train tiny.plan --data pets -b 4 -e 1 --lr 1e-2 -p run -q >/dev/null 2>&1
trained=run/tiny.last.safetensors

ok "convert, checked against the plan" "$segrun" convert $trained --plan tiny.plan -o plain.safetensors
says "counts what it leaves out" "left out: 20 of the optimiser"
ok "info of it" "$segrun" info plain.safetensors
says "knows weights alone" "0 of the optimiser"
check "no metadata of the run" sh -c '! head -c 2000 plain.safetensors | grep -q curves'
ok "converting twice" "$segrun" convert plain.safetensors -o twice.safetensors
same "changes nothing" plain.safetensors twice.safetensors
ok "a new run from it" "${one[@]}" -m plain.safetensors -p again
fails 1 "a run cannot go on from it" "${one[@]}" -r plain.safetensors -p again
says "and the message says what can" "--weights"

ok "renamed" "$segrun" convert plain.safetensors --rename conv1=encoder.conv1 -o renamed.safetensors
fails 1 "does not fit the plan" "$segrun" convert renamed.safetensors --plan tiny.plan -o x.safetensors
says "names what is missing" "missing: conv1.weight"
says "and what is unexpected" "unexpected: encoder.conv1"
check "and nothing is written" test ! -e x.safetensors
fails 1 "two names become one" "$segrun" convert plain.safetensors --rename conv1.weight=conv2.weight -o x.safetensors
fails 2 "--rename without =" "$segrun" convert plain.safetensors --rename conv1 -o x.safetensors
fails 2 "no output" "$segrun" convert plain.safetensors
fails 1 "not a file of weights" "$segrun" convert tiny.plan -o x.safetensors

ok "--init with all names" "${one[@]}" --init plain.safetensors -p init
ok "--init with some" "$segrun" train tiny.plan --data pets -b 4 -e 1 --lr 0 --init renamed.safetensors -p some
says "says what it took" "tensors taken"
says "what it skipped" "skipped: encoder.conv1"
says "and what stays" "not in it, as they were: conv1.weight"
fails 1 "--init where nothing fits" "${one[@]}" --init decoder=plain.safetensors -p x
says "shows names of both" "names like 'batch_norm1.bias', the model like 'conv1.weight'"
"$segc" tiny.seg -D width=16 -o wide.plan >/dev/null
fails 1 "--init of other shapes" "$segrun" train wide.plan --data pets -q --init plain.safetensors -p x
says "names them" "of another shape: conv1.weight"
fails 2 "--init and --weights" "${one[@]}" --init plain.safetensors -m plain.safetensors -p x

cat >outer.seg <<'MODEL'
param size = 32
block inner(x, width = 8) {
    x = relu(batch_norm(conv(x, width, kernel = 3, padding = 1, bias = false)))
    return conv(max_pool(x, kernel = 2), 2*width, kernel = 3, padding = 1, bias = false)
}
model outer {
    input  image : u8[3, size, size]
    target mask  : u8[1, size, size]
    x = relu(batch_norm(inner(image / 255, name = "encoder")))
    output probability = sigmoid(conv(conv_transpose(x, 8, kernel = 2, stride = 2), 1, kernel = 3, padding = 1))
    loss   binary_cross_entropy(probability, mask)
    metric dice(probability, mask)
}
MODEL
ok "a model with an encoder" "$segc" outer.seg -o outer.plan
ok "--init encoder=FILE" "$segrun" train outer.plan --data pets -b 4 -e 1 --lr 1e-2 --init encoder=plain.safetensors -p outer
says "takes the encoder's" "6 tensors taken"

# Frozen: as they were; the rest is trained.
ok "segc --freeze" "$segc" outer.seg --freeze 'encoder.*' -o frozen.plan
ok "training it" "$segrun" train frozen.plan --data pets -b 4 -e 2 --lr 1e-2 -m outer/outer.last.safetensors -p frozen -q
for run in outer frozen; do
    "$segrun" convert $run/outer.last.safetensors -o $run.encoder.safetensors --rename x=x -q
done
tensor() { # tensor FILE NAME: the bytes of one tensor
    "$segrun" info "$1" --json - >info.json || return 1
    local length begin end
    length=$(od -An -tu8 -N8 "$1")
    begin=$(head -c $((length + 8)) "$1" | grep -aoE "\"$2\":[^}]*" | grep -oE '[0-9]+,[0-9]+\]$' | tr -d ']')
    end=${begin#*,} begin=${begin%,*}
    tail -c +$((length + 9 + begin)) "$1" | head -c $((end - begin)) | od -An -tx1
}
equal() { [ -n "$(tensor outer.encoder.safetensors "$1")" ] &&
    [ "$(tensor outer.encoder.safetensors "$1")" = "$(tensor frozen.encoder.safetensors "$1")" ]; }
differ() { ! equal "$1"; }
check "a frozen weight stays" equal encoder.conv1.weight
check "so does that of its batch norm" equal encoder.batch_norm1.weight
check "whose running statistics go on" differ encoder.batch_norm1.running_mean
check "the others are trained" differ conv.weight
fails 1 "a pattern without a parameter" "$segc" outer.seg --freeze 'encoder.*,decoder.*' -o x.plan
says "is an error" "no parameter called 'decoder"
fails 1 "nothing left to train" "$segc" outer.seg --freeze '*' -o x.plan

# Pictures as a pretrained encoder wants them.
sed 's|inner(image / 255|inner(normalize(image / 255, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225])|' \
    outer.seg >pretrained.seg
ok "normalize" "$segc" pretrained.seg -o pretrained.plan
ok "trains" "$segrun" train pretrained.plan --data pets -b 4 -e 1 --init encoder=plain.safetensors -p pretrained
check "its numbers are in the checkpoint" sh -c 'head -c 20000 pretrained/outer.last.safetensors | grep -aq normalize1.scale'
sed 's|0.456, ||' pretrained.seg >broken.seg
fails 1 "a number too few" "$segc" broken.seg -o x.plan
says "is an error" "mean: expected a list of 3 numbers, one for each channel of x, got a list of 2"
sed 's|0.229|0|' pretrained.seg >broken.seg
fails 1 "a deviation of zero" "$segc" broken.seg -o x.plan
says "is one too" "std: cannot divide by 0"
finish
