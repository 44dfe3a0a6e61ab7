/* The table of odd models: see fusion_cases.h. A case is the body of a model. Activations are smooth,
 * so that float and double cannot take different sides.
 */
#include "fusion_cases.h"

#define TOLERANCE 3e-6
#define NORM_TOLERANCE 2e-5
#define LOSS(y, t) "loss loss_" t " = binary_cross_entropy(sigmoid(" y "), " t ")\n"
#define OUT(y) "output out_" y " = " y "\n"
#define IN(name, dims) "input " name " : f32[" dims "]\n"
#define TARGET(name, dims) "target " name " : f32[" dims "]\n"

const FusionCase fusion_cases[] = {
    {"residual adds in all orders", 2, NORM_TOLERANCE, false,
     IN("x", "16, 9, 7") TARGET("t", "16, 9, 7")
     "a = silu(batch_norm(conv(x, 16, kernel = 3, padding = 1, bias = false)))\n"
     "b = x + batch_norm(conv(a, 16, kernel = 3, padding = 1))\n"
     "c = batch_norm(conv(b, 16, kernel = 1)) + b\n"
     "d = (a + conv(c, 16, kernel = 1)) + (conv(b, 16, kernel = 3, padding = 1) + c)\n"
     "e = silu(x + (silu(d + a) + conv(d, 16, kernel = 1)))\n"
     OUT("e") LOSS("e", "t")},
    {"an output that is read on", 3, TOLERANCE, false,
     IN("x", "20, 6, 5") TARGET("t", "20, 6, 5")
     "a = silu(conv(x, 20, kernel = 3, padding = 1))\n"
     OUT("a")
     "b = gelu(a) + a\n"
     OUT("b")
     "c = conv(b, 20, kernel = 1) * b\n"
     OUT("c") LOSS("c", "t") },
    {"output is an input", 2, TOLERANCE, false,
     IN("x", "3, 4, 5") "input z : u8[3, 4, 5]\n" TARGET("t", "3, 4, 5")
     "output same = x + 0\noutput bytes = z * 1\noutput shifted = 2 * z - x\n" LOSS("x", "t")},
    {"two outputs of one value", 2, TOLERANCE, false,
     IN("x", "9, 4, 5") TARGET("t", "9, 4, 5")
     "y = silu(conv(x, 9, kernel = 3, padding = 1))\n"
     "output first = y\noutput second = y\noutput third = sigmoid(y)\n" LOSS("y", "t")},
    {"concat of concats", 2, TOLERANCE, false,
     IN("x", "16, 5, 6") IN("z", "32, 5, 6") IN("v", "7, 5, 6") TARGET("t", "9, 5, 6")
     "a = concat(silu(x), z)\n"
     "b = concat(a, concat(conv(x, 16, kernel = 1), a))\n"
     "c = concat(b, concat(v, gelu(v)))\n"
     "y = conv(c, 9, kernel = 3, padding = 1)\n"
     OUT("c") OUT("y") LOSS("y", "t")},
    {"dense connections", 2, NORM_TOLERANCE, false,
     IN("x", "16, 5, 4") TARGET("t", "3, 5, 4")
     "repeat 20 { x = concat(x, silu(conv(x, 16, kernel = 1))) }\n"
     "y = conv(x, 3, kernel = 1)\n" OUT("y") LOSS("y", "t")},
    {"unaligned concat", 2, TOLERANCE, false,
     IN("x", "5, 5, 6") IN("z", "17, 5, 6") IN("v", "16, 5, 6") TARGET("t", "6, 5, 6")
     "a = concat(silu(x), z, v)\n"
     "y = conv(a, 6, kernel = 3, padding = 1) + conv(concat(v, x, z * z), 6, kernel = 1)\n"
     OUT("a") OUT("y") LOSS("y", "t")},
    {"many operands", 2, TOLERANCE, false,
     IN("x", "5, 3, 4") IN("v", "16, 3, 4") TARGET("t", "100, 3, 4") TARGET("s", "336, 3, 4")
     "y = concat(x, x, x, x, x, x, x, x, x, silu(x), x, x, x, x, x, x, x, x, x, gelu(x))\n"
     "w = concat(v, v, v, v, v, v, v, v, silu(v), v, v, v, v, v, v, v, v, v, v, v, gelu(v))\n"
     OUT("y") OUT("w") LOSS("y", "t") LOSS("w", "s")},
    {"gates of maps and channels", 2, TOLERANCE, false,
     IN("x", "20, 6, 5") TARGET("t", "20, 6, 5")
     "c = sigmoid(linear(global_avg_pool(x), 20))\n"
     "s = sigmoid(conv(channel_mean(x), 1, kernel = 3, padding = 1))\n"
     "g = c * s\n"
     "y = x * c * s + (c + s) * (x - g) + g\n" OUT("y") LOSS("y", "t")},
    {"gates alone, many times", 2, TOLERANCE, false,
     IN("x", "24, 6, 5") IN("c", "24, 1, 1") IN("s", "1, 6, 5") TARGET("t", "24, 6, 5")
     "g = 0.2 * c + 0.2 * s\n"
     "repeat 40 { g = 0.9 * g + 0.1 * g * g }\n"
     "y = x + g\n" OUT("y") LOSS("y", "t")},
    {"shared linear layers", 3, TOLERANCE, false,
     IN("x", "6, 1, 1") TARGET("t", "10, 1, 1")
     "a, b, c = linear([global_avg_pool(x), global_max_pool(x), x * x * channel_mean(x)], 10)\n"
     "y = a * b + silu(c)\n" OUT("y") LOSS("y", "t")},
    {"shared layers of one channel", 3, TOLERANCE, false,
     IN("x", "6, 1, 1") IN("z", "6, 1, 1") TARGET("t", "1, 1, 1")
     "a, b = linear([x, z], 1)\n"
     "c, d = linear([a, b], 1)\n"
     "y = c * d + a\n" OUT("y") LOSS("y", "t")},
    {"shared convolutions", 2, TOLERANCE, false,
     IN("x", "12, 6, 5") IN("z", "12, 6, 5") TARGET("t", "17, 6, 5")
     "a, b, c = conv([x, z, x + z], 17, kernel = 3, padding = 1)\n"
     "y = silu(a) * b + c\n" OUT("y") LOSS("y", "t")},
    {"dropout with several readers", 2, TOLERANCE, false,
     IN("x", "20, 6, 5") TARGET("t", "20, 6, 5")
     "d = dropout(silu(x), rate = 0.4)\n"
     "e = dropout(global_avg_pool(x), rate = 0.3)\n"
     "y = conv(d, 20, kernel = 3, padding = 1) + d * channel_mean(d) + d * e + e\n"
     OUT("y") LOSS("y", "t")},
    {"dropout of one pixel and through concat", 2, TOLERANCE, false,
     IN("x", "32, 5, 4") TARGET("t", "48, 5, 4")
     "a = dropout(conv(x, 16, kernel = 1), rate = 0.2)\n"
     "b = dropout(concat(a, dropout(x, rate = 0.5)), rate = 0.1)\n"
     OUT("b") LOSS("b", "t")},
    {"several losses", 2, TOLERANCE, false,
     IN("x", "3, 8, 7") TARGET("t", "1, 8, 7") "target m : u8[1, 8, 7]\n" TARGET("u", "1, 8, 7")
     "z = conv(silu(conv(x, 12, kernel = 3, padding = 1)), 1, kernel = 1)\n"
     "p = sigmoid(z)\n"
     "output p = p\n"
     "loss a = 0.5 * binary_cross_entropy(p, t) + dice_loss(p, m)\n"
     "loss b = 2 * binary_cross_entropy(p * p, m)\n"
     "loss c = dice_loss(sigmoid(z + p), u)\n"
     "metric d = dice(p, m)\n"
     "metric e = dice(sigmoid(z + p), m, threshold = 0.6)\n"},
    {"a probability used elsewhere", 2, TOLERANCE, false,
     IN("x", "10, 6, 7") TARGET("t", "1, 6, 7") TARGET("u", "10, 6, 7")
     "p = sigmoid(conv(x, 1, kernel = 3, padding = 1))\n"
     "y = conv(x * p + p, 10, kernel = 1) + x\n"
     OUT("p") OUT("y") "loss first = binary_cross_entropy(p, t)\n" LOSS("y", "u")},
    {"batch norm on the input, a concat, a pad", 3, NORM_TOLERANCE, false,
     IN("x", "16, 5, 6") IN("z", "16, 5, 6") IN("big", "3, 8, 9") TARGET("t", "48, 8, 9")
     "a = batch_norm(x)\n"
     "b = batch_norm(concat(conv(x, 16, kernel = 1), silu(z), a))\n"
     "y = batch_norm(pad(b, big)) + channel_mean(big)\n" OUT("y") LOSS("y", "t")},
    {"batch norm on an unaligned concat", 2, NORM_TOLERANCE, false,
     IN("x", "5, 5, 6") IN("z", "12, 5, 6") TARGET("t", "22, 5, 6")
     "y = silu(batch_norm(concat(conv(x, 5, kernel = 1), z, silu(x))))\n" OUT("y") LOSS("y", "t")},
    {"batch norm on one concat twice", 2, NORM_TOLERANCE, true,
     IN("x", "16, 5, 6") IN("z", "16, 5, 6") TARGET("t", "32, 5, 6")
     "c = concat(conv(x, 16, kernel = 1), conv(z, 16, kernel = 1))\n"
     "y = batch_norm(c) * silu(batch_norm(silu(c))) + c\n" OUT("y") LOSS("y", "t")},
    {"batch norm of few channels", 4, NORM_TOLERANCE, false,
     IN("x", "3, 6, 5") TARGET("t", "1, 6, 5")
     "a = silu(batch_norm(conv(x, 7, kernel = 3, padding = 1)))\n"
     "b = silu(batch_norm(conv(a, 17, kernel = 3, padding = 1, bias = false)) + channel_mean(a))\n"
     "y = batch_norm(conv(b, 1, kernel = 1)) + batch_norm(channel_mean(x))\n"
     OUT("y") LOSS("y", "t")},
    {"batch norm of one value many ways", 2, NORM_TOLERANCE, false,
     IN("x", "17, 6, 5") TARGET("t", "17, 6, 5")
     "a = conv(x, 17, kernel = 3, padding = 1)\n"
     "y = batch_norm(a) + silu(batch_norm(a + x)) + batch_norm(silu(a)) * a + batch_norm(x)\n"
     OUT("y") LOSS("y", "t")},
    {"batch norm on a map of one pixel", 5, 1e-4, false,
     IN("x", "18, 6, 5") TARGET("t", "18, 1, 1")
     "y = batch_norm(linear(silu(batch_norm(global_avg_pool(x))), 18))\n" OUT("y") LOSS("y", "t")},
    {"transposed convolutions", 2, NORM_TOLERANCE, false,
     IN("x", "12, 3, 4") TARGET("t", "5, 13, 17")
     "a = silu(batch_norm(conv_transpose(x, 16, kernel = 2, stride = 2)))\n"
     "b = conv_transpose(a + a * a, 20, kernel = 3, stride = 2, padding = 1)\n"
     "y = conv_transpose(silu(b), 5, kernel = 3, stride = 1, dilation = 1)\n"
     OUT("y") LOSS("y", "t")},
    {"upsample and concat", 2, TOLERANCE, false,
     IN("x", "16, 6, 8") TARGET("t", "4, 6, 8")
     "d = silu(conv(max_pool(x, kernel = 2), 16, kernel = 3, padding = 1))\n"
     "y = conv(concat(upsample(d), x, upsample(avg_pool(x, kernel = 2), mode = bilinear)), 4,"
     " kernel = 3, padding = 1)\n" OUT("y") LOSS("y", "t")},
    {"maps of one pixel", 3, TOLERANCE, false,
     IN("x", "20, 1, 1") IN("z", "3, 1, 1") TARGET("t", "20, 1, 1")
     "a = conv(x, 20, kernel = 3, padding = 1) + conv(z, 1, kernel = 1) * x\n"
     "y = a + global_avg_pool(a) * channel_mean(a) - softmax(a) + upsample(max_pool(a, kernel = 1),"
     " scale = 1)\n" OUT("y") LOSS("y", "t")},
    {"one channel everywhere", 2, NORM_TOLERANCE, false,
     IN("x", "1, 7, 6") TARGET("t", "1, 7, 6")
     "a = silu(batch_norm(conv(x, 1, kernel = 3, padding = 1)))\n"
     "b = a * sigmoid(linear(global_avg_pool(a), 1)) + channel_max(a) * channel_mean(x)\n"
     "c = conv_transpose(max_pool(pad(b, b), kernel = 2), 1, kernel = 2, stride = 2)\n"
     "y = pad(c, x) + b\n" OUT("y") LOSS("y", "t")},
    {"rows and columns", 2, TOLERANCE, false,
     IN("x", "11, 1, 9") IN("z", "11, 8, 1") TARGET("t", "11, 1, 9") TARGET("u", "11, 8, 1")
     "a = conv(x, 11, kernel = 3, padding = 1) * global_avg_pool(x) + x * channel_mean(x)\n"
     "b = conv(z, 11, kernel = 3, padding = 1) * global_max_pool(z * z) + global_avg_pool(a) * z\n"
     OUT("a") OUT("b") LOSS("a", "t") LOSS("b", "u")},
    {"big kernels", 1, TOLERANCE, false,
     IN("x", "3, 12, 10") TARGET("t", "18, 12, 10")
     "a = conv(x, 18, kernel = 11, padding = 5)\n"
     "y = conv(silu(a), 18, kernel = 9, padding = 8, dilation = 2, groups = 18)\n"
     OUT("y") LOSS("y", "t")},
    {"softmax around", 1, TOLERANCE, false,
     IN("x", "19, 4, 5") TARGET("t", "19, 4, 5")
     "s = softmax(conv(silu(x), 19, kernel = 1) + x)\n"
     "y = s * x + silu(s) + softmax(s * 3)\n" OUT("y") LOSS("y", "t")},
    {"chances to work in place", 2, TOLERANCE, false,
     IN("x", "16, 7, 6") TARGET("t", "16, 7, 6")
     "a = conv(x, 16, kernel = 1)\n"
     "b = softmax(a) + max_pool(a, kernel = 3, stride = 1, padding = 1)\n"
     "c = sigmoid(b) * channel_mean(b) + global_avg_pool(b)\n"
     "d = conv(c, 16, kernel = 3, padding = 1) + c\n"
     "e = silu(d) + sigmoid(d) * global_avg_pool(d)\n"
     "y = e - sigmoid(e) * channel_mean(e * e)\n" OUT("y") LOSS("y", "t")},
    {"a value read by many", 2, NORM_TOLERANCE, false,
     IN("x", "16, 8, 6") TARGET("t", "16, 8, 6")
     "a = silu(conv(x, 16, kernel = 3, padding = 1))\n"
     "b = a + conv(a, 16, kernel = 1) + a * global_avg_pool(a) + batch_norm(a)\n"
     "c = upsample(max_pool(a * a, kernel = 2)) + conv(concat(a, x, a, b), 16, kernel = 1)\n"
     "d = sigmoid(c + gelu(a)) * a - channel_mean(a)\n"
     "y = softmax(a) + d + pad(crop(a, max_pool(a, kernel = 2)), a) + b\n"
     OUT("y") LOSS("y", "t")},
    {"deep pointwise chain", 2, 1e-5, false,
     IN("x", "17, 5, 6") TARGET("t", "17, 5, 6")
     "y = conv(x, 17, kernel = 1)\n"
     "repeat 150 { y = 0.98 * y + 0.05 * sigmoid(y) }\n" OUT("y") LOSS("y", "t")},
    {"very deep epilogue and statistics", 2, NORM_TOLERANCE, false,
     IN("x", "17, 5, 6") TARGET("t", "17, 5, 6")
     "y = conv(x, 17, kernel = 1)\n"
     "repeat 300 { y = 0.999 * y + 0.001 }\n"
     "y = batch_norm(y)\n" OUT("y") LOSS("y", "t")},
    {"the same operand twice", 2, TOLERANCE, false,
     IN("x", "12, 5, 6") TARGET("t", "12, 5, 6") TARGET("u", "24, 5, 6")
     "a = conv(x, 12, kernel = 1)\n"
     "b = a + a\n"
     "c = b * b\n"
     "d = c / (1 + c * c) - (a - a * a)\n"
     "y = d + d\n"
     "z = concat(y, y)\n" OUT("y") OUT("z") LOSS("y", "t") LOSS("z", "u")},
    {"doubling again and again", 1, TOLERANCE, false,
     IN("x", "9, 4, 5") TARGET("t", "9, 4, 5")
     "y = 0.4 * x\n"
     "repeat 60 { y = 0.9 * y + 0.1 * y * y }\n" OUT("y") LOSS("y", "t")},
    {"pad and crop with what follows", 2, NORM_TOLERANCE, false,
     IN("x", "10, 9, 9") IN("z", "10, 6, 5") TARGET("t", "10, 9, 9")
     "a = silu(crop(x, z) + z)\n"
     "y = batch_norm(silu(pad(a, x)) + x)\n" OUT("y") LOSS("y", "t")},
    {"reductions of one value", 2, TOLERANCE, false,
     IN("x", "10, 6, 5") TARGET("t", "1, 6, 5") "target m : u8[1, 6, 5]\n"
     "p = sigmoid(conv(x, 1, kernel = 1))\n" OUT("p")
     "loss a = dice_loss(p, t)\nloss b = dice_loss(p * p, m)\nloss c = dice_loss(p, m)\n"
     "loss d = binary_cross_entropy(p, t)\nloss e = binary_cross_entropy(p, m)\n"
     "loss f = dice_loss(p * p * p, t)\nloss g = dice_loss(1 - p, t)\n"
     "metric h = dice(p, m)\nmetric i = dice(p, m, threshold = 0.3)\n"},
    {"pictures of bytes", 3, NORM_TOLERANCE, false,
     "input x : u8[3, 9, 8]\ninput z : u8[17, 9, 8]\n" TARGET("t", "3, 9, 8")
     "a = x / 255 - 0.5\n"
     "b = batch_norm(z / 128)\n"
     "y = batch_norm(a) + conv(concat(b, a), 3, kernel = 3, padding = 1) * channel_mean(b)\n"
     OUT("y") LOSS("y", "t")},
    {"no parameters at all", 2, TOLERANCE, false,
     IN("x", "20, 6, 7") TARGET("t", "20, 6, 7")
     "y = silu(x) + avg_pool(x, kernel = 3, stride = 1, padding = 1) * softmax(x)\n"
     OUT("y") LOSS("y", "t")},
    {"a branch below no loss", 2, NORM_TOLERANCE, false,
     IN("x", "8, 6, 7") TARGET("t", "8, 6, 7")
     "y = conv(x, 8, kernel = 1)\n"
     "z = silu(batch_norm(conv(y, 9, kernel = 3, padding = 1)))\n"
     OUT("y") OUT("z") LOSS("y", "t")},
    {"folded convolutions", 2, NORM_TOLERANCE, false,
     IN("x", "18, 6, 7") TARGET("t", "36, 6, 7")
     "a = batch_norm(conv(x, 36, kernel = 3, padding = 1, groups = 18))\n"
     "b, c = conv([x, x * x], 36, kernel = 1)\n"
     "y = batch_norm(conv(silu(a), 36, kernel = 3, padding = 1, groups = 2, bias = false)) +"
     " batch_norm(b) + batch_norm(c) + b\n" OUT("y") LOSS("y", "t")},
};
const int n_fusion_cases = sizeof fusion_cases / sizeof *fusion_cases;

Case fusion_case(const FusionCase *one)
{
    static char text[16384];
    snprintf(text, sizeof text, "model odd {\n%s}\n", one->body);
    return (Case){.text = text, .batch = one->batch, .seed = 7, .tolerance = one->tolerance,
                  .each_fusion = one->each};
}
