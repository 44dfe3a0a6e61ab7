# Wrong input and a hostile environment: a clear line, the right exit code, nothing lost.
. "$(dirname "$0")/common.sh"
small_model
small_data
recipe="--data pets -b 4 -e 1"
# shellcheck disable=SC2086
ok "a first epoch" "$segrun" train tiny.plan $recipe -p good -q
cp good/tiny.last.safetensors kept

# the user's files
fails 1 "no such plan" "$segrun" train nothing.plan $recipe
says "is named" "nothing.plan"
fails 1 "a plan that is none" "$segrun" info tiny.seg
head -c 2000 tiny.plan >short.plan
fails 1 "a truncated plan" "$segrun" train short.plan $recipe -p p
says "is called so" "short.plan"
cp tiny.plan bent.plan
printf 'X' | dd of=bent.plan bs=1 seek=3000 conv=notrunc status=none
fails 1 "a damaged plan" "$segrun" train bent.plan $recipe -p p
says "is called so" "bent.plan"
fails 1 "no such data set" "$segrun" train tiny.plan --data nowhere -e 1 -p p
says "is named" "nowhere"
fails 2 "no data set at all" "$segrun" train tiny.plan -e 1 -p p
fails 1 "a batch larger than the set" "$segrun" train tiny.plan --data pets -e 1 -b 5000 -p p
says "says how large the set is" "[0-9]+ pictures"

head -c 3000 kept >short.safetensors
fails 1 "a truncated checkpoint" "$segrun" eval tiny.plan -m short.safetensors --data pets
fails 1 "and resuming from it" "$segrun" train tiny.plan --data pets -e 2 -r short.safetensors -p p
cp kept bent.safetensors
printf '\377\377\377\377\377' | dd of=bent.safetensors bs=1 seek=2 conv=notrunc status=none
fails 1 "a damaged header" "$segrun" info bent.safetensors
"$segc" tiny.seg -D width=12 -o wide.plan
fails 1 "a checkpoint of another model" "$segrun" eval wide.plan -m kept --data pets
says "which shapes differ" '\[8, *3, *3, *3\]|8x3x3x3'
sed 's/bias = false/bias = true/' tiny.seg >other.seg
"$segc" other.seg -o other.plan
fails 1 "a checkpoint with other names" "$segrun" eval other.plan -m kept --data pets
says "which names differ" "weight"
fails 1 "a folder in place of a checkpoint" "$segrun" eval tiny.plan -m good --data pets

# pictures and trimaps
cp -r pets bad
picture=$(find bad/images -name '*.jpg' | sort | head -n 1)
name=$(basename "$picture" .jpg)
head -c 300 "$picture" >cut && mv cut "$picture"
fails 1 "a broken picture stops" "$segrun" train tiny.plan --data bad -b 4 -e 1 -p p
says "is named" "$name"
ok "--on-bad skip goes on" "$segrun" train tiny.plan --data bad -b 4 -e 1 -p skipped --on-bad skip
says "and says so" "$name"
rm bad/annotations/trimaps/"$name".png
fails 1 "a missing trimap stops" "$segrun" train tiny.plan --data bad -b 4 -e 1 -p p
says "is named too" "$name"
fails 1 "data check finds it" "$segrun" data check bad
says "and names it" "$name"
fails 1 "predicting a picture that is none" "$segrun" predict tiny.plan -m kept tiny.seg -o out

# the environment
SEG_CC=/nonexistent SEG_CACHE=$work/empty-cache fails 3 "no C compiler" "$segrun" train tiny.plan $recipe -p p
says "is named" "/nonexistent"
says "with a hint" "^hint: "
printf 'not a folder' >file
fails 3 "a folder that cannot be made" "$segrun" train tiny.plan $recipe -p file/below
"$segc" tiny.seg -D size=512 -o large.plan
fails 3 "not enough memory" "$segrun" bench large.plan -b 65536
says "says how much is needed" "[0-9]+(\.[0-9]+)? [GT]iB"

# A limit on the size of files stands for a full disk: the old checkpoint survives.
cp -r good limited
limited() { (ulimit -f 8; "$segrun" train tiny.plan --data pets -e 2 -r limited/tiny.last.safetensors -p limited); }
limited >"$work/said" 2>&1
[ $? = 3 ]
result "files that cannot grow: exit code 3" $?
same "the last checkpoint survives" kept limited/tiny.last.safetensors

in_mount() { unshare -m bash -c "mount -t tmpfs -o $1 none '$work/mounted' && $2"; }
mkdir -p mounted
if in_mount size=1m true 2>/dev/null; then
    fill="cp kept mounted/tiny.last.safetensors; head -c 1048000 /dev/zero >mounted/fill 2>/dev/null"
    in_mount size=1m "$fill; '$segrun' train tiny.plan --data pets -e 2 -r mounted/tiny.last.safetensors -p mounted; \
        code=\$?; cmp kept mounted/tiny.last.safetensors && exit \$code" >"$work/said" 2>&1
    [ $? = 3 ]
    result "a full disk: exit code 3 and the old checkpoint survives" $?
    says "says what could not be written" "mounted"
    in_mount size=1m "mount -o remount,ro '$work/mounted'; '$segrun' train tiny.plan $recipe -p mounted" >"$work/said" 2>&1
    [ $? = 3 ]
    result "a read-only folder: exit code 3" $?
    says "says which" "mounted"
    ! grep -q 'epoch *1' "$work/said"
    result "before the first epoch" $?
else
    skip "a full disk, a read-only folder" "tmpfs cannot be mounted here"
fi

# the compiler's side
fails 1 "a model that does not exist" "$segc" nothing.seg -o p.plan
printf 'model x {\n    input a : f32[3,8,8]\n    output y = conv(a, 4)\n}\n' >wrong.seg
fails 1 "a missing attribute" "$segc" wrong.seg -o p.plan
says "with its place" "wrong.seg:3:[0-9]+: error: "
check "and no plan" test ! -e p.plan
fails 1 "a param that the model has not" "$segc" tiny.seg -D height=3 -o p.plan
fails 3 "a plan that cannot be written" "$segc" tiny.seg -o file/below.plan
fails 2 "no such target" "$segc" tiny.seg --target quantum -o p.plan
finish
