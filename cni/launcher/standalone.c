/* The program that does a call by itself, where the configuration allows it and no agent runs. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern char **environ;

/* Put what was read from stdin back there, as a file in memory. */
static bool replay_stdin(const struct frame *frame)
{
    int fd = memfd_create("stdin", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    const unsigned char *at = frame->bytes + frame->stdin_at;
    size_t left = frame->length - frame->stdin_at;
    while (left) {
        ssize_t written = write(fd, at, left);
        if (written < 0 && errno != EINTR)
            return false;
        if (written > 0) {
            at += written;
            left -= (size_t)written;
        }
    }
    return lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO;
}

void run_standalone(const char *path, const char *program, const struct frame *frame,
                    uint64_t started_ns, char *reason, size_t size)
{
    char started[32];
    char *const arguments[] = {(char *)program, NULL};
    snprintf(started, sizeof started, "%" PRIu64, started_ns);
    if (replay_stdin(frame) && setenv("ISTHMUS_STARTED_NS", started, 1) == 0) {
        signal(SIGPIPE, SIG_DFL);
        execve(path, arguments, environ);
    }
    snprintf(reason, size, "standalone program %s: %s", path, strerror(errno));
    signal(SIGPIPE, SIG_IGN);
}
