# The command lines themselves: help, versions, wrong options, and exit codes. sanitize: yes
. "$(dirname "$0")/common.sh"

ok "segrun --help" "$segrun" --help
says "it lists the commands" '^  train '
ok "segrun --version" "$segrun" --version
fails 2 "segrun alone" "$segrun"
fails 2 "an unknown command" "$segrun" learn
says "is named" "unknown command 'learn'"
for command in train eval predict report bench tune info "data check" "data synth"; do
    # shellcheck disable=SC2086
    ok "segrun $command --help" "$segrun" $command --help
    says "has usage, options and examples" 'Examples:'
    # shellcheck disable=SC2086
    ok "man page of $command" "$segrun" --man $command
    # shellcheck disable=SC2086
    fails 2 "segrun $command with an unknown option" "$segrun" $command --nonsense x
    says "says which" "unknown option '--nonsense'"
    says "gives a hint" '^hint: '
    # shellcheck disable=SC2086
    fails 2 "segrun $command without operands" "$segrun" $command
done
fails 2 "a number that is none" "$segrun" train x.plan --data pets -e many
says "says what was expected" "expected a whole number"
fails 2 "a number out of range" "$segrun" train x.plan --data pets -b 0
fails 2 "a word that is no choice" "$segrun" eval x.plan --data pets --split training
says "lists the choices" 'train\|valid\|test'
fails 2 "an option without its value" "$segrun" train x.plan --data
fails 2 "one operand too many" "$segrun" info a b

ok "segc --help" "$segc" --help
says "lists its options" '--no-fuse'
ok "segc --version" "$segc" --version
fails 2 "segc alone" "$segc"
fails 2 "segc with an unknown option" "$segc" --nonsense x.seg
fails 2 "a pass that does not exist" "$segc" --stop-after dream "$root/models/unet.seg"
fails 2 "a fusion that does not exist" "$segc" --no-fuse=concat,dream "$root/models/unet.seg"
says "lists those that do" "no fusion is called 'dream'; there are epilogue, prologue, statistics,"
ok "segc --help-ops" "$segc" --help-ops
"$segc" --help-ops >ops.md 2>/dev/null
contains() { [[ $(<"$1") == *"$(<"$2")"* ]]; }
check "docs/language.md is up to date with --help-ops" contains "$root/docs/language.md" ops.md
finish
