" Vim syntax of the model language (*.seg). Language: docs/language.md.
if exists("b:current_syntax")
  finish
endif

syntax keyword segStructure block model param use input target output loss metric
syntax keyword segStatement for in if else repeat return push pop
syntax keyword segOperator and or not
syntax keyword segBoolean true false
syntax match segNumber "\<\d\+\(\.\d\+\)\?\([eE][+-]\?\d\+\)\?\>"
syntax match segCall "\<\h\w*\ze("
syntax match segSign "[-+*/%<>=!]"
syntax match segType "\<\(u8\|f32\)\>\ze\["
syntax match segComment "#.*$" contains=@Spell
syntax region segString start=+"+ end=+"+ oneline contains=segExpression
syntax region segExpression start="{" end="}" contained oneline contains=segNumber,segSign,segCall

highlight default link segStructure Structure
highlight default link segStatement Statement
highlight default link segOperator Operator
highlight default link segBoolean Boolean
highlight default link segNumber Number
highlight default link segCall Function
highlight default link segSign Operator
highlight default link segType Type
highlight default link segComment Comment
highlight default link segString String
highlight default link segExpression Special

setlocal commentstring=#\ %s shiftwidth=4 expandtab
setlocal formatprg=segc\ fmt\ -
let b:current_syntax = "seg"
