/* The launcher: what a container runtime execs as /opt/cni/bin/isthmus and isthmus-ipam.
 *
 * It knows nothing of networks.  It checks the environment, reads stdin, hands both to the agent
 * over a unix socket and prints what comes back.  With the agent away a DEL becomes a durable
 * file; everything else becomes an error that says so.
 *
 *   launcher.c     the order of things          environment.c  verbs and CNI_* variables
 *   config.c       two keys of stdin            document.c     JSON on stdout
 *   frame.c        the request in memory        agent.c        the call over the socket
 *   spool.c        a deletion kept for later    standalone.c   the program used without an agent
 *
 * environment.c, config.c, document.c and parse_answer() are functions of their arguments:
 * the fuzzer drives them.
 */
#ifndef ISTHMUS_LAUNCHER_H
#define ISTHMUS_LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef ISTHMUS_SOCKET
#define ISTHMUS_SOCKET "/run/isthmus/agent.sock"
#endif
#ifndef ISTHMUS_SPOOL
#define ISTHMUS_SPOOL "/var/lib/isthmus/spool"
#endif
#ifndef ISTHMUS_STANDALONE
#define ISTHMUS_STANDALONE "/opt/isthmus/isthmus"
#endif

/* Test builds divide every deadline by this. */
#ifndef DEADLINE_SCALE
#define DEADLINE_SCALE 1
#endif
#define MS(milliseconds) ((milliseconds) / DEADLINE_SCALE)

#define NEWEST_VERSION "1.1.0"
#define PROTOCOL 1
#define KIND_CNI 1
#define FLAG_NETNS 1u
#define HEADER_SIZE 92
#define PROGRAM_MAX 255
#define ENVIRONMENT_MAX (256 * 1024)
#define STDIN_MAX (1024 * 1024)
#define ANSWER_HEADER_SIZE 12
#define ANSWER_MAX (2 * 1024 * 1024)
#define SPOOL_MAX 10000

/* Exit status of an answer that means "not begun": the agent is full, or speaks another protocol. */
#define STATUS_REFUSED 75

/* SPEC.md 1.1.0, "Error". */
enum code {
    INVALID_ENVIRONMENT = 4,
    IO_FAILURE = 5,
    DECODING_FAILURE = 6,
    TRY_AGAIN_LATER = 11,
    NOT_AVAILABLE = 50,
};

/* Variables a verb cannot do without, as bits. */
enum { CONTAINERID = 1, NETNS = 2, IFNAME = 4, PATH = 8 };

struct verb {
    const char *name;
    unsigned required;
    unsigned checked;    /* variables whose syntax matters when they are set */
    int absent_ms;       /* how long to try while nobody listens */
    int busy_ms;         /* how long to try while the queue of the socket is full */
    int answer_ms;       /* from the connection to the last byte of the answer */
    bool answer_in_all;  /* answer_ms counts from the first attempt to connect instead */
    bool spooled;        /* kept for later when the agent is away */
    enum code away;
};

struct complaint {
    enum code code;
    char msg[512];
    char details[1024];
};

/* What the launcher wants to know of stdin. */
struct config {
    bool whole;       /* it looks like one JSON object, complete */
    bool standalone;  /* "standalone": true at the top level */
    char version[16]; /* what to put in an error's cniVersion */
};

/* One request, contiguous: header, program name, environment, stdin. */
struct frame {
    unsigned char bytes[HEADER_SIZE + PROGRAM_MAX + ENVIRONMENT_MAX + STDIN_MAX + 1];
    size_t length;
    size_t stdin_at;
};

struct answer {
    uint32_t status;
    uint32_t length;
    char stdout_bytes[ANSWER_MAX];
};

enum outcome {
    ANSWERED,
    ABSENT,      /* no socket, or nobody listening on it */
    UNREACHABLE, /* any other reason not to connect */
    LOST,        /* closed, or nonsense, instead of an answer */
    HUNG,        /* connected, but no answer in time */
};

/* environment.c */
const char *lookup(char *const *environment, const char *name);
const struct verb *find_verb(const char *name);
bool check_environment(const struct verb *verb, char *const *environment, struct complaint *why);

/* config.c */
void scan_config(const char *text, size_t length, struct config *found);

/* document.c */
extern const char SUPPORTED_VERSIONS[]; /* as a list for people */
void complain(struct complaint *why, enum code code, const char *details, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
size_t render_error(char *buffer, size_t size, const char *version, const struct complaint *why);
size_t render_versions(char *buffer, size_t size);
bool deliver(const char *text, size_t length);

/* frame.c */
bool begin_frame(struct frame *frame, const char *program, char *const *environment,
                 struct complaint *why);
bool read_stdin(struct frame *frame, struct complaint *why);
void finish_frame(struct frame *frame, uint64_t started_ns, int netns_errno, bool with_netns);
void forget_netns(struct frame *frame);

/* agent.c */
int64_t monotonic_ms(void);
bool parse_answer(const unsigned char *header, struct answer *answer);
enum outcome call_agent(const struct verb *verb, const char *path, bool wait,
                        const struct frame *frame, int netns_fd, struct answer *answer, int *peer,
                        struct complaint *why);

/* spool.c */
bool spool(const char *directory, const struct frame *frame, uint64_t started_ns,
           struct complaint *why);

/* standalone.c: returns only when the program cannot be run, with the reason */
void run_standalone(const char *path, const char *program, const struct frame *frame,
                    uint64_t started_ns, char *reason, size_t size);

#endif
