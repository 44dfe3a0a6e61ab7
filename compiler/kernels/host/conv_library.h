/* In front of a conv template that is compiled once for all rows: what stands in a kernel beside it
 * elsewhere, it calls by the pointers of a ConvCall here (conv_tiles.h). A row is some hundred
 * instructions and more, so the calls cost nothing that can be measured, but compiling a template
 * again with each kernel's rows takes several times as long as its rows do.
 */
#define read_x (((const ConvCall *)a)->read_x)
#define read_dy (((const ConvCall *)a)->read_dy)
#define write_y (((const ConvCall *)a)->write_y)
#define finish_y (((const ConvCall *)a)->finish_y)
#define ACCUMULATORS (((const ConvCall *)a)->accumulators)
#define DENSE_X (((const ConvCall *)a)->dense_x)
#define DENSE_Y (((const ConvCall *)a)->dense_y)
