/* The verbs, and what each wants of CNI_* (SPEC.md 1.1.0, "Parameters").
 *
 * CNI_PATH is asked for only where the specification does: DEL, CHECK and STATUS need it for
 * delegates alone, and the agent says so when it has one to look for.
 */
#include "launcher.h"

#include <stdio.h>
#include <string.h>

/* The agent's own deadlines are 20 s, 10 s and 2 s: it answers first. */
static const struct verb VERBS[] = {
    {.name = "ADD", .required = CONTAINERID | NETNS | IFNAME | PATH,
     .checked = CONTAINERID | IFNAME, .absent_ms = MS(5000), .busy_ms = MS(5000),
     .answer_ms = MS(25000), .away = TRY_AGAIN_LATER},
    {.name = "DEL", .required = CONTAINERID | IFNAME, .checked = CONTAINERID | IFNAME,
     .busy_ms = MS(5000), .answer_ms = MS(12000), .spooled = true, .away = TRY_AGAIN_LATER},
    {.name = "CHECK", .required = CONTAINERID | NETNS | IFNAME, .checked = CONTAINERID | IFNAME,
     .absent_ms = MS(5000), .busy_ms = MS(5000), .answer_ms = MS(25000), .away = TRY_AGAIN_LATER},
    {.name = "GC", .required = PATH, .absent_ms = MS(5000), .busy_ms = MS(5000),
     .answer_ms = MS(25000), .away = TRY_AGAIN_LATER},
    {.name = "STATUS", .absent_ms = MS(1000), .busy_ms = MS(1000), .answer_ms = MS(2500),
     .answer_in_all = true, .away = NOT_AVAILABLE},
};

/* In the order in which Go's skel package names what is missing. */
static const struct { unsigned bit; const char *name; } VARIABLES[] = {
    {CONTAINERID, "CNI_CONTAINERID"},
    {NETNS, "CNI_NETNS"},
    {IFNAME, "CNI_IFNAME"},
    {PATH, "CNI_PATH"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The value of a variable, "" when it is not set: the specification makes no difference. */
const char *lookup(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; *environment; environment++)
        if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
            return *environment + length + 1;
    return "";
}

const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < COUNT(VERBS); i++)
        if (!strcmp(VERBS[i].name, name))
            return &VERBS[i];
    return NULL;
}

static bool alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool valid_container_id(const char *id)
{
    if (!alphanumeric(*id))
        return false;
    for (; *id; id++)
        if (!alphanumeric(*id) && !strchr("_.-", *id))
            return false;
    return true;
}

/* White space as Go's unicode.IsSpace has it.  A lead byte never occurs inside another
 * character, so comparing bytes is the same as decoding. */
static bool starts_with_space(const char *text)
{
    static const char *const WIDE[] = {
        "\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\xa8", "\xe2\x80\xa9",
        "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80",
    };
    const unsigned char *byte = (const unsigned char *)text;
    if (*byte == ' ' || (*byte >= '\t' && *byte <= '\r'))
        return true;
    if (byte[0] == 0xe2 && byte[1] == 0x80 && byte[2] >= 0x80 && byte[2] <= 0x8a)
        return true;
    for (size_t i = 0; i < COUNT(WIDE); i++)
        if (!strncmp(text, WIDE[i], strlen(WIDE[i])))
            return true;
    return false;
}

/* Why no interface can have this name, or NULL. */
static const char *ifname_fault(const char *name)
{
    if (strlen(name) > 15)
        return "is longer than 15 bytes";
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return "must not be . or ..";
    for (const char *at = name; *at; at++)
        if (*at == '/' || *at == ':' || starts_with_space(at))
            return "must not contain / or : or white space";
    return NULL;
}

static bool nothing_missing(const struct verb *verb, char *const *environment,
                            struct complaint *why)
{
    char missing[80] = "", details[64];
    for (size_t i = 0; i < COUNT(VARIABLES); i++) {
        if (!(verb->required & VARIABLES[i].bit) || *lookup(environment, VARIABLES[i].name))
            continue;
        if (*missing)
            strcat(missing, ",");
        strcat(missing, VARIABLES[i].name);
    }
    if (!*missing)
        return true;
    snprintf(details, sizeof details, "%s cannot do without", verb->name);
    complain(why, INVALID_ENVIRONMENT, details, "required env variables [%s] missing", missing);
    return false;
}

bool check_environment(const struct verb *verb, char *const *environment, struct complaint *why)
{
    if (!nothing_missing(verb, environment, why))
        return false;
    const char *id = lookup(environment, "CNI_CONTAINERID");
    if ((verb->checked & CONTAINERID) && !valid_container_id(id)) {
        complain(why, INVALID_ENVIRONMENT, id, "invalid characters in containerID");
        return false;
    }
    const char *ifname = lookup(environment, "CNI_IFNAME");
    const char *fault = (verb->checked & IFNAME) ? ifname_fault(ifname) : NULL;
    if (fault)
        complain(why, INVALID_ENVIRONMENT, ifname, "interface name in CNI_IFNAME %s", fault);
    return !fault;
}
