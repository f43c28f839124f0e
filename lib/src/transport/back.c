/* back://…: what calls that a handler makes to its caller go by (crew_call_client): no connection of its own,
 * but the one that the caller has to the worker. */
#include "core/back.h"
#include "transport/transports.h"

#include <poll.h>

struct caller {
    const crew_transport_config *config;
    struct crew_back *back;
    crew_list events;
    size_t expected; /* answers */
};

static crew_status caller_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct caller *c = state;
    *c = (struct caller){ .config = config };
    crew_backs_lock();
    c->back = crew_back_named(crew_url_host(config->url, 0));
    bool over = !c->back || crew_back_is_over(c->back);
    crew_backs_unlock();
    if (!over)
        return CREW_OK;
    if (c->back)
        crew_back_release(c->back);
    return crew_error_set(why, CREW_NO_SERVICE, "the caller has gone");
}

static crew_status caller_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct caller *c = state;
    struct pollfd item = { .fd = wake_fd, .events = POLLIN };
    crew_backs_lock();
    c->back->wake = c->config->queue; /* not before: an opening may be left alone, and outlive the queue */
    bool some =
        c->events.count || (c->back->inbox.count && crew_room_is_left(room)) || crew_back_is_over(c->back);
    crew_backs_unlock();
    (void)poll(&item, 1, some ? 0 : timeout_ms);
    return CREW_OK;
}

/* A copy for the worker's thread, since the client keeps its own. */
static crew_message *copy_of(const struct caller *c, const crew_message *m)
{
    bool answers = m->kind == CREW_SETTLE_REPLY;
    const crew_buffer *bytes = answers ? &m->reply : &m->body;
    crew_message *copy = crew_message_new();
    if (!copy)
        return NULL;
    copy->kind = CREW_MESSAGE_REQUEST;
    copy->content_type = m->content_type;
    copy->peer = crew_peer_hold(c->back->peer);
    copy->endpoint = c->back->endpoint;
    crew_buffer_append(&copy->body, bytes->data, bytes->size);
    if (!copy->body.failed)
        return copy;
    crew_message_free(copy);
    return NULL;
}

static crew_status caller_send(void *state, crew_list *messages)
{
    struct caller *c = state;
    crew_list out = { 0 };
    while (messages->head) {
        crew_message *copy = copy_of(c, messages->head);
        if (!copy)
            return CREW_NO_MEMORY;
        crew_list_append(&out, copy);
        crew_message *m = crew_list_take(messages);
        if (!m->one_way) {
            c->expected++;
            atomic_fetch_add(&c->back->peer->expects, 1);
        }
        m->kind = m->one_way ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
        crew_list_append(&c->events, m);
        c->back->home->push(c->back->endpoint, &out);
    }
    return CREW_OK;
}

static crew_status caller_recv(void *state, crew_list *messages, crew_room *room)
{
    struct caller *c = state;
    crew_list_move(messages, &c->events);
    crew_backs_lock();
    bool ends = crew_back_is_over(c->back);
    while (c->back->inbox.count && crew_room_is_left(room)) {
        crew_message *m = crew_list_take(&c->back->inbox);
        (void)crew_room_take(room, NULL, m->body.size);
        crew_peer_release(m->peer);
        m->peer = NULL;
        m->kind = CREW_EVENT_REPLY;
        if (c->expected) {
            c->expected--;
            atomic_fetch_sub(&c->back->peer->expects, 1);
        }
        crew_list_append(messages, m);
    }
    bool over = ends && !c->back->inbox.count;
    crew_backs_unlock();
    return over ? crew_error_set(c->config->lost, CREW_DISCONNECTED, "the caller has gone") : CREW_OK;
}

static void caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct caller *c = state;
    (void)linger_ms; /* what was sent is the worker's to write */
    (void)unsent;
    crew_backs_lock();
    if (c->back->wake == c->config->queue)
        c->back->wake = NULL;
    crew_backs_unlock();
    atomic_fetch_sub(&c->back->peer->expects, c->expected);
    crew_list_free(&c->events);
    crew_back_release(c->back);
}

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    if (server)
        return crew_error_set(why, CREW_UNSUPPORTED, "URL '%s': crew_call_client makes these",
                              crew_url_text(url));
    return CREW_OK;
}

static const struct crew_transport_ops caller_ops = { .size = sizeof(struct caller),
                                                      .open = caller_open,
                                                      .wait = caller_wait,
                                                      .send = caller_send,
                                                      .recv = caller_recv,
                                                      .close = caller_close };

const crew_transport crew_back = { .scheme = "back", .hidden = true, .check = check, .client = &caller_ops };
