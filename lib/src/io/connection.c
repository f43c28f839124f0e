/* Opening transports without waiting for them. */
#include "io/connection.h"

#include <stdlib.h>

enum { SPARE_MESSAGES = 256 };

static void destroy(struct crew_connection *c)
{
    crew_list_free(&c->messages.spare);
    crew_opening_fini(&c->way);
    crew_url_free(c->url);
    free(c->state);
    free(c);
}

static void run(void *connection)
{
    struct crew_connection *c = connection;
    c->failure = (crew_error){ .status = CREW_OK };
    c->failure.status = c->ops->open(c->state, &c->config, &c->failure);
    (void)crew_opening_waits_for(&c->way, -1);
}

/* After an opening that nobody wants any more. */
static void abandon(void *connection)
{
    struct crew_connection *c = connection;
    crew_list unsent = { 0 };
    if (c->failure.status == CREW_OK)
        c->ops->close(c->state, 0, c->server ? NULL : &unsent);
    crew_list_free(&unsent);
    destroy(c);
}

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
    c->config.queue = queue;
    crew_opening_init(&c->way);
    c->config.opening = &c->way;
    c->state = state;
    c->task = (struct crew_task){
        .run = run, .abandon = abandon, .context = c, .queue = queue, .opening = &c->way
    };
    return c;
}

void crew_connection_open(struct crew_connection *c)
{
    c->opening = true;
    crew_status status = crew_task_start(&c->task, "rpcrew-open", &c->failure);
    (void)status; /* in failure as well */
}

bool crew_connection_is_through(struct crew_connection *c, crew_error *why)
{
    if (!c->opening || (c->task.started && !crew_task_is_through(&c->task)))
        return false;
    c->opening = false;
    *why = c->failure;
    return true;
}

void crew_connection_free(struct crew_connection *c)
{
    if (c && !crew_task_leave(&c->task))
        destroy(c);
}
