/* What the scanner (grammar/seg.l) and the parser (grammar/seg.y) share while they read one text.
 */
#ifndef PARSER_H
#define PARSER_H

enum { MAX_NAME = 200, MAX_DEPTH = 200, MAX_ITEMS = 1000 };

typedef struct Parser {
    Compilation *compilation;
    Tree *tree;
    uint32_t position;       /* of the scanner, bytes */
    int line;                /* of the scanner, from 0 */
    bool in_string;          /* inside the {} of a string */
    int word, word_line;     /* the last word; lines from 0 */
    bool first_in_line;      /* the last word */
    int forgotten;           /* the bracket that the last word, a '}', closed too; or 0 */
    Loc forgotten_loc;
    bool unmatched;          /* the last word is a '}' too many */
    struct { Loc loc; int word; } open[MAX_DEPTH + 1]; /* brackets that wait for their other half */
    int n_open;
    int n_items;             /* of the file */
    bool stopped;            /* a limit was reached: the rest is not read */
    bool skipping;           /* after a syntax error: to the next line */
    int skip_braces;         /* opened while skipping */
} Parser;

#endif
