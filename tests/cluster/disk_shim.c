/* Lets one process's disk hang while the file DISK_SHIM_HOLD exists: no write and no flush returns. DISK_SHIM_PLAIN: the kernel
 * refuses durable writes (RWF_DSYNC), as gVisor does. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

static void wait_while_held(void)
{
    const char *path = getenv("DISK_SHIM_HOLD");
    while (path && access(path, F_OK) == 0)
        usleep(5000);
}

#define REAL(name, ...)                                       \
    static __typeof__(&name) real;                            \
    if (!real)                                                \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);    \
    wait_while_held();                                        \
    return real(__VA_ARGS__)

int fsync(int handle) { REAL(fsync, handle); }

int fdatasync(int handle) { REAL(fdatasync, handle); }

ssize_t pwrite64(int handle, const void *data, size_t length, off64_t offset)
{
    REAL(pwrite64, handle, data, length, offset);
}

ssize_t pwritev64v2(int handle, const struct iovec *parts, int count, off64_t offset, int flags)
{
    if (flags & RWF_DSYNC && getenv("DISK_SHIM_PLAIN")) {
        errno = EOPNOTSUPP;
        return -1;
    }
    REAL(pwritev64v2, handle, parts, count, offset, flags);
}
