/* callback://name: a worker whose requests and answers go through two functions of the user's
 * (crew_server_listen_with). What they do is theirs; that each request is answered once is ours. */
#include "transport/transports.h"

#include <rpcrew/server.h>

#include <assert.h>
#include <poll.h>
#include <stdlib.h>

/* A request that its functions have not been told the end of, or a place for one. */
struct place {
    void *route;
    bool taken;
    uint32_t next; /* of the free ones, counted from 1; 0: none */
};

struct state {
    const crew_transport_config *config;
    struct place *places;  /* in_flight_max */
    uint32_t free;         /* the first of them, as next is */
    crew_message *arrived; /* while waiting, and not given out */
    bool paused;
};

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    if (!server)
        return crew_error_set(why, CREW_UNSUPPORTED, "URL '%s': nothing can be called there",
                              crew_url_text(url));
    if (crew_url_host_count(url) == 1 && *crew_url_host(url, 0) && !*crew_url_path(url))
        return CREW_OK;
    return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': callback wants one name, and no path",
                          crew_url_text(url));
}

static crew_status open_it(void *state, const crew_transport_config *config, crew_error *why)
{
    struct state *s = state;
    if (!config->callbacks)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s' is for crew_server_listen_with",
                              crew_url_text(config->url));
    *s = (struct state){ .config = config, .free = 1 };
    s->places = calloc(config->in_flight_max, sizeof *s->places);
    if (!s->places)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    for (uint32_t i = 0; i + 1 < config->in_flight_max; i++)
        s->places[i].next = i + 2;
    return CREW_OK;
}

static struct place *take_place(struct state *s, void *route)
{
    assert(s->free); /* no more are received than may be in flight */
    struct place *place = &s->places[s->free - 1];
    s->free = place->next;
    *place = (struct place){ .route = route, .taken = true };
    return place;
}

/* The request's functions hear of its end, and its place is free again. */
static void end(struct state *s, struct place *at, const crew_answer *answer)
{
    const crew_callbacks *callbacks = s->config->callbacks;
    callbacks->reply(callbacks->context, at->route, answer);
    *at = (struct place){ .next = s->free };
    s->free = (uint32_t)(at - s->places) + 1;
}

static crew_status fill(crew_message *m, const crew_request *request)
{
    crew_status status = CREW_OK;
    const crew_string route = { (const char *)&request->route, sizeof request->route };
    m->content_type = NULL;
    m->one_way = request->one_way;
    m->deadline_ms = request->timeout_ms ? crew_now_ms() + request->timeout_ms : 0;
    m->origin = crew_arena_string(&m->arena, route);
    if (request->content_type)
        m->content_type = crew_arena_string(&m->arena, crew_str(request->content_type)).data;
    crew_buffer_append(&m->body, request->bytes.data, request->bytes.size);
    if (!m->origin.data || m->body.failed || (request->content_type && !m->content_type))
        status = CREW_NO_MEMORY;
    else if (request->headers && crew_value_type(request->headers) != CREW_TYPE_OBJECT)
        status = CREW_BAD_ARGUMENT;
    else if (request->headers)
        status = crew_value_copy(&m->arena, request->headers, &m->headers);
    return status;
}

static crew_status pass_time(int wake_fd, int timeout_ms)
{
    struct pollfd fd = { .fd = wake_fd, .events = POLLIN };
    (void)poll(&fd, 1, timeout_ms);
    return CREW_OK;
}

/* One request, to arrived. Without memory it is left where it is, for a little while; one that was received
 * and cannot be kept ends, and costs the others nothing. */
static crew_status receive(struct state *s, int wake_fd, int timeout_ms)
{
    enum { LITTLE_MS = 10 };
    const crew_callbacks *callbacks = s->config->callbacks;
    crew_request request = { 0 };
    crew_message *m = crew_message_take(s->config->messages);
    if (!m)
        return pass_time(wake_fd, timeout_ms >= 0 && timeout_ms < LITTLE_MS ? timeout_ms : LITTLE_MS);
    crew_status status = callbacks->receive(callbacks->context, wake_fd, timeout_ms, &request);
    if (status != CREW_OK) {
        crew_message_give(s->config->messages, m);
        return status == CREW_TIMEOUT ? CREW_OK : status;
    }
    struct place *place = take_place(s, request.route);
    status = fill(m, &request);
    if (status != CREW_OK) {
        crew_message_give(s->config->messages, m);
        end(s, place, &(crew_answer){ .status = status });
        return CREW_OK;
    }
    m->mine = place;
    s->arrived = m;
    return CREW_OK;
}

static crew_status wait_for(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct state *s = state;
    bool left = crew_room_is_left(room) && s->free;
    if (s->arrived && left)
        return CREW_OK;
    if (!left || s->paused)
        return pass_time(wake_fd, timeout_ms);
    return receive(s, wake_fd, timeout_ms);
}

/* One at a time, so that what was received before its function stopped the server is in the pool by then. */
static crew_status recv_one(void *state, crew_list *messages, crew_room *room)
{
    struct state *s = state;
    if (s->arrived && crew_room_take(room, NULL, s->arrived->body.size)) {
        crew_list_append(messages, s->arrived);
        s->arrived = NULL;
    }
    return CREW_OK;
}

static crew_status send_all(void *state, crew_list *messages)
{
    struct state *s = state;
    for (crew_message *m; (m = crew_list_take(messages));) {
        crew_answer answer = { .status = m->status };
        if (m->kind == CREW_SETTLE_REPLY)
            answer = (crew_answer){ CREW_OK, m->content_type, crew_buffer_string(&m->reply) };
        end(s, m->mine, &answer);
        crew_transport_answered(s->config, m, CREW_OK);
        crew_message_give(s->config->messages, m);
    }
    return CREW_OK;
}

static void pause_it(void *state)
{
    struct state *s = state;
    s->paused = true;
}

static void close_it(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct state *s = state;
    (void)linger_ms;
    (void)unsent;
    crew_message_give(s->config->messages, s->arrived);
    s->arrived = NULL;
    for (uint32_t i = 0; i < s->config->in_flight_max; i++)
        if (s->places[i].taken)
            end(s, &s->places[i], &(crew_answer){ .status = CREW_CLOSED });
    free(s->places);
    s->places = NULL;
}

static const struct crew_transport_ops server_ops = {
    .size = sizeof(struct state),
    .open = open_it,
    .wait = wait_for,
    .send = send_all,
    .recv = recv_one,
    .pause = pause_it,
    .close = close_it,
};

const crew_transport crew_callback = { .scheme = "callback", .check = check, .server = &server_ops };
