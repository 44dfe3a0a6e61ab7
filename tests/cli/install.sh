# make install: the library, used by a stranger; man pages, completion, colours for editors.
# sanitize: no
. "$(dirname "$0")/common.sh"
small_model
small_data
"$segrun" train tiny.plan --data pets -b 4 -e 1 -p run -q >/dev/null 2>&1
weights=run/tiny.best.safetensors

ok "make install" make -C "$root" install DESTDIR="$work/root" PREFIX=/usr
export PKG_CONFIG_PATH=$work/root/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$work/root
flags=$(pkg-config --cflags --libs libsegrun)
# shellcheck disable=SC2086
ok "the example builds" ${CC:-cc} -O1 -Wall -Werror "$root/docs/examples/embed.c" -o embed $flags
export LD_LIBRARY_PATH=$work/root/usr/lib
picture() { # picture SIZE: a PPM
    printf 'P6\n%d %d\n255\n' "$1" "$1"
    head -c $(($1 * $1 * 3)) "$segrun"
}
side=32
picture "$side" >picture.ppm
"$work/embed" tiny.plan $weights picture.ppm >mask.pgm 2>said
result "it predicts" $?
check "a mask of the model's size" test "$(wc -c <mask.pgm)" = $((side * side + 9 + 2 * ${#side}))
fails 1 "weights of another network" ./embed tiny.plan "$root/README.md" picture.ppm
says "are an error" "README.md"
picture 8 >small.ppm
fails 1 "a picture of another size" ./embed tiny.plan $weights small.ppm
fails 1 "no plan" ./embed missing.plan $weights picture.ppm
says "is an error" "missing.plan"
check "the library gives nine functions" \
    test "$(nm -D --defined-only root/usr/lib/libsegrun.so.0 | grep -c ' T seg_')" = 9

check "a man page a command" test "$(find root/usr/share/man -size +0 -name '*.1' | wc -l)" = \
    $(($("$segrun" --help | sed -n '/^Commands/,/^$/s/^  //p' | wc -l) + 2))
complete_words() {
    # shellcheck disable=SC1091
    . root/usr/share/bash-completion/completions/segrun
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _seg "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
}
check "completion of a command" test "$(complete_words "$segrun" tra)" = train
check "of two words" test "$(complete_words "$segrun" data ch)" = check
check "of an option" test "$(complete_words "$segrun" data check --dat)" = ""
check "of an option that is there" test "$(complete_words "$segrun" train --bat)" = --batch
check "of a choice" test "$(complete_words "$segrun" train --device au)" = auto
check "of segc" test "$(complete_words "$segc" --prec)" = --precision

# The words of the scanner are those that editors colour.
words=$(sed -n 's/^"\([a-z]*\)" .*return.*/\1/p' "$root/grammar/seg.l")
coloured() { # coloured FILE: all words are in it
    local word
    for word in $words; do
        grep -qE "[ (|]$word([ )|]|$)" "$1" || { echo "$word is not in $1"; return 1; }
    done
}
check "vim knows all words" coloured "$root/docs/editors/vim/syntax/seg.vim"
check "VS Code too" coloured "$root/docs/editors/vscode/syntaxes/seg.tmLanguage.json"
finish
