# What bench and train show of themselves: traces, reports, pictures.
. "$(dirname "$0")/common.sh"
small_model
small_data

ok "train --trace" "$segrun" train tiny.plan --data pets -b 4 -e 2 -p run -q --trace train.json
for phase in "wait for pictures" upload step evaluate save; do
    check "the trace shows: $phase" grep -q "\"name\": \"$phase\"" train.json
done
check "and kernels with what they need" grep -q '"GFLOP/s": ' train.json
"$segrun" train tiny.plan --data pets -b 4 -e 2 -p again -q >/dev/null 2>&1
for folder in run again; do cut -d, -f1-5 $folder/log.csv >$folder/losses; done
same "a traced run learns the same" run/losses again/losses
fails 3 "a trace that cannot be written" "$segrun" train tiny.plan --data pets -b 4 -e 1 -p r3 -q --trace no/t.json
says "says which" "cannot write no/t.json"
check "but the run is saved" test -s r3/tiny.last.safetensors
finish
