# segc --export-c on the command line: a trained network as plain C, the example with it, and what
# goes wrong. tests/test_export_c.c compares the numbers.
# sanitize: yes
. "$(dirname "$0")/common.sh"
small_model
small_data
"$segrun" train tiny.plan --data pets -b 4 -e 2 --lr 1e-3 -p run -q >/dev/null 2>&1
sed 's/model tiny/model unet/' tiny.seg >unet.seg
weights=run/tiny.best.safetensors
cc=${CC:-cc}

ok "segc --export-c" "$segc" unet.seg --export-c some/where -m $weights
for file in c h weights; do says "names unet.$file" "^some/where/unet\.$file$"; done
check "all are there" test -s some/where/unet.c -a -s some/where/unet.h -a -s some/where/unet.weights
check "and no plan" test ! -e unet.plan
"$segc" unet.seg --export-c again -m $weights >/dev/null
check "the same network gives the same files" diff -r some/where again
ok "it is C17 without warnings" "$cc" -std=c17 -O1 -Wall -Wextra -Werror -Wno-psabi -c again/unet.c -o unet.o
check "with two functions" test "$(nm -g --defined-only unet.o | awk '{print $3}' | tr '\n' ' ')" = \
    "unet_open unet_predict "
check "and no memory of its own" test -z "$(nm unet.o | grep -E ' U .*(alloc|free|fopen|mmap)')"
echo '#include "unet.h"' >header.cc
if command -v "${CXX:-g++}" >/dev/null; then ok "the header is C++ too" "${CXX:-g++}" -fsyntax-only -Iagain header.cc
else skip "the header is C++ too" "no C++ compiler"; fi

ok "the example builds" "$cc" -O1 -Wall -Wextra -Werror -Wno-psabi -Iagain "$root/docs/examples/exported.c" unet.o -o exported -lm
picture() { # picture SIZE: a PPM
    printf 'P6\n%d %d\n255\n' "$1" "$1"
    head -c $(($1 * $1 * 3)) "$segrun"
}
picture 32 >picture.ppm
./exported again/unet.weights picture.ppm >mask.pgm 2>said
result "it predicts" $?
check "a mask of the model's size" test "$(wc -c <mask.pgm)" = $((32 * 32 + 13))
picture 16 >small.ppm
fails 1 "a picture of another size" ./exported again/unet.weights small.ppm
cp again/unet.weights damaged.weights
printf x | dd of=damaged.weights bs=1 seek=2000 conv=notrunc 2>/dev/null
fails 1 "damaged weights" ./exported damaged.weights picture.ppm
says "are told" 'damaged'
fails 1 "a file of another kind" ./exported "$segrun" picture.ppm
says "is told" 'no file of weights'

fails 2 "--export-c without weights" "$segc" unet.seg --export-c x
fails 1 "weights that are not there" "$segc" unet.seg --export-c x -m nothing.safetensors
fails 1 "weights of another width" "$segc" unet.seg -D width=4 --export-c x -m $weights
says "which" 'of another shape'
fails 1 "a model with errors" "$segc" "$weights" --export-c x -m $weights
check "no folder was made" test ! -e x
fails 3 "a folder that is a file" "$segc" unet.seg --export-c picture.ppm -m $weights
ok "and a plan, where it is asked for" "$segc" unet.seg --export-c x -m $weights -o both.plan
check "both are there" test -s both.plan -a -s x/unet.c
finish
