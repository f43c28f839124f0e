/* The pool's threads, and whose turn it is. */
#include "server/pool.h"

#include "core/thread.h"

#include <rpcrew/log.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct crew_pool_thread {
    pthread_t id;
    struct crew_pool *pool;
    struct crew_pool_thread *next; /* among those that have ended */
    bool in_slot;                  /* runs a handler */
    bool decodes;                  /* a message, and nobody else does */
};

/* One piece of work: a message to start, or a call of a job. */
struct work {
    crew_message *message;
    struct crew_job *job;
    size_t index;
};

/* ---- the rings; under the lock ---- */

static void push_messages(struct crew_pool *pool, crew_peer *peer)
{
    struct crew_ring *ring = &pool->messages;
    if (peer->turn.in_messages)
        return;
    peer->turn.in_messages = true;
    peer->turn.next_messages = NULL;
    if (ring->first)
        ring->last->turn.next_messages = peer;
    else
        ring->first = peer;
    ring->last = peer;
}

static void push_jobs(struct crew_pool *pool, crew_peer *peer)
{
    struct crew_ring *ring = &pool->jobs;
    if (peer->turn.in_jobs)
        return;
    peer->turn.in_jobs = true;
    peer->turn.next_jobs = NULL;
    if (ring->first)
        ring->last->turn.next_jobs = peer;
    else
        ring->first = peer;
    ring->last = peer;
}

static void add_message(struct crew_pool *pool, crew_message *message)
{
    struct crew_turn *turn = &message->peer->turn;
    message->next = NULL;
    if (turn->messages)
        turn->last_message->next = message;
    else
        turn->messages = message;
    turn->last_message = message;
    pool->waiting++;
    push_messages(pool, message->peer);
}

static void add_job(struct crew_pool *pool, crew_peer *peer, struct crew_job *job)
{
    struct crew_turn *turn = &peer->turn;
    job->next = NULL;
    if (turn->jobs)
        turn->last_job->next = job;
    else
        turn->jobs = job;
    turn->last_job = job;
    push_jobs(pool, peer);
}

/* The next peer's next message; the peer goes behind the others if it has more. */
static crew_message *take_message(struct crew_pool *pool)
{
    crew_peer *peer = pool->messages.first;
    crew_message *message = peer->turn.messages;
    pool->messages.first = peer->turn.next_messages;
    peer->turn.in_messages = false;
    peer->turn.messages = message->next;
    if (peer->turn.messages)
        push_messages(pool, peer);
    message->next = NULL;
    pool->waiting--;
    return message;
}

/* The next call of the next peer's first job, which goes behind that peer's others if it has more: a peer may
 * be a broker, with many callers behind it. */
static struct work take_call(struct crew_pool *pool)
{
    crew_peer *peer = pool->jobs.first;
    struct crew_job *job = peer->turn.jobs;
    struct work work = { .job = job, .index = job->cursor++ };
    pool->waiting--;
    pool->jobs.first = peer->turn.next_jobs;
    peer->turn.in_jobs = false;
    peer->turn.jobs = job->next;
    if (job->cursor < job->wire.count)
        add_job(pool, peer, job);
    else if (peer->turn.jobs)
        push_jobs(pool, peer);
    return work;
}

/* Whether one more handler may run: there is a slot, and beside it a thread for what comes. */
static bool slot_is_free(const struct crew_pool *pool)
{
    return pool->running + pool->returning < pool->slots && pool->alive - pool->blocked - pool->running > 1;
}

static bool has_call(const struct crew_pool *pool)
{
    return pool->jobs.first && slot_is_free(pool);
}

static bool has_message(const struct crew_pool *pool)
{
    return pool->messages.first && !pool->decoding;
}

/* What there is to do, of that which may be done now. */
static bool take(struct crew_pool *pool, bool any_slot, struct work *work)
{
    bool call = any_slot ? pool->jobs.first != NULL : has_call(pool);
    bool message = any_slot ? pool->messages.first != NULL : has_message(pool);
    if (call && message)
        call = pool->turn;
    if (!call && !message)
        return false;
    pool->turn = !call;
    *work = call ? take_call(pool) : (struct work){ .message = take_message(pool) };
    return true;
}

/* Whether one more thread is to be woken; then pool->wanted is to be signalled. */
static bool wakes(struct crew_pool *pool)
{
    bool wakes = pool->idle && !pool->waking;
    pool->waking = pool->waking || wakes;
    return wakes;
}

static void wake(struct crew_pool *pool)
{
    if (wakes(pool))
        pthread_cond_signal(&pool->wanted);
}

static void await_work(struct crew_pool *pool)
{
    pool->idle++;
    pthread_cond_wait(&pool->wanted, &pool->mutex);
    pool->idle--;
    pool->waking = false;
}

/* Keeps the eventfd in step with the rings. */
static void show(struct crew_pool *pool)
{
    if (pool->fd < 0)
        return;
    uint64_t count = 1;
    bool waits = pool->messages.first || pool->jobs.first;
    ssize_t done = waits ? write(pool->fd, &count, sizeof count) : read(pool->fd, &count, sizeof count);
    (void)done; /* full or empty is what it should be */
}

/* ---- threads ---- */

static _Thread_local struct crew_pool_thread *current;

/* More threads than there is a use for: the slots', one for what comes, and those that wait. */
static bool is_surplus(const struct crew_pool *pool)
{
    return pool->alive - pool->blocked > pool->slots + 1;
}

static void perform(struct crew_pool *pool, struct work work, crew_arena *scratch)
{
    if (work.message)
        pool->work->start(work.message, scratch);
    else
        pool->work->run(work.job, work.index, scratch);
}

static void *run(void *argument);

/* Joins those that have ended, which need the lock no more. */
static void join_all(struct crew_pool_thread *ended)
{
    while (ended) {
        struct crew_pool_thread *thread = ended;
        ended = thread->next;
        (void)pthread_join(thread->id, NULL);
        free(thread);
    }
}

static struct crew_pool_thread *take_ended(struct crew_pool *pool)
{
    struct crew_pool_thread *ended = pool->ended;
    pool->ended = NULL;
    return ended;
}

/* One that is counted as alive already, and no more if it cannot be had. Without the lock. */
static crew_status start_thread(struct crew_pool *pool, crew_error *why)
{
    struct crew_pool_thread *thread = calloc(1, sizeof *thread);
    crew_status status = thread ? CREW_OK : crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (thread) {
        pthread_t id; /* which the thread itself notes: it may have ended, and be freed, by then */
        thread->pool = pool;
        status = crew_thread_start(&id, "rpcrew-pool", run, thread, why);
    }
    if (status == CREW_OK)
        return CREW_OK;
    free(thread);
    pthread_mutex_lock(&pool->mutex);
    pool->alive--;
    pthread_mutex_unlock(&pool->mutex);
    return status;
}

/* A handler has left its slot, which is first of all for one that comes back. */
static void leave_slot(struct crew_pool *pool)
{
    pool->running--;
    if (pool->returning)
        pthread_cond_signal(&pool->returned);
}

/* A handler waits for a call: its slot is another's meanwhile, and there is a thread for that. */
static void begin_wait(void *context)
{
    struct crew_pool_thread *self = context;
    struct crew_pool *pool = self->pool;
    if (!self->in_slot)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->blocked++;
    leave_slot(pool);
    bool short_of =
        pool->alive - pool->blocked < pool->slots + 1 && pool->alive < pool->most && !pool->closed;
    pool->alive += short_of;
    struct crew_pool_thread *ended = take_ended(pool);
    wake(pool);
    pthread_mutex_unlock(&pool->mutex);
    join_all(ended);
    if (short_of && start_thread(pool, NULL) != CREW_OK)
        crew_log(CREW_LOG_WARN, "no thread for a handler that waits", NULL);
}

/* It goes on when there is a slot for it, before others that have not begun. */
static void end_wait(void *context)
{
    struct crew_pool_thread *self = context;
    struct crew_pool *pool = self->pool;
    if (!self->in_slot)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->returning++;
    while (pool->running >= pool->slots && !pool->closed)
        pthread_cond_wait(&pool->returned, &pool->mutex);
    pool->returning--;
    pool->running++;
    pool->blocked--;
    if (is_surplus(pool))
        wake(pool);
    pthread_mutex_unlock(&pool->mutex);
}

/* With one handler at a time they run in the order of their messages: so those are decoded one after another.
 */
static void end_decoding(struct crew_pool_thread *self)
{
    struct crew_pool *pool = self->pool;
    if (!self->decodes)
        return;
    self->decodes = pool->decoding = false;
    if (pool->messages.first)
        wake(pool);
}

static void *run(void *argument)
{
    struct crew_pool_thread *self = argument;
    self->id = pthread_self();
    struct crew_pool *pool = self->pool;
    const struct crew_waiting_hook hook = { begin_wait, end_wait, self };
    crew_arena scratch = { 0 };
    crew_thread_set_hook(&hook);
    current = self;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->closed) {
        struct work work;
        if (!take(pool, false, &work)) {
            if (is_surplus(pool))
                break;
            await_work(pool);
            continue;
        }
        pool->running += self->in_slot = work.job != NULL;
        pool->decoding |= self->decodes = work.message && pool->slots == 1;
        bool more = (has_call(pool) || has_message(pool)) && wakes(pool);
        pthread_mutex_unlock(&pool->mutex);
        if (more)
            pthread_cond_signal(&pool->wanted);
        perform(pool, work, &scratch);
        pthread_mutex_lock(&pool->mutex);
        if (self->in_slot)
            leave_slot(pool);
        self->in_slot = false;
        end_decoding(self);
    }
    pool->alive--;
    if (is_surplus(pool))
        wake(pool);
    self->next = pool->ended;
    pool->ended = self;
    pthread_cond_signal(&pool->left);
    pthread_mutex_unlock(&pool->mutex);
    crew_arena_fini(&scratch);
    return NULL;
}

/* ---- what others call ---- */

size_t crew_pool_waiting(struct crew_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    size_t count = pool->waiting;
    pthread_mutex_unlock(&pool->mutex);
    return count;
}

bool crew_pool_step(struct crew_pool *pool, crew_arena *scratch)
{
    struct work work;
    pthread_mutex_lock(&pool->mutex);
    bool found = take(pool, true, &work);
    show(pool);
    pthread_mutex_unlock(&pool->mutex);
    if (found)
        perform(pool, work, scratch);
    return found;
}

void crew_pool_allow(struct crew_pool *pool, unsigned more)
{
    pthread_mutex_lock(&pool->mutex);
    pool->most += more;
    pthread_mutex_unlock(&pool->mutex);
}

void crew_pool_submit(struct crew_pool *pool, crew_list *list)
{
    pthread_mutex_lock(&pool->mutex);
    for (crew_message *m; (m = crew_list_take(list));)
        add_message(pool, m);
    show(pool);
    bool more = has_message(pool) && wakes(pool);
    pthread_mutex_unlock(&pool->mutex);
    if (more)
        pthread_cond_signal(&pool->wanted);
}

static bool goes_back(const struct crew_pool *pool, const crew_peer *peer)
{
    return pool->gives_back && peer->requeue >= pool->gives_back;
}

bool crew_pool_take_on(struct crew_pool *pool, struct crew_job *job, crew_peer *peer, bool needs_slot,
                       crew_arena *scratch)
{
    struct crew_pool_thread *self = current && current->pool == pool ? current : NULL;
    size_t count = job->wire.count;
    pthread_mutex_lock(&pool->mutex);
    if (goes_back(pool, peer)) {
        pthread_mutex_unlock(&pool->mutex);
        return false;
    }
    bool free_slot = slot_is_free(pool) && !pool->jobs.first; /* else it is another's turn */
    bool now = !needs_slot || (count == 1 && (!self || free_slot));
    if (now && needs_slot && self)
        pool->running += self->in_slot = true;
    if (now)
        job->cursor = (uint32_t)count;
    else
        add_job(pool, peer, job);
    pool->waiting += now ? 0 : count;
    if (self)
        end_decoding(self);
    show(pool);
    if (!now && count > 1) /* under the lock: the pool may be freed when the job is done */
        wake(pool);
    pthread_mutex_unlock(&pool->mutex);
    for (size_t i = 0; now && i < count; i++)
        pool->work->run(job, i, scratch);
    return true;
}

/* Takes the jobs that are not begun off a peer. */
static struct crew_job **take_jobs(struct crew_pool *pool, struct crew_turn *turn, struct crew_job **last)
{
    struct crew_job **at = &turn->jobs;
    turn->last_job = NULL;
    for (struct crew_job *job; (job = *at);) {
        if (job->cursor) {
            turn->last_job = job;
            at = &job->next;
            continue;
        }
        *at = job->next;
        job->next = NULL;
        pool->waiting -= job->wire.count;
        *last = job;
        last = &job->next;
    }
    return last;
}

void crew_pool_take_back(struct crew_pool *pool, crew_requeue when, crew_list *messages,
                         struct crew_job **jobs)
{
    *jobs = NULL;
    pthread_mutex_lock(&pool->mutex);
    pool->gives_back = when;
    crew_peer *with_messages = pool->messages.first, *with_jobs = pool->jobs.first;
    pool->messages = pool->jobs = (struct crew_ring){ NULL, NULL };
    while (with_messages) {
        crew_peer *peer = with_messages;
        with_messages = peer->turn.next_messages;
        peer->turn.in_messages = false;
        for (crew_message *m = goes_back(pool, peer) ? peer->turn.messages : NULL, *next; m; m = next) {
            next = m->next;
            crew_list_append(messages, m);
            pool->waiting--;
        }
        if (goes_back(pool, peer))
            peer->turn.messages = NULL;
        else
            push_messages(pool, peer);
    }
    while (with_jobs) {
        crew_peer *peer = with_jobs;
        with_jobs = peer->turn.next_jobs;
        peer->turn.in_jobs = false;
        if (goes_back(pool, peer))
            jobs = take_jobs(pool, &peer->turn, jobs);
        if (peer->turn.jobs)
            push_jobs(pool, peer);
    }
    show(pool);
    pthread_mutex_unlock(&pool->mutex);
}

crew_status crew_pool_init(struct crew_pool *pool, unsigned slots, unsigned spare,
                           const struct crew_pool_work *work, crew_error *why)
{
    *pool = (struct crew_pool){ .work = work, .slots = slots, .most = slots + 1 + spare, .fd = -1 };
    (void)pthread_mutex_init(&pool->mutex, NULL);
    (void)pthread_cond_init(&pool->wanted, NULL);
    (void)pthread_cond_init(&pool->returned, NULL);
    (void)pthread_cond_init(&pool->left, NULL);
    crew_status status = CREW_OK;
    if (slots == 0) {
        pool->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (pool->fd < 0)
            status = crew_error_set(why, CREW_SYSTEM, "eventfd: %s", strerror(errno));
    }
    for (unsigned i = 0; slots && i <= slots && status == CREW_OK; i++) {
        pthread_mutex_lock(&pool->mutex);
        pool->alive++;
        pthread_mutex_unlock(&pool->mutex);
        status = start_thread(pool, why);
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
    pthread_cond_broadcast(&pool->wanted);
    pthread_cond_broadcast(&pool->returned);
    while (pool->alive)
        pthread_cond_wait(&pool->left, &pool->mutex);
    struct crew_pool_thread *ended = take_ended(pool);
    pthread_mutex_unlock(&pool->mutex);
    join_all(ended);
}

void crew_pool_fini(struct crew_pool *pool)
{
    while (pool->messages.first)
        crew_message_free(take_message(pool));
    if (pool->fd >= 0)
        close(pool->fd);
    (void)pthread_cond_destroy(&pool->left);
    (void)pthread_cond_destroy(&pool->returned);
    (void)pthread_cond_destroy(&pool->wanted);
    (void)pthread_mutex_destroy(&pool->mutex);
}
