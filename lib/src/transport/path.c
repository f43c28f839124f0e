#include "transport/path.h"

#include <rpcrew/impl/message.h>

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LEAVING_MS = 500 };

crew_status path_of_url(const crew_url *url, char path[PATH_MOST], crew_error *why)
{
    const char *host = crew_url_host(url, 0), *file = crew_url_path(url), *user = crew_url_user(url);
    bool is_abstract = user && !*user && *host && !*file && crew_url_host_count(url) == 1;
    if (!is_abstract && (user || *host || !*file))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': wants %s:///path, or %s://@name",
                              crew_url_text(url), crew_url_scheme(url), crew_url_scheme(url));
    int size = snprintf(path, PATH_MOST, "%s%s", is_abstract ? "@" : "", is_abstract ? host : file);
    if (size < PATH_MOST)
        return CREW_OK;
    return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': the path is too long: %d bytes are the most",
                          crew_url_text(url), PATH_MOST - 1);
}

socklen_t path_address(const char *path, struct sockaddr_un *address)
{
    size_t size = strlen(path);
    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (size >= sizeof address->sun_path)
        return 0;
    memcpy(address->sun_path, path, size + 1);
    if (*path != '@')
        return sizeof *address;
    address->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
}

crew_status path_look(const char *path, const char *shown, crew_error *why)
{
    struct sockaddr_un address;
    struct stat file;
    socklen_t size = path_address(path, &address);
    if (!size)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "binding %s: the path is too long", shown);
    if (*path == '@' || lstat(path, &file) != 0)
        return CREW_OK;
    if (!S_ISSOCK(file.st_mode))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "binding %s: there is something that is no socket",
                              shown);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = fd < 0 || connect(fd, (const struct sockaddr *)&address, size) != 0 ? errno : EADDRINUSE;
    if (fd >= 0)
        close(fd);
    if (error == ECONNREFUSED || error == ENOENT) /* only then it is nobody's */
        return CREW_OK;
    if (error == EAGAIN) /* somebody's who does not accept just now */
        error = EADDRINUSE;
    return crew_error_set(why, CREW_SYSTEM, "binding %s: %s", shown,
                          error == EPROTOTYPE ? "there is a socket of another kind" : strerror(error));
}

int path_lock(const char *path)
{
    char directory[PATH_MOST];
    const char *slash = strrchr(path, '/');
    (void)snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 0, path);
    int fd = *path == '@' ? -1 : open(*directory ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0 && flock(fd, LOCK_EX) != 0 && errno == EINTR)
        continue;
    return fd;
}

void path_unlock(int lock)
{
    if (lock >= 0)
        close(lock);
}

crew_status path_is_free(const char *path, const char *shown, crew_error *why)
{
    int64_t until = crew_now_ms() + LEAVING_MS;
    crew_status status = path_look(path, shown, why);
    while (status == CREW_SYSTEM && crew_now_ms() < until) {
        (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        status = path_look(path, shown, why);
    }
    return status;
}

crew_status path_is_there(const char *path, const char *shown, crew_error *why)
{
    struct sockaddr_un address;
    if (!path_address(path, &address))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "connecting to %s: the path is too long", shown);
    if (*path == '@' || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0)
        return CREW_OK;
    return crew_error_set(why, CREW_NO_SERVICE, "connecting to %s: %s", shown, strerror(errno));
}

ino_t path_inode(const char *path)
{
    struct stat file;
    return *path != '@' && lstat(path, &file) == 0 ? file.st_ino : 0;
}

void path_remove(const char *path, ino_t inode)
{
    int lock = path_lock(path);
    if (inode && path_inode(path) == inode)
        (void)unlink(path);
    path_unlock(lock);
}
