/* The pool's threads and what they take. */
#include "server/pool.h"

#include "core/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* One piece of work: a message to start, or a call of a job. */
struct work {
    crew_message *message;
    struct crew_job *job;
    size_t index;
};

static bool has_work(const struct crew_pool *pool)
{
    return pool->waiting.count || pool->shared;
}

/* Keeps the eventfd in step with the queues; under the lock. */
static void show(struct crew_pool *pool)
{
    if (pool->fd < 0)
        return;
    uint64_t count = 1;
    ssize_t done =
        has_work(pool) ? write(pool->fd, &count, sizeof count) : read(pool->fd, &count, sizeof count);
    (void)done; /* full or empty is what it should be */
}

/* A job's next call. The job goes behind the others, or leaves when nothing of it is left to take. */
static struct work take_call(struct crew_pool *pool)
{
    struct crew_job *job = pool->shared;
    struct work work = { .job = job, .index = job->cursor++ };
    bool more = job->cursor < job->wire.count;
    if (more && pool->shared_last == job)
        return work;
    pool->shared = job->next;
    job->next = NULL;
    if (more) {
        pool->shared_last->next = job;
        pool->shared_last = job;
    }
    return work;
}

static struct work take(struct crew_pool *pool)
{
    bool call = pool->shared && (pool->turn || !pool->waiting.count);
    pool->turn = !call;
    if (call)
        return take_call(pool);
    return (struct work){ .message = crew_list_take(&pool->waiting) };
}

static void perform(struct crew_pool *pool, struct work work, crew_arena *scratch)
{
    if (work.message)
        pool->start(work.message, scratch);
    else
        crew_job_run(work.job, work.index, scratch);
}

static void *run(void *argument)
{
    struct crew_pool *pool = argument;
    crew_arena scratch = { 0 };
    pthread_mutex_lock(&pool->mutex);
    while (!pool->closed) {
        if (!has_work(pool)) {
            pthread_cond_wait(&pool->wanted, &pool->mutex);
            continue;
        }
        struct work work = take(pool);
        pthread_mutex_unlock(&pool->mutex);
        perform(pool, work, &scratch);
        pthread_mutex_lock(&pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    crew_arena_fini(&scratch);
    return NULL;
}

bool crew_pool_step(struct crew_pool *pool, crew_arena *scratch)
{
    pthread_mutex_lock(&pool->mutex);
    bool found = has_work(pool);
    struct work work = { 0 };
    if (found) {
        work = take(pool);
        show(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    if (found)
        perform(pool, work, scratch);
    return found;
}

void crew_pool_submit(struct crew_pool *pool, crew_list *list)
{
    size_t count = list->count;
    pthread_mutex_lock(&pool->mutex);
    crew_list_move(&pool->waiting, list);
    show(pool);
    pthread_mutex_unlock(&pool->mutex);
    if (count == 1)
        pthread_cond_signal(&pool->wanted);
    else if (count)
        pthread_cond_broadcast(&pool->wanted);
}

void crew_pool_share(struct crew_pool *pool, struct crew_job *job)
{
    pthread_mutex_lock(&pool->mutex);
    if (pool->shared)
        pool->shared_last->next = job;
    else
        pool->shared = job;
    pool->shared_last = job;
    show(pool);
    pthread_cond_broadcast(&pool->wanted); /* under the lock: the pool may be freed when the job is done */
    pthread_mutex_unlock(&pool->mutex);
}

void crew_pool_take_back(struct crew_pool *pool, crew_list *list)
{
    pthread_mutex_lock(&pool->mutex);
    crew_list_move(list, &pool->waiting);
    show(pool);
    pthread_mutex_unlock(&pool->mutex);
}

crew_status crew_pool_init(struct crew_pool *pool, unsigned count,
                           void (*start)(crew_message *, crew_arena *), crew_error *why)
{
    *pool = (struct crew_pool){ .start = start, .fd = -1 };
    (void)pthread_mutex_init(&pool->mutex, NULL);
    (void)pthread_cond_init(&pool->wanted, NULL);
    crew_status status = CREW_OK;
    if (count == 0) {
        pool->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (pool->fd < 0)
            status = crew_error_set(why, CREW_SYSTEM, "eventfd: %s", strerror(errno));
    } else {
        pool->threads = calloc(count, sizeof *pool->threads);
        if (!pool->threads)
            status = crew_error_set(why, CREW_NO_MEMORY, "no memory");
    }
    while (status == CREW_OK && pool->thread_count < count) {
        status = crew_thread_start(&pool->threads[pool->thread_count], "rpcrew-pool", run, pool, why);
        pool->thread_count += status == CREW_OK;
    }
    if (status != CREW_OK) {
        crew_pool_stop(pool);
        crew_pool_fini(pool);
    }
    return status;
}

void crew_pool_stop(struct crew_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->closed = true;
    pthread_mutex_unlock(&pool->mutex);
    pthread_cond_broadcast(&pool->wanted);
    for (unsigned i = 0; i < pool->thread_count; i++)
        (void)pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    pool->threads = NULL;
    pool->thread_count = 0;
}

void crew_pool_fini(struct crew_pool *pool)
{
    crew_list_free(&pool->waiting);
    if (pool->fd >= 0)
        close(pool->fd);
    (void)pthread_cond_destroy(&pool->wanted);
    (void)pthread_mutex_destroy(&pool->mutex);
}
