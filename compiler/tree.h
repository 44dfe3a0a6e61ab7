/* placeholder: the front end defines the tree the parser makes */
struct Tree;
