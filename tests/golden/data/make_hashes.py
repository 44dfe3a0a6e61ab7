#!/usr/bin/env python3
"""Writes what the data tests compare with: hashes of what Pillow makes of pictures.

    make_hashes.py [FOLDER_OF_PETS]

resize.txt   generated pictures (see `generated`), resized: rule, size, channels, new size, XXH64
decode.txt   small files of every kind that the decoders meet: width, height, XXH64 of the pixels as
             RGB and as grey, and the file itself in hexadecimal
pets.txt     only with FOLDER_OF_PETS: for each listed picture the XXH64 of the image [3][H][W] and
             of its mask, at 256 x 256 and at 128 x 128

Needs Pillow before version 13, numpy and libxxhash. Pillow 13 (its pull request 9549) narrows the
columns first where a picture shrinks much more in height than in width; all versions from 3.3 to 12
narrow the rows first, always, and so does runtime/resize.c. The difference is at most one level.
"""
import ctypes
import ctypes.util
import io
import os
import sys

import numpy
import PIL
from PIL import Image

if int(PIL.__version__.split(".")[0]) >= 13:
    sys.exit("make_hashes.py: needs Pillow before 13; see the head of this file")

HERE = os.path.dirname(os.path.abspath(__file__))
XXHASH = ctypes.CDLL(ctypes.util.find_library("xxhash"))
XXHASH.XXH64.restype = ctypes.c_uint64
XXHASH.XXH64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]

RESIZES = [(1, 1, 5, 7), (2, 3, 1, 1), (3, 2, 256, 256), (7, 9, 7, 9), (7, 9, 7, 20), (31, 9, 4, 9),
           (500, 375, 256, 256), (375, 500, 128, 128), (103, 137, 256, 256), (640, 103, 64, 250),
           (256, 256, 128, 128), (255, 255, 256, 256), (257, 255, 256, 256), (1000, 1, 10, 1),
           (1, 1000, 1, 33), (300, 200, 250, 250), (1600, 1200, 256, 256), (33, 3264, 256, 256),
           (64, 64, 500, 375), (100, 101, 99, 102)]


def xxh64(array):
    data = numpy.ascontiguousarray(array).tobytes()
    return "%016x" % XXHASH.XXH64(data, len(data), 0)


def generated(width, height, channels):
    """The rule that tests/test_resize.c repeats: whole numbers only."""
    y, x, c = numpy.ogrid[:height, :width, :channels]
    value = x * x * (3 + c) + y * y * 5 + x * y * 7 + ((x >> 3) ^ (y >> 2)) * 29 + c * 85
    return ((value >> 2) & 255).astype(numpy.uint8)


def write(name, lines):
    with open(os.path.join(HERE, name), "w", encoding="ascii") as file:
        file.write("".join(line + "\n" for line in lines))


def resize_lines():
    for width, height, new_width, new_height in RESIZES:
        size = (new_width, new_height)
        where = f"{width} {height} %d {new_width} {new_height}"
        for channels in (1, 3):
            pixels = generated(width, height, channels)
            picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            for rule in ("bilinear", "nearest"):
                made = picture.resize(size, getattr(Image.Resampling, rule.upper()))
                yield f"{rule} {where % channels} {xxh64(numpy.asarray(made))}"
        floats = generated(width, height, 1)[..., 0].astype(numpy.float32) / numpy.float32(255)
        made = Image.fromarray(floats).resize(size, Image.Resampling.BILINEAR)
        yield f"float {where % 1} {xxh64(numpy.asarray(made))}"


def encoded(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def with_frame(gif, left, top):
    """Moves the only frame of a GIF on a canvas twice as large."""
    at = gif.index(b",", 13 + 3 * 256) if len(gif) > 13 + 3 * 256 else gif.index(b",", 13)
    width, height = int.from_bytes(gif[6:8], "little"), int.from_bytes(gif[8:10], "little")
    canvas = (2 * width).to_bytes(2, "little") + (2 * height).to_bytes(2, "little")
    place = left.to_bytes(2, "little") + top.to_bytes(2, "little")
    return gif[:6] + canvas + gif[10:at + 1] + place + gif[at + 5:]


def decode_files():
    rgb = Image.fromarray(generated(21, 17, 3))
    grey = Image.fromarray(generated(21, 17, 1)[..., 0])
    few = Image.fromarray(generated(21, 17, 1)[..., 0] // 20).convert("L")
    palette = Image.fromarray(generated(21, 17, 1)[..., 0] // 20)
    palette.putpalette([(37 * i * (i % 3 + 1)) % 256 for i in range(3 * 16)])
    bits = grey.convert("1", dither=Image.Dither.NONE)
    alpha = Image.fromarray(generated(21, 17, 4))
    yield "jpeg-420", encoded(rgb, "JPEG", quality=85)
    yield "jpeg-444", encoded(rgb, "JPEG", quality=95, subsampling=0)
    yield "jpeg-422", encoded(rgb, "JPEG", quality=85, subsampling=1)
    yield "jpeg-progressive", encoded(rgb, "JPEG", quality=85, progressive=True)
    yield "jpeg-grey", encoded(grey, "JPEG", quality=85)
    yield "jpeg-cmyk", encoded(alpha.convert("RGB").convert("CMYK"), "JPEG", quality=85)
    inks = Image.fromarray(generated(21, 17, 4), "CMYK")
    yield "jpeg-cmyk-black", encoded(inks, "JPEG", quality=85)
    yield "jpeg-restart", encoded(rgb, "JPEG", quality=85, restart_marker_blocks=1)
    yield "png-rgb", encoded(rgb, "PNG")
    yield "png-rgba", encoded(alpha, "PNG")
    yield "png-grey", encoded(grey, "PNG")
    yield "png-grey-alpha", encoded(Image.fromarray(generated(21, 17, 2), "LA"), "PNG")
    yield "png-palette", encoded(palette, "PNG")
    yield "png-palette-4bit", encoded(palette, "PNG", bits=4)
    yield "png-palette-transparent", encoded(palette, "PNG", transparency=3)
    yield "png-bits", encoded(bits, "PNG")
    yield "gif-palette", encoded(palette, "GIF", interlace=0)
    yield "gif-interlaced", encoded(palette, "GIF", interlace=1)
    yield "gif-transparent", encoded(palette, "GIF", transparency=3)
    yield "gif-grey", encoded(few, "GIF", interlace=0)
    yield "gif-small-frame", with_frame(encoded(palette, "GIF", interlace=0), 5, 9)
    yield "gif-small-frame-transparent", with_frame(encoded(palette, "GIF", transparency=3), 5, 9)


def decode_lines():
    for name, data in decode_files():
        picture = Image.open(io.BytesIO(data))
        pixels = numpy.asarray(picture.convert("RGB"))
        grey = numpy.asarray(picture.convert("L"))
        height, width = pixels.shape[:2]
        yield f"{name} {width} {height} {xxh64(pixels)} {xxh64(grey)} {data.hex()}"


def pets_lines(folder):
    for split in ("trainval", "test"):
        with open(os.path.join(folder, "annotations", split + ".txt"), encoding="ascii") as file:
            names = [line.split()[0] for line in file if line.strip() and line[0] != "#"]
        for name in names:
            image = Image.open(os.path.join(folder, "images", name + ".jpg")).convert("RGB")
            trimap = Image.open(os.path.join(folder, "annotations/trimaps", name + ".png"))
            hashes = []
            for size in ((256, 256), (128, 128)):
                pixels = numpy.asarray(image.resize(size, Image.Resampling.BILINEAR))
                classes = numpy.asarray(trimap.resize(size, Image.Resampling.NEAREST))
                hashes.append(xxh64(pixels.transpose(2, 0, 1)))
                hashes.append(xxh64((classes != 2).astype(numpy.uint8)))
            yield " ".join([name] + hashes)


write("resize.txt", resize_lines())
write("decode.txt", decode_lines())
if len(sys.argv) > 1:
    write("pets.txt", pets_lines(sys.argv[1]))
