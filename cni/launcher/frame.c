/* The request in memory: cni/frames.py describes and decodes it.  Little endian. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(unsigned char *at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

/* Kept when the environment is too large to go along whole. */
static bool essential(const char *variable)
{
    static const char *const KEPT[] = {"CNI_", "PATH=", "TRACEPARENT=", "TRACESTATE=", "BAGGAGE="};
    for (size_t i = 0; i < sizeof KEPT / sizeof KEPT[0]; i++)
        if (!strncmp(variable, KEPT[i], strlen(KEPT[i])))
            return true;
    return false;
}

/* Copy variables to *at*; the bytes used, or more than ENVIRONMENT_MAX if they do not fit. */
static size_t copy_environment(unsigned char *at, char *const *environment, bool all)
{
    size_t used = 0;
    for (; *environment; environment++) {
        size_t length = strlen(*environment) + 1;
        if (!all && !essential(*environment))
            continue;
        if (length > ENVIRONMENT_MAX - used)
            return ENVIRONMENT_MAX + 1;
        memcpy(at + used, *environment, length);
        used += length;
    }
    return used;
}

bool begin_frame(struct frame *frame, const char *program, char *const *environment,
                 struct complaint *why)
{
    size_t name = strnlen(program, PROGRAM_MAX);
    memcpy(frame->bytes + HEADER_SIZE, program, name);
    unsigned char *at = frame->bytes + HEADER_SIZE + name;
    size_t used = copy_environment(at, environment, true);
    if (used > ENVIRONMENT_MAX)
        used = copy_environment(at, environment, false);
    if (used > ENVIRONMENT_MAX) {
        complain(why, INVALID_ENVIRONMENT, "CNI_* and PATH must fit in 256 KiB together",
                 "environment too large");
        return false;
    }
    put(frame->bytes + 80, name, 4);
    put(frame->bytes + 84, used, 4);
    frame->stdin_at = frame->length = HEADER_SIZE + name + used;
    return true;
}

/* Read to the end of stdin, at most 1 MiB and 10 s: a runtime may never close it. */
bool read_stdin(struct frame *frame, struct complaint *why)
{
    int64_t deadline = monotonic_ms() + MS(10000);
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    for (;;) {
        int64_t left = deadline - monotonic_ms();
        int ready = poll(&in, 1, left > 0 ? (int)left : 0);
        if (ready == 0) {
            complain(why, IO_FAILURE, "its other end must be closed after the configuration",
                     "error reading from stdin: no end of file within %d s", MS(10000) / 1000);
            return false;
        }
        size_t used = frame->length - frame->stdin_at;
        ssize_t got = ready < 0 ? -1 : read(STDIN_FILENO, frame->bytes + frame->length,
                                            STDIN_MAX + 1 - used);
        if (got < 0 && errno != EINTR && errno != EAGAIN) {
            complain(why, IO_FAILURE, "", "error reading from stdin: %s", strerror(errno));
            return false;
        }
        if (got == 0)
            return true;
        if (got > 0)
            frame->length += (size_t)got;
        if (frame->length - frame->stdin_at > STDIN_MAX) {
            complain(why, DECODING_FAILURE, "a network configuration may have up to 1 MiB",
                     "configuration on stdin too large");
            return false;
        }
    }
}

static void put_boot_id(unsigned char *at)
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, at, 36) != 36)
        memset(at, 0, 36);
    close(fd);
}

/* Fill the header in, once the body is complete. */
void finish_frame(struct frame *frame, uint64_t started_ns, int netns_errno, bool with_netns)
{
    unsigned char *header = frame->bytes;
    struct stat own = {0};
    if (stat("/proc/self/ns/net", &own) < 0)
        memset(&own, 0, sizeof own);
    memcpy(header, "isth", 4);
    put(header + 4, PROTOCOL, 2);
    put(header + 6, KIND_CNI, 2);
    put(header + 8, frame->length - HEADER_SIZE, 4);
    put(header + 12, with_netns ? FLAG_NETNS : 0, 4);
    put(header + 16, started_ns, 8);
    put(header + 24, own.st_dev, 8);
    put(header + 32, own.st_ino, 8);
    put_boot_id(header + 40);
    put(header + 76, (uint64_t)netns_errno, 4);
    put(header + 88, frame->length - frame->stdin_at, 4);
}

/* What is kept in a file has no descriptor with it. */
void forget_netns(struct frame *frame)
{
    put(frame->bytes + 12, 0, 4);
}
