# Training as a person does it: epochs, what lies in the folder, resuming bit for bit, interrupting,
# being killed while saving. timeout: 240
. "$(dirname "$0")/common.sh"
small_model
small_data
recipe="--data pets -b 4 --lr 1e-3 --seed 5"

# shellcheck disable=SC2086
ok "train 3 epochs" "$segrun" train tiny.plan $recipe -e 3 -p whole
for file in tiny.last.safetensors tiny.best.safetensors log.csv loss.png command.txt; do
    check "the folder holds $file" test -s whole/$file
done
check "the folder holds the model's text" grep -lq "model tiny" whole/* -r
check "log.csv has a line an epoch" test "$(grep -c '^[0-9]' whole/log.csv)" = 3
check "no temporary file is left" test "$(find whole -name '*tmp*' | wc -l)" = 0

# shellcheck disable=SC2086
ok "the same again" "$segrun" train tiny.plan $recipe -e 3 -p again -q
same_tensors "the same seed gives the same bits" whole/tiny.last.safetensors again/tiny.last.safetensors
# shellcheck disable=SC2086
ok "with one thread" "$segrun" train tiny.plan $recipe -e 3 -p single -q --threads 1 --workers 1
same_tensors "as many threads as there are: the same bits" whole/tiny.last.safetensors single/tiny.last.safetensors

# shellcheck disable=SC2086
ok "train 1 epoch" "$segrun" train tiny.plan $recipe -e 1 -p parts -q
ok "go on to 3" "$segrun" train tiny.plan --data pets -e 3 -r parts/tiny.last.safetensors -p parts -q
same_tensors "a resumed run ends at the same bits" whole/tiny.last.safetensors parts/tiny.last.safetensors
same_tensors "and the same best" whole/tiny.best.safetensors parts/tiny.best.safetensors
cut -d, -f1-5 whole/log.csv >a.csv
cut -d, -f1-5 parts/log.csv >b.csv
same "and the same curves" a.csv b.csv

# interrupted NAME SIGNAL: starts a long training, sends the signal after its first epoch.
interrupted() {
    # shellcheck disable=SC2086
    setsid "$segrun" train tiny.plan $recipe -e 2000 -p "$1" >"$work/said" 2>&1 </dev/null &
    local pid=$! waited=0
    until [ -s "$1/tiny.last.safetensors" ] || [ $waited -gt 400 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    sleep 0.3
    kill "-$2" $pid
    wait $pid
    code=$?
}
for signal in INT TERM; do
    interrupted "stop-$signal" $signal
    check "SIG$signal: exit code 130" test $code = 130
    ok "SIG$signal: the checkpoint is readable" "$segrun" info "stop-$signal/tiny.last.safetensors"
done
cp -r stop-INT twice
epochs=$(($(grep -c '^[0-9]' stop-INT/log.csv) + 2))
ok "go on after Ctrl-C" "$segrun" train tiny.plan --data pets -e $epochs \
    -r stop-INT/tiny.last.safetensors -p stop-INT -q
# shellcheck disable=SC2086
ok "never stopped" "$segrun" train tiny.plan $recipe -e $epochs -p straight -q
same_tensors "Ctrl-C and going on: the same bits as never stopped" \
    stop-INT/tiny.last.safetensors straight/tiny.last.safetensors

# Killed as soon as a temporary file shows, several times: what lies there must be whole.
"$segc" "$root/models/unet.seg" -D width=16 -D size=32 -o unet.plan
whole=0 hit=0
for _ in 1 2 3 4 5; do
    setsid "$segrun" train unet.plan --data pets -b 8 -e 100 --limit 8 -p killed >"$work/said" 2>&1 </dev/null &
    pid=$!
    for ((i = 0; i < 20000; i++)); do
        names=$(echo killed/*)
        if [[ $names == *safetensors?* && $names =~ safetensors[^[:space:]]+ ]]; then
            hit=$((hit + 1))
            break
        fi
        [[ $names == *tmp* ]] && { hit=$((hit + 1)); break; }
    done
    kill -KILL $pid
    wait $pid 2>/dev/null
    for file in killed/unet.*.safetensors; do
        [ ! -e "$file" ] || "$segrun" info "$file" >"$work/said" 2>&1 || whole=1
    done
done
echo "     killed while saving $hit times of 5"
check "kill -9 while saving leaves no broken checkpoint" test $whole = 0
if [ -e killed/unet.last.safetensors ]; then
    ok "go on after kill -9" "$segrun" train unet.plan --data pets -e 1 -r killed/unet.last.safetensors -p killed -q
fi
finish
