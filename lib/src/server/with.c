#include "server/with.h"

#include "server/intake.h"

#include <rpcrew/impl/protocol.h>

#include <string.h>

static bool are_texts(const crew_value *headers)
{
    bool good = crew_value_type(headers) == CREW_TYPE_OBJECT;
    for (size_t i = 0; good && i < crew_value_count(headers); i++)
        good = crew_value_type(crew_value_at(headers, i)) == CREW_TYPE_STRING;
    return good;
}

enum { BYTES_MOST = 16 << 10 };

static const char name[] = "rpc.with";

/* Whether it may be one. */
static bool names_it(const crew_message *m)
{
    return m->body.size <= BYTES_MOST && memmem(m->body.data, m->body.size, name, strlen(name));
}

/* What a notification rpc.with {"timeout_ms": milliseconds left, "headers": {name: text}} has, either of
 * them, as a message; NULL: it is none, or not as it should be, and goes the way of all messages. */
static crew_message *read_with(const struct crew_endpoint *endpoint, crew_message *m)
{
    crew_string bytes = crew_buffer_string(&m->body);
    const crew_protocol *protocol = NULL;
    crew_wire_calls calls = { 0 };
    int64_t left_ms;
    if (names_it(m))
        protocol = crew_protocol_of(m->content_type, bytes);
    if (!protocol || protocol->decode_calls(bytes, &endpoint->options.limits, &m->arena, &calls) != CREW_OK ||
        calls.count != 1 || calls.items[0].code || !calls.items[0].one_way ||
        !crew_string_equal(calls.items[0].method, crew_str(name)))
        return NULL;
    const crew_value *params = calls.items[0].params;
    if (crew_value_type(params) == CREW_TYPE_ARRAY &&
        crew_value_count(params) == 1) /* named, in MessagePack */
        params = crew_value_at(params, 0);
    const crew_value *timeout = crew_value_get(params, "timeout_ms"),
                     *headers = crew_value_get(params, "headers");
    if ((timeout && (crew_value_int(timeout, &left_ms) != CREW_OK || left_ms < 0 || left_ms > UINT32_MAX)) ||
        (headers && !are_texts(headers)))
        return NULL;
    crew_message *with = crew_message_new(); /* small, since it may be kept for long */
    if (with && headers && crew_value_copy(&with->arena, headers, &with->headers) != CREW_OK) {
        crew_message_free(with);
        with = NULL;
    }
    if (with)
        with->deadline_ms = timeout ? crew_now_ms() + left_ms : 0;
    return with;
}

/* A peer's next request gets what it has said of it. */
static void apply_with(crew_message *m)
{
    crew_message *with = m->peer->with;
    m->peer->with = NULL;
    m->deadline_ms = with->deadline_ms;
    if (with->headers && crew_value_copy(&m->arena, with->headers, &m->headers) != CREW_OK)
        m->refusal = CREW_REASON_ROOM; /* without them it would be another request */
    crew_message_free(with);
}

void crew_with_take(struct crew_endpoint *endpoint, crew_list *messages)
{
    crew_list all = { 0 };
    crew_list_move(&all, messages);
    for (crew_message *m; (m = crew_list_take(&all));) {
        crew_peer *peer = m->peer;
        crew_message *with = peer && peer->takes_calls ? read_with(endpoint, m) : NULL;
        if (!with) {
            if (peer && peer->with && !names_it(m))
                apply_with(m);
            crew_list_append(messages, m);
            continue;
        }
        crew_intake_pass_over(endpoint, peer);
        crew_intake_passed(endpoint, m->body.size);
        crew_message_free(peer->with); /* one behind another: the last counts */
        peer->with = with;
        crew_message_give(endpoint->messages, m);
    }
}
