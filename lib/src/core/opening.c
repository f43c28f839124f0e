/* A socket that is shut down wakes whoever waits for it, in whatever library: connecting, logging in, all. */
#include "core/opening.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

void crew_opening_init(struct crew_opening *opening)
{
    *opening = (struct crew_opening){ .fd = -1 };
    (void)pthread_mutex_init(&opening->mutex, NULL);
}

void crew_opening_fini(struct crew_opening *opening)
{
    (void)crew_opening_waits_for(opening, -1);
    (void)pthread_mutex_destroy(&opening->mutex);
}

bool crew_opening_waits_for(crew_opening *opening, int fd)
{
    if (!opening)
        return true;
    pthread_mutex_lock(&opening->mutex);
    if (opening->fd >= 0)
        close(opening->fd);
    opening->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1; /* without one it ends by its time */
    bool wanted = !opening->unwanted;
    pthread_mutex_unlock(&opening->mutex);
    return wanted;
}

void crew_opening_end(struct crew_opening *opening)
{
    pthread_mutex_lock(&opening->mutex);
    opening->unwanted = true;
    if (opening->fd >= 0)
        (void)shutdown(opening->fd, SHUT_RDWR);
    pthread_mutex_unlock(&opening->mutex);
}
