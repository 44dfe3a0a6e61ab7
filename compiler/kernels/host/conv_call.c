/* A kernel of the conv family: its rows stand before this text, its loops are those of a template
 * that was compiled by itself, LIBRARY, with conv_library.h before it. A kernel writes through rows
 * (WRITES is 1) or, where it computes the gradient for weights, reads a second operand. Rows are
 * dense (DENSE_X, DENSE_Y) for templates alone that know of it.
 */
void LIBRARY(const KernelArguments *a);

void KERNEL(const KernelArguments *a)
{
#if WRITES
    const ConvCall call = {*a, read_x, NULL, write_y, finish_y, ACCUMULATORS, DENSE_X, DENSE_Y};
#else
    const ConvCall call = {*a, read_x, read_dy, NULL, NULL, 0, false, false};
#endif
    LIBRARY(&call.arguments);
}
