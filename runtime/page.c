/* What the pages of `segrun bench --report` and `segrun report` have in common: see page.h. */
#include "page.h"

#include <stdint.h>
#include <stdlib.h>

#include "files.h"

static const char style[] =
    "body { font: 14px sans-serif; color: #222; max-width: 1160px; margin: 2em auto; "
    "padding: 0 1em; }\n"
    "h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 2em; } h3 { font-size: 14px; }\n"
    "nav a { margin-right: 1.2em; } p { max-width: 80ch; line-height: 1.45; }\n"
    "table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; "
    "overflow-x: auto; }\n"
    "th, td { padding: 2px 10px; text-align: right; border-bottom: 1px solid #e4e4e4; }\n"
    "th:first-child, td:first-child, td.t, th.t { text-align: left; }\n"
    "td:first-child { overflow-wrap: anywhere; min-width: 8em; }\n"
    "summary { cursor: pointer; } pre { overflow-x: auto; background: #f6f6f6; "
    "padding: 6px; font-size: 12px; }\n"
    "svg, img { max-width: 100%; height: auto; } img { margin-top: 1em; }\n"
    "svg text { font-family: sans-serif; }\n"
    "svg line { stroke-linecap: round; }\n"
    ".facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); "
    "gap: 6px 24px; margin: 1em 0; max-width: 1000px; }\n"
    ".facts div { border-bottom: 1px solid #e4e4e4; display: flex; justify-content: space-between; "
    "gap: 1em; }\n"
    ".facts dt { color: #666; } .facts dd { margin: 0; overflow-wrap: anywhere; "
    "text-align: right; }\n"
    ".graph { overflow: auto; max-height: 80vh; border: 1px solid #ddd; padding: 6px 0; }\n"
    "svg.g { max-width: none; } svg.g rect { stroke: #555; stroke-width: 0.8; }\n"
    "svg.g text { font-size: 11px; } svg.g text.s { font-size: 10px; fill: #444; }\n"
    ".e path { fill: none; stroke: #777; stroke-width: 1; opacity: 0.6; }\n";

bool page_open(Page *page, const char *title, Error *error)
{
    *page = (Page){ 0 };
    page->out = open_memstream(&page->text, &page->size);
    if (!page->out)
        return fail(error, EXIT_ENVIRONMENT, "", "not enough memory for the page");
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          page->out);
    put_html(page->out, title);
    fprintf(page->out, "</title>\n<style>\n%s</style></head><body>\n", style);
    return true;
}

bool page_close(Page *page, const char *path, bool complete, Error *error)
{
    if (!page->out)
        return false;
    fputs("</body></html>\n", page->out);
    bool whole = !ferror(page->out);
    whole = fclose(page->out) == 0 && whole;
    bool written = complete && (whole ? file_write(path, page->text, page->size, error)
                                      : fail(error, EXIT_ENVIRONMENT, "", "%s: not enough memory",
                                             path));
    free(page->text);
    *page = (Page){ 0 };
    return written;
}

void put_cell(FILE *out, const char *format, double value)
{
    fputs("<td>", out);
    fprintf(out, format, value);
    fputs("</td>", out);
}

/* Base 64 (RFC 4648). */
void put_png(FILE *out, const char *alternative, const void *png, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *bytes = png;
    fputs("<div><img alt=\"", out);
    put_html(out, alternative);
    fputs("\" src=\"data:image/png;base64,", out);
    for (size_t i = 0; i < size; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16;
        three |= i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0;
        three |= i + 2 < size ? bytes[i + 2] : 0;
        fputc(digits[three >> 18], out);
        fputc(digits[three >> 12 & 63], out);
        fputc(i + 1 < size ? digits[three >> 6 & 63] : '=', out);
        fputc(i + 2 < size ? digits[three & 63] : '=', out);
    }
    fputs("\"></div>\n", out);
}
