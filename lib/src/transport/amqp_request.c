#include "transport/amqp_request.h"

#include "transport/amqp_end.h"

#include <ctype.h>
#include <stdlib.h>

/* What a caller names its request by: one id, or both, with a NUL between them. */
static bool keep_key(crew_message *m, crew_string correlation_id, crew_string message_id)
{
    char *both;
    m->key = correlation_id;
    if (!message_id.size)
        return true;
    both = crew_arena_alloc(&m->arena, correlation_id.size + 1 + message_id.size);
    if (!both)
        return false;
    if (correlation_id.size)
        memcpy(both, correlation_id.data, correlation_id.size);
    both[correlation_id.size] = '\0';
    memcpy(both + correlation_id.size + 1, message_id.data, message_id.size);
    m->key = (crew_string){ both, correlation_id.size + 1 + message_id.size };
    return true;
}

static bool keep_text(crew_message *m, crew_string text, crew_string *kept)
{
    *kept = text.data ? crew_arena_string(&m->arena, text) : text;
    return kept->data || !text.data;
}

/* Percent escapes; what is none stays. False without memory. */
static bool unescape(crew_message *m, crew_string *text)
{
    char *out = crew_arena_alloc(&m->arena, text->size + 1);
    size_t size = 0;
    if (!out)
        return false;
    for (size_t i = 0; i < text->size; i++) {
        char digits[3] = { 0 };
        if (text->data[i] == '%' && text->size - i > 2)
            memcpy(digits, text->data + i + 1, 2);
        bool escaped = isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1]);
        out[size] = text->data[i];
        if (escaped)
            out[size] = (char)(unsigned char)strtoul(digits, NULL, 16);
        size++;
        i += escaped ? 2 : 0;
    }
    *text = (crew_string){ out, size };
    return true;
}

/* A body that is a string, in the encoding of AMQP 1.0 (part 1, 1.6.20; part 3, 3.2.8), as the broker leaves
 * it; another one stays as it is. */
static crew_string text_of_amqp10(crew_string body)
{
    static const char value[] = { 0x00, 0x53, 0x77 };
    if (body.size < sizeof value + 2 || memcmp(body.data, value, sizeof value) != 0)
        return body;
    const unsigned char *at = (const unsigned char *)body.data + sizeof value;
    size_t left = body.size - sizeof value, head = *at == 0xA1 ? 2 : 5;
    if ((*at != 0xA1 && *at != 0xB1) || left < head)
        return body;
    size_t size = head == 2 ? at[1] : (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4];
    return size == left - head ? (crew_string){ (const char *)at + head, size } : body;
}

/* A header that is a text or bytes, as those of other protocols come through the broker's plugins. */
static crew_string header_of(const struct amqp_event *e, const char *name)
{
    crew_string text = { 0 };
    if (crew_value_bytes(crew_value_get(e->headers, name), &text) != CREW_OK)
        text = (crew_string){ 0 };
    return text;
}

/* Where the answer goes; false without memory. AMQP 1.0 has addresses: /queues/NAME (percent-encoded, since
 * RabbitMQ 4), /queue/NAME and /amq/queue/NAME before that. MQTT 5 has a topic, which is a key of amq.topic.
 */
static bool read_address(crew_message *m, struct amqp_route *route, const struct amqp_event *e)
{
    static const char *const prefixes[] = { "/queues/", "/queue/", "/amq/queue/" };
    crew_string topic = header_of(e, "x-reply-to-topic"), name = e->reply_to;
    route->exchange = "";
    if (!e->reply_to.size && topic.size && topic.size <= 255) {
        route->exchange = "amq.topic";
        name = topic;
    }
    m->one_way = name.size == 0;
    if (!keep_text(m, name, &m->origin))
        return false;
    route->key = m->origin;
    for (size_t i = 0; i < 3 && *route->exchange == '\0'; i++) {
        size_t size = strlen(prefixes[i]);
        if (m->origin.size > size && memcmp(m->origin.data, prefixes[i], size) == 0) {
            route->key = (crew_string){ m->origin.data + size, m->origin.size - size };
            return i > 0 || unescape(m, &route->key);
        }
    }
    return true;
}

/* The properties of a delivery, in the message's arena; false without memory. Who names only the message
 * wants that name as the answer's correlation id, as AMQP 1.0 has it. */
static bool keep_properties(crew_message *m, struct amqp_route *route, const struct amqp_event *e)
{
    const crew_string ids[] = { e->correlation_id, header_of(e, "x-correlation-id"), e->message_id,
                                header_of(e, "x-message-id") };
    crew_string content_type, id = { 0 };
    for (size_t i = 0; i < 4 && !id.size; i++)
        if (ids[i].size <= 255)
            id = ids[i];
    bool good = keep_text(m, e->content_type, &content_type) && read_address(m, route, e) &&
                keep_text(m, id, &route->correlation_id) && keep_key(m, route->correlation_id, e->message_id);
    m->content_type = content_type.data;
    return good && (!e->headers || crew_value_copy(&m->arena, e->headers, &m->headers) == CREW_OK);
}

bool amqp_request_read(crew_message *m, const struct amqp_event *e)
{
    struct amqp_route *route = crew_arena_zalloc(&m->arena, sizeof *route);
    if (!route)
        return false;
    crew_string body = crew_string_equal(e->type, crew_str("amqp-1.0")) ? text_of_amqp10(e->body) : e->body;
    crew_buffer_append(&m->body, body.data, body.size);
    route->tag = e->tag;
    m->kind = CREW_MESSAGE_REQUEST;
    m->mine = route;
    m->redelivered = e->redelivered;
    return keep_properties(m, route, e) && !m->body.failed;
}

/* RabbitMQ's, and LavinMQ's. */
static bool is_direct(crew_string reply_to)
{
    static const char *const prefixes[] = { AMQP_DIRECT_REPLY_TO, "amq.direct.reply-to" };
    bool is = false;
    for (size_t i = 0; i < 2; i++) {
        size_t size = strlen(prefixes[i]);
        is = is || (reply_to.size >= size && memcmp(reply_to.data, prefixes[i], size) == 0);
    }
    return is;
}

bool amqp_route_is_risky(const struct amqp_route *route)
{
    return *route->exchange || is_direct(route->key);
}

bool amqp_answer_publish(struct amqp_link *link, const crew_message *m, unsigned channel)
{
    const struct amqp_route *route = m->mine;
    return amqp_link_publish(link, &(struct amqp_publish){ .channel = channel,
                                                           .exchange = route->exchange,
                                                           .routing_key = route->key,
                                                           .content_type = crew_str(m->content_type),
                                                           .correlation_id = route->correlation_id,
                                                           .expiration_ms = -1,
                                                           .body = crew_buffer_string(&m->reply) });
}
