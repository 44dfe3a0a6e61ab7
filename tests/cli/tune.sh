# Tuning on the cpu: plans that take one way each, what segrun tune writes, segc --tuned.
# sanitize: yes
. "$(dirname "$0")/common.sh"
small_model
plans=
for way in model direct winograd winograd_large; do
    "$segc" tiny.seg -D width=16 --target host --way $way -o $way.plan >/dev/null
    plans="$plans $way.plan"
done

# shellcheck disable=SC2086
ok "tune" "$segrun" tune $plans -d cpu -b 2 -n 2 -o tiny.tuned
says "names the programs" '^predict, batch 2'
check "every way was tried" grep -qE '^#   .*direct .* ms.*winograd .* ms.*winograd_large .* ms$' tiny.tuned
check "layers by name" grep -qE '^train host [a-z_]+ conv_grad_weight conv1 3->16 @32x32$' tiny.tuned || cat tiny.tuned
check "no convolution of another kind" bash -c '! grep -q transpose tiny.tuned'
ok "segc --tuned" "$segc" tiny.seg -D width=16 --target host --tuned tiny.tuned -o tuned.plan
check "says nothing but what it made" bash -c '! grep -q warning said'
"$segc" tiny.seg -D width=16 --target host --tuned tiny.tuned -o again.plan >/dev/null
same "gives the same plan twice" tuned.plan again.plan
ok "which says what it was made from" "$segrun" info tuned.plan
says "in its options" '--tuned tiny.tuned'
ok "and runs" "$segrun" bench tuned.plan -d cpu -b 2 -n 1 --compare direct.plan

# Every way is followed, layer by layer.
layer='conv conv1 3->16 @32x32'
for way in direct winograd winograd_large; do
    echo "train host $way $layer" >one.tuned
    "$segc" tiny.seg -D width=16 --target host --precision fp32 --tuned one.tuned --emit-source $way -o one.plan >/dev/null
    case $way in direct) kernel=conv_x ;; *) kernel=conv_${way}_x ;; esac
    check "the layer goes by $way" bash -c "ls $way | grep -q ^$kernel"
done

echo "train host winograd conv conv9 3->16 @32x32" >old.tuned
echo "train host line $layer" >>old.tuned
ok "layers that the model does not have" "$segc" tiny.seg -D width=16 --target host --tuned old.tuned -o x.plan
says "are a warning" 'old.tuned:1:1: warning: no line is for a layer of this model'
echo "train host direct conv conv2 16->32 @16x16" >>old.tuned
ok "some of them" "$segc" tiny.seg -D width=16 --target host --tuned old.tuned -o x.plan
says "are warnings with their places" 'old.tuned:1:21: warning: the model has no conv conv9'
says "as is a way that cannot be" "old.tuned:2:17: warning: conv conv1 .* cannot be computed by 'line'"
printf 'train host fast conv x\n' >bad.tuned
fails 1 "a way that there is not" "$segc" tiny.seg --tuned bad.tuned -o x.plan
says "says where" 'bad.tuned:1:12: error: expected a way \(direct, winograd, winograd_large, line\), got .fast'
printf 'predict\n\nhost\n' >bad.tuned
fails 1 "lines that end early" "$segc" tiny.seg --tuned bad.tuned -o x.plan
says "each is told" 'bad.tuned:3:1: error: expected a program'
head -c 3000 "$segrun" >bad.tuned
fails 1 "a file of something else" "$segc" tiny.seg --tuned bad.tuned -o x.plan
yes "train host direct $layer" | head -n 5000 >bad.tuned
printf '\0\0train host direct x\n' >zero.tuned
fails 1 "zero bytes" "$segc" tiny.seg --tuned zero.tuned -o x.plan
says "says so" 'zero.tuned:1:1: error: a zero byte'
fails 1 "too many lines" "$segc" tiny.seg --tuned bad.tuned -o x.plan
says "a layer twice" 'this layer has a way already'
fails 3 "no file" "$segc" tiny.seg --tuned none.tuned -o x.plan
fails 2 "no such way" "$segc" tiny.seg --way fast -o x.plan
fails 2 "one plan alone" "$segrun" tune model.plan -d cpu -o x.tuned
fails 2 "no file to write" "$segrun" tune model.plan direct.plan -d cpu
"$segc" tiny.seg -D width=8 --target host -o other.plan >/dev/null
fails 1 "plans of two networks" "$segrun" tune model.plan other.plan -d cpu -n 1 -o x.tuned
says "says which layer" 'other.plan: it has no conv '
fails 3 "where it cannot be written" "$segrun" tune model.plan direct.plan -d cpu -n 1 --program predict -o no/x.tuned
finish
