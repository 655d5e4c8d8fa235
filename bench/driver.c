/* Runs a CNI plugin many times, as a runtime does, and says how long each run took.
 *
 *     driver PROGRAM CONF PODS COUNT PARALLEL VERB...
 *
 * Each VERB is run COUNT times, at most PARALLEL at once, before the next one begins.  Run i is
 * of a container of its own, in namespace /run/netns/$PODS_PREFIX<i % PODS> under the interface
 * name $IFNAME_PREFIX<i / PODS>, eth without.  DEL is given the result of the ADD of the same run as prevResult, as
 * libcni does.  CNI_PATH and all else in the environment is handed on.
 *
 * Time is CLOCK_MONOTONIC from before posix_spawn to after waitpid.  posix_spawn of a small
 * static program, because forking an interpreter costs more than what is measured.  One line
 * a run on stdout: VERB, nanoseconds, exit status; and after them `wall VERB nanoseconds`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { INPUT = 1 << 16, OUTPUT = 1 << 15, VARIABLES = 256 };

struct run {
    long long ns;
    int status;
    char result[OUTPUT]; /* of ADD, for the DEL after it */
};

static const char *program, *verb, *prefix, *path, *ifname;
static char conf[INPUT / 2];
static int pods, count;
static struct run *runs;
static atomic_int next, failures;
extern char **environ;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The network configuration, with the ADD's result in it for a DEL. */
static size_t input(char *to, const struct run *run)
{
    if (strcmp(verb, "DEL") || !run->result[0])
        return snprintf(to, INPUT, "%s}", conf);
    return snprintf(to, INPUT, "%s,\"prevResult\":%s}", conf, run->result);
}

static void environment(char **to, char own[5][192], int number)
{
    int used = 0;
    snprintf(own[0], 192, "CNI_COMMAND=%s", verb);
    snprintf(own[1], 192, "CNI_CONTAINERID=%048x%08x%08x", 0xb, (unsigned)getpid(), number);
    snprintf(own[2], 192, "CNI_NETNS=/run/netns/%s%d", prefix, number % pods);
    snprintf(own[3], 192, "CNI_IFNAME=%s%d", ifname, number / pods);
    snprintf(own[4], 192, "CNI_PATH=%s", path);
    for (int i = 0; i < 5; i++)
        to[used++] = own[i];
    for (char **each = environ; *each && used < VARIABLES - 1; each++)
        if (strncmp(*each, "CNI_", 4))
            to[used++] = *each;
    to[used] = NULL;
}

static size_t drain(int fd, char *to)
{
    char spill[4096];
    size_t used = 0;
    for (;;) {
        ssize_t got = used < OUTPUT - 1 ? read(fd, to + used, OUTPUT - 1 - used)
                                        : read(fd, spill, sizeof spill);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        if (used < OUTPUT - 1)
            used += got;
    }
    to[used] = 0;
    return used;
}

static void one(int number)
{
    char text[INPUT], answer[OUTPUT], own[5][192], *env[VARIABLES];
    char *argv[] = {(char *)program, NULL};
    struct run *run = &runs[number];
    posix_spawn_file_actions_t files;
    int in[2], out[2];
    pid_t pid;

    size_t length = input(text, run);
    environment(env, own, number);
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        die("pipe2");
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    /* Less than a pipe holds, so that it can be written before there is a reader. */
    if (write(in[1], text, length) != (ssize_t)length)
        die("write");
    close(in[1]);

    long long began = now();
    errno = posix_spawn(&pid, program, &files, NULL, argv, env);
    if (errno)
        die(program);
    close(out[1]);
    drain(out[0], answer);
    while (waitpid(pid, &run->status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    run->ns = now() - began;

    close(in[0]);
    close(out[0]);
    posix_spawn_file_actions_destroy(&files);
    if (!strcmp(verb, "ADD"))
        strcpy(run->result, run->status ? "" : answer);
    if (run->status && failures++ == 0)
        fprintf(stderr, "%s failed: %s\n", verb, answer);
}

static void *work(void *unused)
{
    for (int number; (number = next++) < count;)
        one(number);
    return unused;
}

static void all(int parallel)
{
    pthread_t threads[parallel];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 512 << 10);
    next = 0;
    long long began = now();
    for (int i = 0; i < parallel; i++)
        if ((errno = pthread_create(&threads[i], &small, work, NULL)))
            die("pthread_create");
    for (int i = 0; i < parallel; i++)
        pthread_join(threads[i], NULL);
    long long wall = now() - began;
    for (int i = 0; i < count; i++)
        printf("%s %lld %d\n", verb, runs[i].ns, runs[i].status);
    printf("wall %s %lld\n", verb, wall);
}

static void read_conf(const char *name)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(name);
    ssize_t length = read(fd, conf, sizeof conf - 1);
    while (length > 0 && conf[length - 1] != '}')
        length--;
    if (length <= 0)
        die(name);
    conf[length - 1] = 0; /* without its last brace, so that a key can be appended */
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: driver PROGRAM CONF PODS COUNT PARALLEL VERB...\n");
        return 2;
    }
    program = argv[1];
    read_conf(argv[2]);
    pods = atoi(argv[3]);
    count = atoi(argv[4]);
    prefix = getenv("PODS_PREFIX");
    path = getenv("CNI_PATH");
    ifname = getenv("IFNAME_PREFIX") ? getenv("IFNAME_PREFIX") : "eth";
    runs = calloc(count, sizeof *runs);
    if (!runs || !prefix || !path || pods < 1)
        die("driver");
    for (int i = 6; i < argc; i++) {
        verb = argv[i];
        all(atoi(argv[5]));
    }
    return failures ? 1 : 0;
}
