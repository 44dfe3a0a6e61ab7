# Pictures of one's own: images/ and masks/ with the same names, splits by the names or by lists, and
# what is wrong with such folders.
. "$(dirname "$0")/common.sh"
small_model
small_data
export OMP_NUM_THREADS=1
ok "masks to begin with" "$segrun" train tiny.plan --data pets -b 8 -e 1 -p first -q
ok "as pictures" "$segrun" predict tiny.plan -m first/tiny.best.safetensors pets/images -o out -q
mkdir -p own/images own/masks
cp pets/images/* own/images
for mask in out/*.mask.png; do
    name=${mask##*/}
    cp "$mask" "own/masks/${name%.mask.png}.png"
done
ok "train on images/ and masks/" "$segrun" train tiny.plan --data own -b 4 -e 2 --lr 1e-2 -p runs
says "splits by the names" '[0-9]+ train, [0-9]+ valid'
ok "eval, with a sheet" "$segrun" eval tiny.plan -m runs/tiny.best.safetensors --data own --plot y -q
names=$(ls own/masks | sed 's/\.png//')
echo "$names" | head -n 12 >own/train.txt
echo "$names" | tail -n 4 >own/valid.txt
ok "splits by lists" "$segrun" train tiny.plan --data own -b 4 -e 1 -p runs2
says "takes the lists" '12 train, 4 valid'
echo nowhere >>own/valid.txt
fails 1 "a listed name without files" "$segrun" train tiny.plan --data own -b 4 -e 1 -p runs3
says "names the file" 'own/images/nowhere'
rm own/train.txt own/valid.txt
first=$(echo "$names" | head -n 1)
mv "own/masks/$first.png" kept.png
fails 1 "a picture without a mask" "$segrun" train tiny.plan --data own -b 4 -e 1 -p runs3
says "names it" "the picture $first has no mask"
echo "$names" >own/train.txt
echo "$names" | tail -n 4 >own/valid.txt
"$segrun" data synth large --count 4 --size 200 -q
cp "$(ls large/annotations/trimaps/*.png | head -n 1)" "own/masks/$first.png"
fails 1 "a mask of another size" "$segrun" train tiny.plan --data own -b 4 -e 1 -p runs3
says "says both" "masks/$first.png: the mask is 200 x 200"
cp "own/images/$first.jpg" "own/masks/$first.png"
fails 1 "a mask in colours" "$segrun" train tiny.plan --data own -b 4 -e 1 -p runs3
finish
