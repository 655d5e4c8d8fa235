/* The order of things: what needs no agent first, then the call, then what to do without one. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef ISTHMUS_VERSION
#define ISTHMUS_VERSION "unversioned"
#endif

extern char **environ;

/* Too large for a stack; pages that nobody touches cost nothing. */
static struct frame frame;
static struct answer answer;

static uint64_t boottime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Occupy 0, 1 and 2 if the caller closed them, so that no file of ours takes their place; the
 * wrong way round, so that using them is an error and not a success. */
static void occupy_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
                _exit(1);
}

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = lookup(environ, name);
    return *value ? value : otherwise;
}

static int fail(const struct complaint *why, const char *version)
{
    static char document[12 * 1024];
    deliver(document, render_error(document, sizeof document, version, why));
    return 1;
}

static int about(const char *program)
{
    dprintf(STDERR_FILENO, "%s " ISTHMUS_VERSION ": CNI plugin of isthmus, run by container "
            "runtimes\nCNI protocol versions supported: %s\n", program, SUPPORTED_VERSIONS);
    return 0;
}

static int versions(void)
{
    char document[256];
    return deliver(document, render_versions(document, sizeof document)) ? 0 : 1;
}

/* A descriptor of CNI_NETNS, or -1 with *reason* (0: not set).  O_PATH never waits for the other
 * end of a FIFO and never touches a device. */
static int open_netns(int *reason)
{
    const char *path = lookup(environ, "CNI_NETNS");
    int fd = *path ? open(path, O_PATH | O_CLOEXEC) : -1;
    *reason = *path && fd < 0 ? errno : 0;
    return fd;
}

/* Print the answer and acknowledge it: without the byte the agent undoes an ADD. */
static int finish(int peer)
{
    if (!deliver(answer.stdout_bytes, answer.length))
        return 1;
    while (send(peer, "\x06", 1, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
    return (int)answer.status;
}

/* Nobody did the call: keep a DEL for later, say so for any other. */
static int do_without_agent(const struct verb *verb, uint64_t started_ns,
                            const struct config *config, struct complaint *why)
{
    if (!verb->spooled)
        return fail(why, config->version);
    if (!config->whole) {
        complain(why, DECODING_FAILURE, "the configuration must be one JSON object",
                 "cannot decode stdin");
        return fail(why, config->version);
    }
    forget_netns(&frame);
    if (spool(setting("ISTHMUS_SPOOL", ISTHMUS_SPOOL), &frame, started_ns, why))
        return 0;
    return fail(why, config->version);
}

/* The call proper, once the environment is known to be right. */
static int call(const struct verb *verb, const char *program, uint64_t started_ns)
{
    struct complaint why;
    struct config config;
    int netns_errno = 0, peer = -1;

    if (!begin_frame(&frame, program, environ, &why))
        return fail(&why, NEWEST_VERSION);
    bool complete = read_stdin(&frame, &why);
    scan_config((const char *)frame.bytes + frame.stdin_at, frame.length - frame.stdin_at, &config);
    if (!complete)
        return fail(&why, config.version);
    int netns_fd = (verb->checked & CONTAINERID) ? open_netns(&netns_errno) : -1;
    finish_frame(&frame, started_ns, netns_errno, netns_fd >= 0);

    enum outcome outcome = call_agent(verb, setting("ISTHMUS_SOCKET", ISTHMUS_SOCKET),
                                      !config.standalone, &frame, netns_fd, &answer, &peer, &why);
    if (outcome == ANSWERED && answer.status != STATUS_REFUSED)
        return finish(peer);
    if (outcome == ANSWERED && !verb->spooled)
        return deliver(answer.stdout_bytes, answer.length), 1;
    if (outcome == ABSENT && config.standalone)
        run_standalone(setting("ISTHMUS_STANDALONE", ISTHMUS_STANDALONE), program, &frame,
                       started_ns, why.details, sizeof why.details);
    return do_without_agent(verb, started_ns, &config, &why);
}

int main(int argc, char **argv)
{
    uint64_t started_ns = boottime_ns();
    const char *name = argc > 0 && argv[0] ? argv[0] : "isthmus";
    const char *program = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    const char *command = lookup(environ, "CNI_COMMAND");
    struct complaint why;

    occupy_standard_descriptors();
    signal(SIGPIPE, SIG_IGN);
    if (!*command)
        return about(program);
    if (!strcmp(command, "VERSION"))
        return versions();
    const struct verb *verb = find_verb(command);
    if (!verb) {
        complain(&why, INVALID_ENVIRONMENT, "it must be ADD, DEL, CHECK, GC, STATUS or VERSION",
                 "unknown CNI_COMMAND: %s", command);
        return fail(&why, NEWEST_VERSION);
    }
    if (!check_environment(verb, environ, &why))
        return fail(&why, NEWEST_VERSION);
    return call(verb, program, started_ns);
}
