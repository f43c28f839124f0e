#include "program/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool program_notify(const char *format, ...)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char text[200];
    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof address.sun_path)
        return true;
    size_t size = strlen(path);
    memcpy(address.sun_path, path, size);
    if (*path == '@') /* an abstract name */
        address.sun_path[0] = '\0';
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    socklen_t room = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    bool sent = length > 0 && (size_t)length < sizeof text &&
                sendto(fd, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT,
                       (const struct sockaddr *)&address, room) == length;
    int error = errno;
    close(fd);
    errno = error;
    return sent;
}
