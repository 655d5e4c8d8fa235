/* A deletion that survives the loss of power: the frame as a file of its own.
 *
 * Temporary file, fsync, rename, fsync of the directory: only then is the DEL a success.
 * cni/spool.py reads these files and writes its own in the same way.
 */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool refuse(struct complaint *why, const char *path, const char *step, const char *reason)
{
    char details[sizeof why->details];
    snprintf(details, sizeof details, "%s: %s: %s", path, step, reason);
    complain(why, TRY_AGAIN_LATER, details, "the agent is away and the deletion cannot be kept");
    return false;
}

/* Make the last component of *directory*, and its entry durable even when it is there already:
 * whoever made it may not have come so far. */
static bool make_directory(const char *directory)
{
    char parent[4096];
    if (mkdir(directory, 0700) < 0 && errno != EEXIST)
        return false;
    snprintf(parent, sizeof parent, "%s", directory);
    char *slash = strrchr(parent, '/');
    if (!slash)
        strcpy(parent, ".");
    else
        slash[slash == parent] = '\0';
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool durable = fsync(fd) == 0;
    int reason = errno;
    close(fd);
    errno = reason;
    return durable;
}

static bool is_full(DIR *entries)
{
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        size_t length = strlen(entry->d_name);
        count += length > 4 && !strcmp(entry->d_name + length - 4, ".del");
    }
    return count >= SPOOL_MAX;
}

static bool write_all(int fd, const unsigned char *bytes, size_t length)
{
    while (length) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno != EINTR)
            return false;
        if (written > 0) {
            bytes += written;
            length -= (size_t)written;
        }
    }
    return true;
}

/* The step that failed, with errno, or NULL. */
static const char *write_entry(int directory, const char *temporary, const char *name,
                               const struct frame *frame)
{
    int fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return "create";
    const char *failed = NULL;
    if (!write_all(fd, frame->bytes, frame->length))
        failed = "write";
    else if (fsync(fd) < 0)
        failed = "fsync";
    int reason = errno;
    if (close(fd) < 0 && !failed) {
        failed = "close";
        reason = errno;
    }
    errno = reason;
    if (!failed && renameat(directory, temporary, directory, name) < 0)
        failed = "rename";
    if (failed) {
        reason = errno;
        unlinkat(directory, temporary, 0);
        errno = reason;
        return failed;
    }
    return fsync(directory) < 0 ? "fsync of the directory" : NULL;
}

bool spool(const char *directory, const struct frame *frame, uint64_t started_ns,
           struct complaint *why)
{
    char temporary[64], name[64], full[96];
    if (!make_directory(directory))
        return refuse(why, directory, "create the directory", strerror(errno));
    DIR *entries = opendir(directory);
    if (!entries)
        return refuse(why, directory, "open", strerror(errno));
    if (is_full(entries)) {
        closedir(entries);
        snprintf(full, sizeof full, "%d deletions wait already", SPOOL_MAX);
        return refuse(why, directory, "count", full);
    }
    snprintf(temporary, sizeof temporary, ".tmp-%d-%" PRIu64, (int)getpid(), started_ns);
    snprintf(name, sizeof name, "%020" PRIu64 "-%d.del", started_ns, (int)getpid());
    const char *failed = write_entry(dirfd(entries), temporary, name, frame);
    int reason = errno;
    closedir(entries);
    return failed ? refuse(why, directory, failed, strerror(reason)) : true;
}
