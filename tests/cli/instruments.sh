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
"$segc" tiny.seg --no-fuse -o unfused.plan >/dev/null
ok "bench with all it can show" "$segrun" bench tiny.plan -d cpu -b 2 -n 3 --compare unfused.plan \
    --trace bench.json --report report.html --plot plots
says "without the tables that were not asked for" 'times as long'
check "the trace has the graph's lines" grep -q '"graph": "%[0-9]* = ' bench.json
check "and both plans" grep -q '"pid": 2' bench.json
check "the page is whole" grep -q '</html>' report.html
check "and shows graphs" grep -q 'class="graph"' report.html
check "with nothing from elsewhere" bash -c '! grep -qE "https?:|src=|<script|<link|@import" report.html'
check "four pictures" test "$(find plots -name '*.png' -size +1k | wc -l)" = 4
ok "of the program predict too" "$segrun" bench tiny.plan -d cpu -b 1 -n 1 --program predict --report p.html
touch file
fails 3 "pictures into a file" "$segrun" bench tiny.plan -d cpu -b 2 -n 1 --plot file
says "says so" 'a file has that name'
fails 3 "a report into no folder" "$segrun" bench tiny.plan -d cpu -b 2 -n 1 --report no/report.html

"$segrun" bench tiny.plan -d cpu -b 2 -n 3 --compare unfused.plan --json row.json >/dev/null 2>&1
"$segc" tiny.seg --no-fuse=sums,concat -o some.plan >/dev/null
"$segrun" bench tiny.plan -d cpu -b 2 -n 3 --compare some.plan --json row2.json >/dev/null 2>&1
(echo '{"cpu": "C", "processors": 2, "date": "D", "commit": "X", "runs": ['; cat row.json; echo ,
    cat row2.json; echo ']}') >host.json
row='"network": "tiny", "program": "train", "batch": 2, "precision": "fp32"'
cat >peers.json <<END
{"rows": [{$row, "who": "slow", "seconds": [9, 9, 9]}, {$row, "who": "ours", "seconds": [1, 2, 4]},
          {$row, "who": "quick", "seconds": [2, 5, 8]}, {$row, "who": "lost", "error": "no"}]}
END
ok "the table of make bench" "$build/benchtable" host.json peers.json
says "has a row, with the fastest peer" '^\| tiny train 2 \| all \| .*\([0-9.]+-[0-9.]+\).* 2\.00 quick \|$'
says "names what was off" '^\| tiny train 2 \| sums,concat \|'
echo '{"runs": [{"plans": 7}, 3, {"plans": [], "ceilings": {}}]}' >odd.json
ok "a table of odd numbers" "$build/benchtable" odd.json odd.json
echo '{"runs": [' >broken.json
fails 1 "a table of a broken file" "$build/benchtable" broken.json
says "says where" 'broken.json:[12]:'
finish
