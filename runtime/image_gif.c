/* GIF, through giflib: the first frame only, on the file's canvas.
 *
 * Six unlisted pictures of the data set are GIF files named .jpg. As in Pillow the canvas around a
 * smaller frame has the transparent index, or 0, and transparency itself is dropped. The library's
 * DGifSlurp would read all frames; this reads one and so needs no limit on their number.
 */
#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

#include "data.h"

typedef struct {
    const uint8_t *bytes;
    size_t size, at;
    GifFileType *gif;
    uint8_t *row;
    const char *path;
    Error *error;
} Job;

static int read_bytes(GifFileType *gif, GifByteType *out, int count)
{
    Job *job = gif->UserData;
    size_t left = job->size - job->at;
    size_t taken = (size_t)count < left ? (size_t)count : left;
    memcpy(out, job->bytes + job->at, taken);
    job->at += taken;
    return (int)taken;
}

static bool broken(Job *job)
{
    const char *text = GifErrorString(job->gif->Error);
    return fail(job->error, EXIT_USER, "", "%s: broken GIF: %s", job->path,
                text != NULL ? text : "cannot be read");
}

/* Goes to the first frame; *transparent is the index of a graphics control before it, or -1. */
static bool find_frame(Job *job, int *transparent)
{
    GifRecordType type;
    *transparent = -1;
    for (;;) {
        if (DGifGetRecordType(job->gif, &type) == GIF_ERROR) return broken(job);
        if (type == TERMINATE_RECORD_TYPE)
            return fail(job->error, EXIT_USER, "", "%s: a GIF without a picture", job->path);
        if (type == IMAGE_DESC_RECORD_TYPE) break;
        int code;
        GifByteType *block;
        if (DGifGetExtension(job->gif, &code, &block) == GIF_ERROR) return broken(job);
        while (block != NULL) {
            GraphicsControlBlock control;
            if (code == GRAPHICS_EXT_FUNC_CODE
                && DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK)
                *transparent = control.TransparentColor;
            if (DGifGetExtensionNext(job->gif, &block) == GIF_ERROR) return broken(job);
        }
    }
    if (DGifGetImageDesc(job->gif) == GIF_ERROR) return broken(job);
    return true;
}

/* Where line i of a frame lies: four interleaved passes. */
static int frame_row(int i, int height, bool interlaced)
{
    static const int first[] = { 0, 4, 2, 1 }, step[] = { 8, 8, 4, 2 };
    if (!interlaced) return i;
    for (int pass = 0; pass < 4; pass++) {
        int rows = (height - first[pass] + step[pass] - 1) / step[pass];
        if (rows < 0) rows = 0;
        if (i < rows) return first[pass] + i * step[pass];
        i -= rows;
    }
    return height - 1;
}

/* job->row's indices -> count pixels of line y from column x0 on. */
static void draw_row(const Job *job, const ColorMapObject *map, Image *image, int y, int x0,
                     int count)
{
    size_t at = (size_t)y * (size_t)image->width + (size_t)x0;
    if (image->channels == 1) {
        memcpy(image->pixels + at, job->row, (size_t)count);
        return;
    }
    uint8_t *out = image->pixels + at * 3;
    for (int x = 0; x < count; x++, out += 3) {
        GifColorType colour = { 0, 0, 0 };
        if (job->row[x] < map->ColorCount) colour = map->Colors[job->row[x]];
        out[0] = colour.Red;
        out[1] = colour.Green;
        out[2] = colour.Blue;
    }
}

static bool read_frame(Job *job, Image *image, bool classes, int transparent)
{
    const GifImageDesc *frame = &job->gif->Image;
    const ColorMapObject *map = frame->ColorMap != NULL ? frame->ColorMap : job->gif->SColorMap;
    int64_t right = (int64_t)frame->Left + frame->Width;
    int64_t bottom = (int64_t)frame->Top + frame->Height;
    int64_t width = right > job->gif->SWidth ? right : job->gif->SWidth;
    int64_t height = bottom > job->gif->SHeight ? bottom : job->gif->SHeight;
    if (map == NULL && !classes)
        return fail(job->error, EXIT_USER, "", "%s: broken GIF: no colours", job->path);
    if (frame->Width < 1 || frame->Height < 1 || frame->Left < 0 || frame->Top < 0)
        return fail(job->error, EXIT_USER, "", "%s: broken GIF: an empty frame", job->path);
    if (!image_allocate(image, width, height, classes ? 1 : 3, job->path, job->error)) return false;
    job->row = malloc((size_t)width);
    if (job->row == NULL)
        return fail(job->error, EXIT_ENVIRONMENT, "", "%s: not enough memory", job->path);
    memset(job->row, transparent < 0 ? 0 : transparent, (size_t)width);
    for (int y = 0; y < image->height; y++) draw_row(job, map, image, y, 0, image->width);
    for (int i = 0; i < frame->Height; i++) {
        if (DGifGetLine(job->gif, job->row, frame->Width) == GIF_ERROR) return broken(job);
        int y = frame->Top + frame_row(i, frame->Height, frame->Interlace);
        draw_row(job, map, image, y, frame->Left, frame->Width);
    }
    return true;
}

bool image_gif_decode(const void *bytes, size_t size, const char *path, bool classes, Image *image,
                      Error *error)
{
    Job job = { .bytes = bytes, .size = size, .path = path, .error = error };
    int code = 0, transparent = -1;
    job.gif = DGifOpen(&job, read_bytes, &code);
    if (job.gif == NULL) {
        const char *text = GifErrorString(code);
        return fail(error, EXIT_USER, "", "%s: broken GIF: %s", path,
                    text != NULL ? text : "no header");
    }
    bool decoded = find_frame(&job, &transparent) && read_frame(&job, image, classes, transparent);
    DGifCloseFile(job.gif, &code);
    free(job.row);
    return decoded;
}
