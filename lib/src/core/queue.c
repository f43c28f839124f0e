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
    ssize_t written = write(queue->fd, &one, sizeof one); /* full means readable already */
    (void)written;
}

crew_status crew_queue_push(crew_queue *queue, crew_list *list)
{
    if (!list->count)
        return CREW_OK;
    pthread_mutex_lock(&queue->mutex);
    bool fits = !queue->limit || queue->list.count + list->count <= queue->limit;
    bool was_empty = queue->list.count == 0;
    if (fits)
        crew_list_move(&queue->list, list);
    pthread_mutex_unlock(&queue->mutex);
    if (!fits)
        return CREW_OVERLOADED;
    if (was_empty)
        crew_queue_wake(queue);
    return CREW_OK;
}

void crew_queue_take(crew_queue *queue, crew_list *list)
{
    /* The fd first: what is pushed after this wakes again. */
    uint64_t count;
    ssize_t got = read(queue->fd, &count, sizeof count);
    (void)got;
    pthread_mutex_lock(&queue->mutex);
    crew_list_move(list, &queue->list);
    pthread_mutex_unlock(&queue->mutex);
}
