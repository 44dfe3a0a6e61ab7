# Pictures, folders and trees of them for predict: what is taken, what it is called. sanitize: yes
. "$(dirname "$0")/common.sh"
small_model
small_data
"$segrun" train tiny.plan --data pets -b 4 -e 1 --lr 1e-3 -p run -q >/dev/null 2>&1
weights=run/tiny.last.safetensors
mapfile -t pictures < <(find pets/images -name '*.jpg' | sort)
tree() { find "$1" -name '*.mask.png' -printf '%P\n' | sort | tr '\n' ' '; } # what was written
printf '#!/bin/sh\nexec "%s" predict tiny.plan -m %s -d cpu "$@"\n' "$segrun" $weights >predict
chmod +x predict

mkdir -p trip/day1/night trip/day2 trip/.cache trip/empty
cp "${pictures[0]}" trip/a.jpg
cp "${pictures[1]}" trip/day1/a.jpg
cp "${pictures[2]}" trip/day1/night/dark
cp "${pictures[3]}" trip/.hidden.jpg
cp "${pictures[3]}" trip/.cache/b.jpg
echo text >trip/day2/notes.txt
mkfifo trip/day2/pipe.jpg
ln -s .. trip/day1/night/up
ln -s "$PWD/trip" trip/day2/all
ln -s ../a.jpg trip/day2/link.jpg
ok "a tree" ./predict trip/ -o out
says "its speed" '4 pictures to out/ .*, [0-9.]+ images/s$'
says "what was passed over" 'passed over: 2 hidden, 2 no picture, 2 links to a folder'
check "the results have its folders" test "$(tree out)" = "a.mask.png day1/a.mask.png day1/night/dark.mask.png day2/link.mask.png "
check "and all three kinds" test "$(find out -name '*.png' | wc -l)" = 12
./predict trip/day1/a.jpg -o alone -q
same "as of the picture alone" alone/a.mask.png out/day1/a.mask.png
ok "into the tree itself" ./predict trip -o trip/out -q
ok "and once more: results are no pictures" ./predict trip -o trip/out
says "the same number" '^4 pictures'
rm -r trip/out

cp "${pictures[4]}" trip/a.jpeg
"$segrun" data synth drawn --count 4 --size 40 -q >/dev/null
cp drawn/annotations/trimaps/"$(ls drawn/annotations/trimaps | head -n 1)" trip/a.png
ok "equal names but for the ending" ./predict trip -o endings -q
check "keep it" test "$(tree endings)" = "a.jpeg.mask.png a.jpg.mask.png a.png.mask.png day1/a.mask.png day1/night/dark.mask.png day2/link.mask.png "
cp trip/a.jpg trip/a.jpg.jpg
ok "and with a name that has one already" ./predict trip -o again -q
check "all have names" test "$(find again -name '*.mask.png' | wc -l)" = 7
ok "equal names of two folders" ./predict trip/day1/a.jpg trip/a.jpg trip/day1/night -o two -q
check "get the folder's in front" test "$(tree two)" = "dark.mask.png day1_a.mask.png trip_a.mask.png "
mkdir -p x/cats/in y/cats/in
cp "${pictures[5]}" x/cats/in/c.jpg
cp "${pictures[6]}" y/cats/in/c.jpg
ok "folders of one name" ./predict x/cats y/cats -o numbered -q
check "get a number" test "$(tree numbered)" = "cats/in/c.jpg-2.mask.png cats/in/c.jpg.mask.png "
ok "a picture that is given three times" ./predict trip/day1/a.jpg trip/day1 ./trip/day1/../day1/a.jpg -o once -q
check "is predicted once" test "$(tree once)" = "a.mask.png night/dark.mask.png "
fails 1 "a tree without pictures" ./predict trip/empty -o none
says "says so" "trip/empty: no picture .* in this folder or below it"
mkdir loop && ln -s . loop/self && ln -s loop loop/again
fails 1 "a folder of links to itself" ./predict loop -o none
ln -s nowhere.jpg trip/gone.jpg
fails 1 "a link to a picture that is gone" ./predict trip -o none
says "is named" "trip/gone.jpg"
ok "or left out" ./predict trip -o skipped --on-bad skip
says "and counted" "; 1 left out"
rm trip/gone.jpg
deep=deep
for _ in $(seq 60); do deep=$deep/a-folder-with-a-name; done
mkdir -p $deep && cp "${pictures[0]}" $deep/p.jpg
ok "sixty folders deep" ./predict deep -o deeper -q
check "mirrored" test -s deeper${deep#deep}/p.mask.png
touch file
mkdir -p stop/file && cp "${pictures[0]}" stop/file/p.jpg
mkdir into && touch into/file
fails 3 "a file where a folder must be" ./predict stop -o into
finish
