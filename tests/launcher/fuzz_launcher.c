/* Fuzz what reads foreign bytes: stdin's scanner, the checks of the environment, the header of an
 * answer, and the document an error becomes.  Beyond the sanitizers it holds them to properties:
 * an error is one line of printable JSON, and what is accepted keeps the rules. */
#include "launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define require(claim) \
    do { \
        if (!(claim)) { \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #claim); \
            abort(); \
        } \
    } while (0)

static void check_document(const struct complaint *why, const char *version)
{
    static char whole[12 * 1024], cut[32];
    size_t length = render_error(whole, sizeof whole, version, why);
    require(length > 4 && length < sizeof whole);
    require(!memcmp(whole + length - 3, "\"}\n", 3));
    for (size_t at = 0; at + 1 < length; at++)
        require((unsigned char)whole[at] >= 0x20 && whole[at] != 0x7f);
    require(render_error(cut, sizeof cut, version, why) == sizeof cut);
}

static void try_config(const char *text, size_t size)
{
    struct config config;
    scan_config(text, size, &config);
    require(strlen(config.version) > 0 && strlen(config.version) < sizeof config.version);
    require(!config.whole || memchr(text, '}', size));
    require(!config.standalone || memmem(text, size, "\"standalone\"", 12));
}

/* Each NUL-terminated piece of the input is a variable. */
static void try_environment(char *text)
{
    static const char *const NAMES[] = {"ADD", "DEL", "CHECK", "GC", "STATUS"};
    char *environment[64];
    size_t count = 0;
    for (char *at = text; at && count < 63; at = *at ? at + strlen(at) + 1 : NULL)
        environment[count++] = at;
    environment[count] = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        struct complaint why;
        const struct verb *verb = find_verb(NAMES[i]);
        if (!check_environment(verb, environment, &why))
            check_document(&why, NEWEST_VERSION);
        else if (verb->checked)
            require(strlen(lookup(environment, "CNI_IFNAME")) - 1 < 15 &&
                    !strpbrk(lookup(environment, "CNI_IFNAME"), "/: \t\n\v\f\r"));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct answer answer;
    char *text = calloc(1, size + 2); /* ends the last variable and the list */
    require(text != NULL);
    memcpy(text, data, size);
    char *exact = malloc(size + !size); /* no byte more: an overrun is seen */
    require(exact != NULL);
    memcpy(exact, data, size);

    try_config(exact, size);
    try_environment(text);
    if (size >= ANSWER_HEADER_SIZE && parse_answer(data, &answer))
        require(answer.status < 256 && answer.length <= ANSWER_MAX);
    struct complaint why;
    complain(&why, INVALID_ENVIRONMENT, text, "%s", text);
    check_document(&why, NEWEST_VERSION);

    free(exact);
    free(text);
    return 0;
}
