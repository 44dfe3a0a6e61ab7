# segc fmt: the one style of models.
# sanitize: yes
. "$(dirname "$0")/common.sh"

ok "the models are in the style" "$segc" fmt --check "$root"/models/*.seg
cat >untidy.seg <<'END'


# Comments   
use   "blocks.seg"
param a=3 # x
param long_name   =  -4*( 2 + 1 )   # y


block f(x,c = [1,2]) {

  if x>0 and not   c==-1 { return -x }
      else if c [ 0 ]<=2 {
   y = conv(x,
 channels,kernel=3,
      name="a{ i+1 }b"
   ) # trailing
     return y
  } else { }
    z = x +
  y *2
       + 3
    q = [
 [1,2],
 [3]
 ]

}
model m{
input image:u8[3,a,a]
target mask_of_it:u8 [1,a,a]
output p = sigmoid(x)
loss binary_cross_entropy(p,mask_of_it)
metric   d = dice(p,mask_of_it)
# end
}
END
cat >tidy.seg <<'END'
# Comments
use "blocks.seg"
param a         = 3           # x
param long_name = -4*(2 + 1)  # y

block f(x, c = [1, 2]) {
    if x > 0 and not c == -1 { return -x }
    else if c[0] <= 2 {
        y = conv(x,
            channels, kernel = 3,
            name = "a{ i+1 }b"
        )  # trailing
        return y
    } else {}
    z = x +
        y * 2
        + 3
    q = [
        [1, 2],
        [3]
    ]
}
model m {
    input  image      : u8[3, a, a]
    target mask_of_it : u8[1, a, a]
    output p = sigmoid(x)
    loss   binary_cross_entropy(p, mask_of_it)
    metric d = dice(p, mask_of_it)
    # end
}
END
fails 1 "--check of an untidy text" "$segc" fmt --check untidy.seg tidy.seg
check "names that file alone" test "$("$segc" fmt --check untidy.seg tidy.seg)" = untidy.seg
"$segc" fmt - <untidy.seg >out.seg 2>said
same "standard input to standard output" out.seg tidy.seg
chmod 640 untidy.seg
ok "in place" "$segc" fmt untidy.seg
same "as it should be" untidy.seg tidy.seg
check "permissions stay" test "$(stat -c %a untidy.seg)" = 640
ok "a tidy text stays" "$segc" fmt --check untidy.seg
stable() {
    local file
    for file in "$root"/tests/golden/[!e]*/*.seg; do
        "$segc" fmt - <"$file" >once.seg && "$segc" fmt - <once.seg >twice.seg \
            && cmp once.seg twice.seg || return 1
    done
}
check "formatting twice is formatting once" stable
printf 'model m {\n x = = 1\n}\n' >broken.seg
cp broken.seg before.seg
fails 1 "a broken text" "$segc" fmt broken.seg
says "its error" "broken.seg:2:6: error"
same "is left alone" broken.seg before.seg
printf 'a\000b' >binary.seg
fails 1 "no text at all" "$segc" fmt binary.seg
fails 3 "no file" "$segc" fmt missing.seg
fails 2 "no operand" "$segc" fmt
fails 2 "an unknown option" "$segc" fmt --fix tidy.seg
: >empty.seg
ok "an empty file" "$segc" fmt --check empty.seg
finish
