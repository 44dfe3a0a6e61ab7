# Completion of segc and segrun in bash: options and their choices come from each program's --help,
# so that they are those of the version installed. To try it: . docs/shell/completion.bash

_seg() {
    local program=$1 word=$2 before=$3 command='' help choices
    COMPREPLY=()
    if [ "${program##*/}" = segrun ]; then
        command=${COMP_WORDS[1]}
        [ "$command" = data ] && command="data-${COMP_WORDS[2]}"
        if [ "$COMP_CWORD" = 1 ] || { [ "$COMP_CWORD" = 2 ] && [ "${COMP_WORDS[1]}" = data ]; }; then
            local part=2
            [ "$COMP_CWORD" = 2 ] && part=3
            mapfile -t COMPREPLY < <(compgen -W "$("$program" --help 2>/dev/null |
                awk -v part=$part '/^Commands:/ {on = 1; next} /^$/ {on = 0}
                    on && part == 2 {print $1} on && part == 3 && $1 == "data" {print $2}')" -- "$word")
            return
        fi
    elif [ "$COMP_CWORD" = 1 ] && [ -n "$word" ] && [ "${word:0:1}" != - ]; then
        mapfile -t COMPREPLY < <(compgen -W fmt -- "$word")
    elif [ "${COMP_WORDS[1]}" = fmt ]; then
        command=fmt
    fi
    # shellcheck disable=SC2086
    help=$("$program" $command --help 2>/dev/null) || return
    # "--device auto|cpu|cuda": what may follow the option before.
    choices=$(awk -v option="$before" '{
        for (i = 1; i < NF; i++)
            if (($i == option || $i == option ",") && /^ +-/)
                for (k = i + 1; k <= NF && k <= i + 2; k++)
                    if ($k ~ /^[a-z0-9:N]+(\|[a-z0-9:N]+)+$/) {gsub(/\|/, " ", $k); print $k; exit}
    }' <<<"$help")
    if [ -n "$choices" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
    elif [ "${word:0:1}" = - ]; then
        mapfile -t COMPREPLY < <(compgen -W "$(awk '/^ +-/ {
            for (i = 1; i <= 2; i++) if ($i ~ /^--/) {sub(/[=\[,].*/, "", $i); print $i}
        }' <<<"$help")" -- "$word")
    fi
}
complete -o default -F _seg segc segrun
