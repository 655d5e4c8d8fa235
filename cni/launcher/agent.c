/* One call over the agent's socket, every wait bounded. */
#include "launcher.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 50
#define HINT "is the agent running? systemctl status isthmus-agent"

int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint32_t get32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Read an answer's header: magic, exit status, length.  This form is the same in every protocol
 * version, so that a refusal can always be read. */
bool parse_answer(const unsigned char *header, struct answer *answer)
{
    answer->status = get32(header + 4);
    answer->length = get32(header + 8);
    return !memcmp(header, "isth", 4) && answer->status < 256 && answer->length <= ANSWER_MAX;
}

/* Wait for *events*; false when the deadline has passed. */
static bool await(int fd, short events, int64_t deadline)
{
    struct pollfd waiting = {.fd = fd, .events = events};
    for (;;) {
        int64_t left = deadline - monotonic_ms();
        int ready = poll(&waiting, 1, left > 0 ? (int)left : 0);
        if (ready > 0)
            return true;
        if (ready == 0 || errno != EINTR)
            return false;
    }
}

/* A connected socket, or -1 with errno. */
static int connect_once(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static bool nobody_listens(int reason)
{
    return reason == ENOENT || reason == ECONNREFUSED;
}

/* For how long a connection refused for *reason* is tried again. */
static int patience_ms(const struct verb *verb, int reason, bool wait)
{
    if (reason == EAGAIN)
        return verb->busy_ms;
    return nobody_listens(reason) && wait ? verb->absent_ms : 0;
}

static int connect_patiently(const struct verb *verb, const char *path, bool wait)
{
    int64_t began = monotonic_ms();
    for (;;) {
        int fd = connect_once(path);
        int reason = errno;
        if (fd >= 0 || monotonic_ms() - began >= patience_ms(verb, reason, wait)) {
            errno = reason;
            return fd;
        }
        poll(NULL, 0, RETRY_MS);
    }
}

/* Send the frame, the descriptor with its first bytes; false when the deadline has passed.
 * A peer that has closed may still have answered: that is for the reader to find out. */
static bool send_frame(int fd, const struct frame *frame, int netns_fd, int64_t deadline)
{
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {{0}};
    struct iovec rest = {.iov_base = (void *)frame->bytes, .iov_len = frame->length};
    struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1};
    if (netns_fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &netns_fd, sizeof(int));
    }
    while (rest.iov_len) {
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            if (!await(fd, POLLOUT, deadline))
                return false;
        } else if (sent < 0 && errno != EINTR) {
            return true;
        } else if (sent > 0) {
            message.msg_control = NULL;
            message.msg_controllen = 0;
            rest.iov_base = (char *)rest.iov_base + sent;
            rest.iov_len -= (size_t)sent;
        }
    }
    return true;
}

static enum outcome receive(int fd, void *buffer, size_t length, int64_t deadline)
{
    char *at = buffer;
    while (length) {
        ssize_t got = recv(fd, at, length, 0);
        if (got < 0 && errno == EAGAIN) {
            if (!await(fd, POLLIN, deadline))
                return HUNG;
        } else if (got == 0 || (got < 0 && errno != EINTR)) {
            return LOST;
        } else if (got > 0) {
            at += got;
            length -= (size_t)got;
        }
    }
    return ANSWERED;
}

static enum outcome exchange(int fd, const struct frame *frame, int netns_fd, int64_t deadline,
                             struct answer *answer)
{
    unsigned char header[ANSWER_HEADER_SIZE];
    if (!send_frame(fd, frame, netns_fd, deadline))
        return HUNG;
    enum outcome outcome = receive(fd, header, sizeof header, deadline);
    if (outcome != ANSWERED)
        return outcome;
    if (!parse_answer(header, answer))
        return LOST;
    return receive(fd, answer->stdout_bytes, answer->length, deadline);
}

/* Ask the agent.  After ANSWERED *peer* is the open socket, for the acknowledgement. */
enum outcome call_agent(const struct verb *verb, const char *path, bool wait,
                        const struct frame *frame, int netns_fd, struct answer *answer, int *peer,
                        struct complaint *why)
{
    int64_t began = monotonic_ms();
    *peer = connect_patiently(verb, path, wait);
    if (*peer < 0) {
        int reason = errno;
        char details[160];
        snprintf(details, sizeof details, "%s; " HINT, strerror(reason));
        complain(why, verb->away, details, "no agent accepts calls on %s", path);
        return nobody_listens(reason) ? ABSENT : UNREACHABLE;
    }
    int64_t deadline = (verb->answer_in_all ? began : monotonic_ms()) + verb->answer_ms;
    enum outcome outcome = exchange(*peer, frame, netns_fd, deadline, answer);
    if (outcome == HUNG)
        complain(why, verb->away, HINT, "the agent on %s gave no answer within %d.%d s", path,
                 verb->answer_ms / 1000, verb->answer_ms % 1000 / 100);
    if (outcome == LOST)
        complain(why, verb->away, HINT, "the agent on %s broke off without an answer", path);
    if (outcome != ANSWERED)
        close(*peer);
    return outcome;
}
