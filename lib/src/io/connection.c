/* Opening transports without waiting for them. */
#include "io/connection.h"

#include "core/thread.h"

#include <stdlib.h>

enum { SPARE_MESSAGES = 256 };

enum { IDLE, OPENING, THROUGH, LEFT };

struct crew_connection *crew_connection_new(const struct crew_transport_ops *ops, bool server, crew_url *url,
                                            const crew_transport_config *config, crew_queue *queue)
{
    struct crew_connection *c = calloc(1, sizeof *c);
    void *state = calloc(1, ops->size);
    if (!c || !state) {
        free(c);
        free(state);
        return NULL;
    }
    c->ops = ops;
    c->server = server;
    c->url = crew_url_hold(url);
    c->messages.spare_max = SPARE_MESSAGES;
    c->config = *config;
    c->config.url = c->url;
    c->config.lost = &c->lost;
    c->config.messages = &c->messages;
    c->state = state;
    c->queue = queue;
    return c;
}

static void destroy(struct crew_connection *c)
{
    crew_list_free(&c->messages.spare);
    crew_url_free(c->url);
    free(c->state);
    free(c);
}

/* After an opening that nobody wants any more. */
static void close_unused(struct crew_connection *c)
{
    crew_list unsent = { 0 };
    if (c->failure.status == CREW_OK)
        c->ops->close(c->state, 0, c->server ? NULL : &unsent);
    crew_list_free(&unsent);
}

static void *run(void *argument)
{
    struct crew_connection *c = argument;
    c->failure = (crew_error){ .status = CREW_OK };
    c->failure.status = c->ops->open(c->state, &c->config, &c->failure);
    if (atomic_exchange(&c->phase, THROUGH) != LEFT) {
        crew_queue_wake(c->queue); /* whoever frees the queue joins this thread first */
        return NULL;
    }
    close_unused(c);
    destroy(c);
    return NULL;
}

void crew_connection_open(struct crew_connection *c)
{
    c->opening = true;
    atomic_store(&c->phase, OPENING);
    crew_status status = crew_thread_start(&c->thread, "rpcrew-open", run, c, &c->failure);
    if (status != CREW_OK)
        atomic_store(&c->phase, IDLE);
}

bool crew_connection_is_through(struct crew_connection *c, crew_error *why)
{
    int phase = atomic_load(&c->phase);
    if (!c->opening || phase == OPENING)
        return false;
    if (phase == THROUGH)
        (void)pthread_join(c->thread, NULL);
    atomic_store(&c->phase, IDLE);
    c->opening = false;
    *why = c->failure;
    return true;
}

void crew_connection_free(struct crew_connection *c)
{
    if (!c)
        return;
    int phase = atomic_exchange(&c->phase, LEFT);
    if (phase == OPENING) {
        (void)pthread_detach(c->thread);
        return;
    }
    if (phase == THROUGH) {
        (void)pthread_join(c->thread, NULL);
        close_unused(c);
    }
    destroy(c);
}
