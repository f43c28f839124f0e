/* inproc://name: workers and callers in one process. The reference of a transport, and the double for tests.
 *
 * A name is a hub, as a queue is in a broker: workers take from its one list of waiting requests, callers get
 * what comes back in inboxes of their own. A worker that leaves with requests unanswered breaks the
 * connections of all callers of the hub; requests that nobody has taken wait for the next worker. */
#include "core/queue.h"
#include "transport/transports.h"

#include <poll.h>
#include <stdlib.h>

enum { WAITING_MAX = 65536 };

enum side { SERVER, CLIENT };

struct end {
    struct end *next; /* in the hub */
    struct hub *hub;
    const crew_transport_config *config;
    crew_queue inbox; /* client: replies, from the workers' threads; server: only woken, when requests wait */
    uint64_t id;
    size_t unsettled; /* server: requests taken and not settled */
    bool paused;      /* server: takes no more */
    bool lost;        /* client: under the hub's lock */
    crew_list events; /* client: what recv gives next */
};

struct hub {
    struct hub *next;
    unsigned uses; /* under the list's lock, as next is */
    char *name;
    pthread_mutex_t mutex; /* of all below */
    crew_list waiting;
    struct end *ends[2];
    uint64_t last_id;
};

/* In a request's arena. */
struct route {
    uint64_t client;
    uint32_t correlation;
};

static pthread_mutex_t hubs_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct hub *hubs;

static struct hub *enter_hub(const char *name)
{
    pthread_mutex_lock(&hubs_mutex);
    struct hub *hub = hubs;
    while (hub && strcmp(hub->name, name) != 0)
        hub = hub->next;
    if (!hub && (hub = calloc(1, sizeof *hub)) && (hub->name = strdup(name))) {
        (void)pthread_mutex_init(&hub->mutex, NULL);
        hub->next = hubs;
        hubs = hub;
    }
    bool good = hub && hub->name;
    if (good)
        hub->uses++;
    else
        free(hub);
    pthread_mutex_unlock(&hubs_mutex);
    return good ? hub : NULL;
}

static void leave_hub(struct hub *hub)
{
    pthread_mutex_lock(&hubs_mutex);
    if (--hub->uses == 0) {
        struct hub **at = &hubs;
        while (*at != hub)
            at = &(*at)->next;
        *at = hub->next;
        crew_list_free(&hub->waiting);
        (void)pthread_mutex_destroy(&hub->mutex);
        free(hub->name);
        free(hub);
    }
    pthread_mutex_unlock(&hubs_mutex);
}

static crew_status open_end(struct end *end, const crew_transport_config *config, enum side side,
                            crew_error *why)
{
    *end = (struct end){ .config = config };
    crew_status status = crew_queue_init(&end->inbox, 0, why);
    if (status != CREW_OK)
        return status;
    end->hub = enter_hub(crew_url_host(config->url, 0));
    if (!end->hub) {
        crew_queue_fini(&end->inbox);
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    }
    pthread_mutex_lock(&end->hub->mutex);
    end->id = ++end->hub->last_id;
    end->next = end->hub->ends[side];
    end->hub->ends[side] = end;
    pthread_mutex_unlock(&end->hub->mutex);
    return CREW_OK;
}

/* Takes the end out of its hub's list, if it is there; under the hub's lock. */
static void detach(struct end *end, enum side side)
{
    struct end **at = &end->hub->ends[side];
    while (*at && *at != end)
        at = &(*at)->next;
    if (*at)
        *at = end->next;
}

static void wake_all(struct end *end)
{
    for (; end; end = end->next)
        crew_queue_wake(&end->inbox);
}

static crew_status wait_for(int own_fd, int wake_fd, int timeout_ms)
{
    struct pollfd fds[] = { { .fd = own_fd, .events = POLLIN }, { .fd = wake_fd, .events = POLLIN } };
    (void)poll(fds, 2, timeout_ms);
    return CREW_OK;
}

/* ---- worker ---- */

static crew_status server_open(void *state, const crew_transport_config *config, crew_error *why)
{
    return open_end(state, config, SERVER, why);
}

static crew_status server_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct end *s = state;
    bool left = crew_room_is_left(room);
    pthread_mutex_lock(&s->hub->mutex);
    bool ready = left && !s->paused && s->hub->waiting.count;
    pthread_mutex_unlock(&s->hub->mutex);
    return ready ? CREW_OK : wait_for(left ? s->inbox.fd : -1, wake_fd, timeout_ms);
}

static crew_status server_recv(void *state, crew_list *messages, crew_room *room)
{
    struct end *s = state;
    crew_queue_take(&s->inbox, messages); /* quietens the fd: the inbox itself is empty */
    pthread_mutex_lock(&s->hub->mutex);
    for (const crew_message *m; !s->paused && (m = s->hub->waiting.head); s->unsettled++) {
        if (!crew_room_take(room, NULL, m->body.size))
            break;
        crew_list_append(messages, crew_list_take(&s->hub->waiting));
    }
    pthread_mutex_unlock(&s->hub->mutex);
    return CREW_OK;
}

static crew_status deliver(struct hub *hub, crew_message *answered)
{
    const struct route *route = answered->mine;
    struct end *client = hub->ends[CLIENT];
    while (client && client->id != route->client)
        client = client->next;
    crew_message *reply = client ? crew_message_new() : NULL;
    if (!reply)
        return client ? CREW_NO_MEMORY : CREW_DISCONNECTED;
    crew_list one = { 0 };
    reply->kind = CREW_EVENT_REPLY;
    reply->correlation = route->correlation;
    reply->content_type = answered->content_type;
    reply->body = answered->reply;
    answered->reply = (crew_buffer){ 0 };
    crew_list_append(&one, reply);
    crew_status status = crew_queue_push(&client->inbox, &one);
    if (status != CREW_OK) {
        answered->reply = reply->body;
        reply->body = (crew_buffer){ 0 };
        crew_list_free(&one);
    }
    return status;
}

static void requeue(crew_message *m, crew_list *back)
{
    m->kind = CREW_MESSAGE_REQUEST;
    crew_list_append(back, m);
}

static crew_status server_send(void *state, crew_list *messages)
{
    struct end *s = state;
    struct hub *hub = s->hub;
    crew_list back = { 0 }, ended = { 0 };
    pthread_mutex_lock(&hub->mutex);
    for (crew_message *m; (m = crew_list_take(messages)); s->unsettled--) {
        if (m->kind == CREW_SETTLE_REPLY)
            m->status = deliver(hub, m);
        if (m->kind == CREW_SETTLE_REQUEUE)
            requeue(m, &back);
        else
            crew_list_append(&ended, m);
    }
    if (back.count) { /* to the front, where they were */
        crew_list_move(&back, &hub->waiting);
        hub->waiting = back;
        wake_all(hub->ends[SERVER]);
    }
    pthread_mutex_unlock(&hub->mutex);
    for (crew_message *m; (m = crew_list_take(&ended));) {
        crew_transport_answered(s->config, m, m->status);
        crew_message_give(s->config->messages, m);
    }
    return CREW_OK;
}

static void server_unlisten(void *state)
{
    struct end *s = state;
    pthread_mutex_lock(&s->hub->mutex);
    detach(s, SERVER);
    pthread_mutex_unlock(&s->hub->mutex);
}

static void server_pause(void *state)
{
    struct end *s = state;
    s->paused = true;
}

static void server_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct end *s = state;
    (void)linger_ms;
    (void)unsent;
    pthread_mutex_lock(&s->hub->mutex);
    detach(s, SERVER);
    for (struct end *c = s->unsettled ? s->hub->ends[CLIENT] : NULL; c; c = c->next)
        c->lost = true;
    wake_all(s->hub->ends[CLIENT]);
    pthread_mutex_unlock(&s->hub->mutex);
    crew_queue_fini(&s->inbox);
    leave_hub(s->hub);
}

/* ---- caller ---- */

static crew_status client_open(void *state, const crew_transport_config *config, crew_error *why)
{
    return open_end(state, config, CLIENT, why);
}

static crew_status client_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct end *c = state;
    return c->events.count && crew_room_is_left(room) ? CREW_OK : wait_for(c->inbox.fd, wake_fd, timeout_ms);
}

/* The request as the worker gets it; NULL without memory. */
static crew_message *copy_request(const struct end *c, const crew_message *sent)
{
    crew_message *m = crew_message_new();
    struct route *route = m ? crew_arena_alloc(&m->arena, sizeof *route) : NULL;
    if (m)
        crew_buffer_append(&m->body, sent->body.data, sent->body.size);
    if (!route || m->body.failed) {
        crew_message_free(m);
        return NULL;
    }
    *route = (struct route){ .client = c->id, .correlation = sent->correlation };
    m->mine = route;
    m->origin = (crew_string){ (const char *)&route->client, sizeof route->client };
    m->key = (crew_string){ (const char *)&route->correlation, sizeof route->correlation };
    m->content_type = sent->content_type;
    m->deadline_ms = sent->deadline_ms;
    m->one_way = sent->one_way;
    return m;
}

static crew_message_kind hand_over(const struct end *c, const crew_message *sent)
{
    struct hub *hub = c->hub;
    size_t most = crew_url_number(c->config->url, "queue_max", WAITING_MAX);
    if (!hub->ends[SERVER])
        return CREW_EVENT_UNROUTABLE;
    crew_message *copy = hub->waiting.count < most ? copy_request(c, sent) : NULL;
    if (!copy)
        return CREW_EVENT_REFUSED;
    crew_list_append(&hub->waiting, copy);
    return sent->one_way ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
}

static crew_status client_send(void *state, crew_list *messages)
{
    struct end *c = state;
    pthread_mutex_lock(&c->hub->mutex);
    for (crew_message *m; (m = crew_list_take(messages));) {
        m->kind = hand_over(c, m);
        crew_list_append(&c->events, m);
    }
    wake_all(c->hub->ends[SERVER]);
    pthread_mutex_unlock(&c->hub->mutex);
    return CREW_OK;
}

/* What has come waits among the events until there is room for it. */
static crew_status client_recv(void *state, crew_list *messages, crew_room *room)
{
    struct end *c = state;
    crew_queue_take(&c->inbox, &c->events); /* first, since that takes the wake-up too, */
    pthread_mutex_lock(&c->hub->mutex);
    bool lost = c->lost;
    pthread_mutex_unlock(&c->hub->mutex);
    if (lost) /* and once more: what came by then is in it */
        crew_queue_take(&c->inbox, &c->events);
    while (c->events.head && (c->events.head->kind != CREW_EVENT_REPLY ||
                              crew_room_take(room, NULL, c->events.head->body.size)))
        crew_list_append(messages, crew_list_take(&c->events));
    if (!lost || c->events.head)
        return CREW_OK;
    return crew_error_set(c->config->lost, CREW_DISCONNECTED, "a worker has left with requests unanswered");
}

static void client_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct end *c = state;
    (void)linger_ms;
    (void)unsent; /* what send was given has been handed over, or is an event */
    crew_list_free(&c->events);
    pthread_mutex_lock(&c->hub->mutex);
    detach(c, CLIENT);
    pthread_mutex_unlock(&c->hub->mutex);
    crew_queue_fini(&c->inbox);
    leave_hub(c->hub);
}

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    (void)server;
    if (crew_url_host_count(url) == 1 && *crew_url_host(url, 0) && !*crew_url_path(url))
        return CREW_OK;
    return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': inproc wants one name, and no path",
                          crew_url_text(url));
}

static const crew_url_option_spec options[] = {
    { "queue_max", NULL, 1, 1 << 24, "client: requests waiting for a worker, beyond which they are refused" },
    { NULL, NULL, 0, 0, NULL },
};

static crew_requeue requeue_first(const crew_url *url)
{
    (void)url;
    return CREW_REQUEUE_FIRST;
}

static const struct crew_transport_ops server_ops = {
    .size = sizeof(struct end),
    .requeue = requeue_first,
    .open = server_open,
    .wait = server_wait,
    .send = server_send,
    .recv = server_recv,
    .unlisten = server_unlisten,
    .pause = server_pause,
    .close = server_close,
};

static const struct crew_transport_ops client_ops = {
    .size = sizeof(struct end),
    .open = client_open,
    .wait = client_wait,
    .send = client_send,
    .recv = client_recv,
    .close = client_close,
};

const crew_transport crew_inproc = { .scheme = "inproc",
                                     .carries_types = true,
                                     .options = options,
                                     .check = check,
                                     .server = &server_ops,
                                     .client = &client_ops };
