/* Exactly one JSON document on stdout, or nothing. */
#include "launcher.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char SUPPORTED_VERSIONS[] = "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";

/* A pipe that polls writable takes this much without blocking (PIPE_BUF). */
#define CHUNK 4096

void complain(struct complaint *why, enum code code, const char *details, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    why->code = code;
    vsnprintf(why->msg, sizeof why->msg, format, arguments);
    snprintf(why->details, sizeof why->details, "%s", details);
    va_end(arguments);
}

/* Length of the UTF-8 character at *text* (RFC 3629, table of section 4), 0 if it is none. */
static size_t character(const unsigned char *text)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t tail;
    if (text[0] < 0x80)
        return 1;
    if (text[0] >= 0xc2 && text[0] <= 0xdf)
        tail = 1;
    else if (text[0] >= 0xe0 && text[0] <= 0xef)
        tail = 2;
    else if (text[0] >= 0xf0 && text[0] <= 0xf4)
        tail = 3;
    else
        return 0;
    switch (text[0]) {
    case 0xe0: low = 0xa0; break;
    case 0xed: high = 0x9f; break;
    case 0xf0: low = 0x90; break;
    case 0xf4: high = 0x8f; break;
    }
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i <= tail; i++) /* stops at the terminating NUL */
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return tail + 1;
}

static size_t append(char *buffer, size_t size, size_t at, const char *text, size_t length)
{
    if (at + length > size)
        length = size - at;
    memcpy(buffer + at, text, length);
    return at + length;
}

/* Append *text* as the inside of a JSON string; bytes that are not UTF-8 become U+FFFD. */
static size_t append_escaped(char *buffer, size_t size, size_t at, const char *text)
{
    char escape[8];
    while (*text) {
        size_t length = character((const unsigned char *)text);
        if (!length)
            at = append(buffer, size, at, "\\ufffd", 6);
        else if ((unsigned char)*text < 0x20 || *text == 0x7f)
            at = append(buffer, size, at, escape,
                        (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*text));
        else if (*text == '"' || *text == '\\')
            at = append(buffer, size, at, (char[]){'\\', *text}, 2);
        else
            at = append(buffer, size, at, text, length);
        text += length ? length : 1;
    }
    return at;
}

/* Fields are bounded, so 10 KiB hold any document; a smaller buffer truncates. */
size_t render_error(char *buffer, size_t size, const char *version, const struct complaint *why)
{
    char opening[80];
    int length = snprintf(opening, sizeof opening, "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"",
                          version, (int)why->code);
    size_t at = append(buffer, size, 0, opening, (size_t)length);
    at = append_escaped(buffer, size, at, why->msg);
    at = append(buffer, size, at, "\",\"details\":\"", 13);
    at = append_escaped(buffer, size, at, why->details);
    return append(buffer, size, at, "\"}\n", 3);
}

size_t render_versions(char *buffer, size_t size)
{
    int length = snprintf(buffer, size, "{\"cniVersion\":\"" NEWEST_VERSION
                          "\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\","
                          "\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n");
    return (size_t)length;
}

/* Write all of *text* to stdout, or say that it has no reader. */
bool deliver(const char *text, size_t length)
{
    int64_t deadline = monotonic_ms() + MS(10000);
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    while (length) {
        int64_t left = deadline - monotonic_ms();
        int ready = poll(&out, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return false;
        ssize_t written = write(STDOUT_FILENO, text, length < CHUNK ? length : CHUNK);
        if (written < 0 && errno != EINTR && errno != EAGAIN)
            return false;
        if (written > 0) {
            text += written;
            length -= (size_t)written;
        }
    }
    /* A runtime keeps its end open until we exit: an error now means it died before reading. */
    out.events = 0;
    return poll(&out, 1, 0) == 0 || !(out.revents & (POLLERR | POLLNVAL));
}
