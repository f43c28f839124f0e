/* A list under a mutex, and an eventfd that is written once a burst. */
#include "core/queue.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

crew_status crew_queue_init(crew_queue *queue, size_t limit, crew_error *why)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return crew_error_set(why, CREW_SYSTEM, "eventfd: %s", strerror(errno));
    *queue = (crew_queue){ .limit = limit, .fd = fd };
    (void)pthread_mutex_init(&queue->mutex, NULL); /* cannot fail without attributes */
    return CREW_OK;
}

void crew_queue_fini(crew_queue *queue)
{
    crew_list_free(&queue->list);
    pthread_mutex_destroy(&queue->mutex);
    close(queue->fd);
}

void crew_queue_wake(crew_queue *queue)
{
    uint64_t one = 1;
    if (atomic_exchange(&queue->signalled, true))
        return;
    ssize_t written = write(queue->fd, &one, sizeof one);
    (void)written; /* full means readable already */
}

crew_status crew_queue_add(crew_queue *queue, crew_list *list)
{
    pthread_mutex_lock(&queue->mutex);
    bool fits = !queue->limit || queue->list.count + list->count <= queue->limit;
    if (fits)
        crew_list_move(&queue->list, list);
    pthread_mutex_unlock(&queue->mutex);
    return fits ? CREW_OK : CREW_OVERLOADED;
}

crew_status crew_queue_push(crew_queue *queue, crew_list *list)
{
    if (!list->count)
        return CREW_OK;
    crew_status status = crew_queue_add(queue, list);
    if (status == CREW_OK)
        crew_queue_wake(queue);
    return status;
}

void crew_queue_take(crew_queue *queue, crew_list *list)
{
    /* First the fd, then its flag, then the list: what is pushed after this wakes again. Where the write that
     * the flag announces has not come yet, the flag stays. */
    uint64_t count;
    if (atomic_load(&queue->signalled) && read(queue->fd, &count, sizeof count) > 0)
        atomic_store(&queue->signalled, false);
    pthread_mutex_lock(&queue->mutex);
    crew_list_move(list, &queue->list);
    pthread_mutex_unlock(&queue->mutex);
}
