/* Two keys at the top level of stdin, found without parsing the rest.
 *
 * The agent judges the document; this pass only has to be right on valid JSON and harmless on
 * anything else.  Depth is a counter, so nesting costs nothing.
 */
#include "launcher.h"

#include <string.h>

enum key { OTHER, VERSION, STANDALONE };

static enum key which_key(const char *text, size_t length)
{
    if (length == 10 && !memcmp(text, "cniVersion", 10))
        return VERSION;
    if (length == 10 && !memcmp(text, "standalone", 10))
        return STANDALONE;
    return OTHER;
}

/* The position of the quote that closes the string begun before *at*, or *length*. */
static size_t string_end(const char *text, size_t at, size_t length)
{
    while (at < length && text[at] != '"')
        at += text[at] == '\\' ? 2 : 1;
    return at < length ? at : length;
}

/* Only what can be a version is echoed: digits and dots. */
static void take_version(const char *text, size_t length, struct config *found)
{
    if (!length || length >= sizeof found->version)
        return;
    for (size_t i = 0; i < length; i++)
        if ((text[i] < '0' || text[i] > '9') && text[i] != '.')
            return;
    memcpy(found->version, text, length);
    found->version[length] = '\0';
}

void scan_config(const char *text, size_t length, struct config *found)
{
    size_t depth = 0;
    bool name_next = false;
    enum key key = OTHER;

    *found = (struct config){.version = NEWEST_VERSION};
    for (size_t at = 0; at < length; at++) {
        char c = text[at];
        if (strchr(" \t\r\n", c) && c)
            continue;
        if (found->whole || (!depth && c != '{')) {
            found->whole = false; /* something before or after the object */
            return;
        }
        if (c == '{' || c == '[') {
            name_next = ++depth == 1;
        } else if (c == '}' || c == ']') {
            if (!--depth && c == ']')
                return;
            found->whole = !depth;
        } else if (c == '"') {
            size_t end = string_end(text, at + 1, length);
            if (depth == 1 && name_next)
                key = which_key(text + at + 1, end - at - 1);
            else if (depth == 1 && key == VERSION)
                take_version(text + at + 1, end - at - 1, found);
            name_next = false;
            at = end;
        } else if (depth == 1 && c == ',') {
            name_next = true;
            key = OTHER;
        } else if (depth == 1 && key == STANDALONE && c != ':') {
            found->standalone = length - at >= 4 && !memcmp(text + at, "true", 4);
            key = OTHER;
        }
    }
}
