#compdef segc segrun
# Completion in zsh, by that of bash.
autoload -U +X bashcompinit && bashcompinit
. "@FILE@"
