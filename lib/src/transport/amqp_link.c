/* Frames in, by rabbitmq-c, as events; and the end of a link. */
#include "transport/amqp_link_impl.h"

#include <rpcrew/log.h>

#include <math.h>
#include <poll.h>
#include <stdlib.h>

unsigned amqp_link_heartbeat_ms(const struct amqp_link *link)
{
    return (unsigned)link->heartbeat_s * 1000;
}

size_t amqp_link_host(const struct amqp_link *link)
{
    return link->host;
}

bool amqp_link_has(const struct amqp_link *link, unsigned channel)
{
    return channel <= link->channel_max;
}

/* ---- reading ---- */

static bool has_input(const struct amqp_link *link)
{
    return amqp_frames_enqueued(link->connection) || amqp_data_in_buffer(link->connection);
}

/* What is to be polled for a link, and for how long at most. */
static struct pollfd prepare(const struct amqp_link *link, int *timeout_ms)
{
    int tick_ms = has_input(link) ? 0 : link->heartbeat_s ? link->heartbeat_s * 1000 / 4 : -1;
    *timeout_ms = crew_sooner(*timeout_ms, tick_ms);
    bool writes = link->outbox.size > link->sent && !link->blocked;
    return (struct pollfd){ .fd = link->fd, .events = (short)(writes ? POLLIN | POLLOUT : POLLIN) };
}

crew_status amqp_link_wait_for_two(struct amqp_link *link, struct amqp_link *other, int wake_fd,
                                   int timeout_ms)
{
    struct amqp_link *const links[] = { link, other };
    struct pollfd fds[3] = { { .fd = wake_fd, .events = POLLIN } };
    size_t count = other ? 2 : 1;
    for (size_t i = 0; i < count; i++)
        fds[1 + i] = prepare(links[i], &timeout_ms);
    (void)poll(fds, 1 + count, timeout_ms);
    for (size_t i = 0; i < count; i++)
        if (fds[1 + i].revents & POLLIN) /* any bytes count as a heartbeat; rabbitmq-c keeps the beats */
            links[i]->last_in_ms = crew_now_ms();
    if (other)
        (void)amqp_link_flush(other);
    return amqp_link_flush(link);
}

crew_status amqp_link_wait(struct amqp_link *link, int wake_fd, int timeout_ms)
{
    return amqp_link_wait_for_two(link, NULL, wake_fd, timeout_ms);
}

/* data is NULL if the property is absent, or there is no memory for it. */
static crew_string keep_text(struct amqp_link *link, amqp_bytes_t text, bool present)
{
    crew_string copy = { 0 };
    if (present)
        copy = crew_arena_string(&link->texts, (crew_string){ text.bytes, text.len });
    link->event.incomplete |= present && !copy.data;
    return copy;
}

/* A number of any of AMQP's types, and a time as its seconds; false for what is none, or beyond all time. */
static bool number_of(const amqp_field_value_t *field, double *out)
{
    switch (field->kind) {
    case AMQP_FIELD_KIND_I8: *out = field->value.i8; break;
    case AMQP_FIELD_KIND_U8: *out = field->value.u8; break;
    case AMQP_FIELD_KIND_I16: *out = field->value.i16; break;
    case AMQP_FIELD_KIND_U16: *out = field->value.u16; break;
    case AMQP_FIELD_KIND_I32: *out = field->value.i32; break;
    case AMQP_FIELD_KIND_U32: *out = field->value.u32; break;
    case AMQP_FIELD_KIND_I64: *out = (double)field->value.i64; break;
    case AMQP_FIELD_KIND_TIMESTAMP:
    case AMQP_FIELD_KIND_U64: *out = (double)field->value.u64; break;
    case AMQP_FIELD_KIND_F32: *out = (double)field->value.f32; break;
    case AMQP_FIELD_KIND_F64: *out = field->value.f64; break;
    case AMQP_FIELD_KIND_DECIMAL:
        *out = (double)field->value.decimal.value / pow(10, field->value.decimal.decimals);
        break;
    default: return false;
    }
    return *out >= 0 && *out < 9e15;
}

/* The headers that are ours. */
static void read_deadline(struct amqp_event *e, const amqp_basic_properties_t *properties)
{
    e->timeout_ms = -1;
    for (int i = 0; (properties->_flags & AMQP_BASIC_HEADERS_FLAG) && i < properties->headers.num_entries;
         i++) {
        const amqp_table_entry_t *entry = &properties->headers.entries[i];
        crew_string key = { entry->key.bytes, entry->key.len };
        double number;
        if (!number_of(&entry->value, &number))
            continue;
        if (crew_string_equal(key, crew_str("rpcrew-deadline")))
            e->deadline_unix_ms =
                (int64_t)(entry->value.kind == AMQP_FIELD_KIND_TIMESTAMP ? number * 1000 : number);
        else if (crew_string_equal(key, crew_str("rpcrew-timeout")))
            e->timeout_ms = (int64_t)number;
    }
}

static void on_header(struct amqp_link *link, const amqp_frame_t *frame)
{
    const amqp_basic_properties_t *p = frame->payload.properties.decoded;
    struct amqp_event *e = &link->event;
    crew_buffer_clear(&link->body);
    crew_arena_reset(&link->texts);
    e->content_type = keep_text(link, p->content_type, p->_flags & AMQP_BASIC_CONTENT_TYPE_FLAG);
    e->correlation_id = keep_text(link, p->correlation_id, p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG);
    e->reply_to = keep_text(link, p->reply_to, p->_flags & AMQP_BASIC_REPLY_TO_FLAG);
    e->expiration = keep_text(link, p->expiration, p->_flags & AMQP_BASIC_EXPIRATION_FLAG);
    e->message_id = keep_text(link, p->message_id, p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG);
    e->type = keep_text(link, p->type, p->_flags & AMQP_BASIC_TYPE_FLAG);
    read_deadline(e, p);
    if (link->content == AMQP_EVENT_DELIVER)
        e->incomplete |= !amqp_link_headers(&link->texts, p, &e->headers);
    link->body_left = frame->payload.properties.body_size;
}

/* On the channel of inquiries. A queue that is not there closes the channel, so the next one opens it anew.
 */
static void on_inquiry(struct amqp_link *link, const amqp_frame_t *frame, struct amqp_event *out)
{
    const void *decoded = frame->payload.method.decoded;
    if (frame->payload.method.id == AMQP_QUEUE_DECLARE_OK_METHOD) {
        const amqp_queue_declare_ok_t *m = decoded;
        *out = (struct amqp_event){ .kind = AMQP_EVENT_QUEUE,
                                    .exists = true,
                                    .messages = m->message_count,
                                    .consumers = m->consumer_count };
        link->inquiring = false;
    } else if (frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD) {
        amqp_channel_close_ok_t ok = { 0 };
        if (((const amqp_channel_close_t *)decoded)->reply_code == AMQP_NOT_FOUND)
            *out = (struct amqp_event){ .kind = AMQP_EVENT_QUEUE };
        (void)amqp_link_append_method(link, AMQP_INQUIRIES, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
        link->inquiring = link->inquiry_open = false;
    }
}

static void begin_content(struct amqp_link *link, const amqp_frame_t *frame, enum amqp_event_kind kind)
{
    link->content = kind;
    link->content_channel = frame->channel;
    link->content_unwanted = false;
    link->event = (struct amqp_event){ 0 };
}

/* On the channel for what may be too large. */
static void on_large(struct amqp_link *link, const amqp_frame_t *frame, struct amqp_event *out,
                     crew_error *why)
{
    const void *decoded = frame->payload.method.decoded;
    amqp_method_number_t id = frame->payload.method.id;
    if (link->large_closing) {
        link->large_closing = id != AMQP_CHANNEL_CLOSE_OK_METHOD;
        if (id == AMQP_BASIC_RETURN_METHOD || id == AMQP_BASIC_DELIVER_METHOD) {
            begin_content(link, frame, AMQP_EVENT_DELIVER);
            link->content_unwanted = true;
        }
    } else if (id == AMQP_BASIC_RETURN_METHOD || id == AMQP_BASIC_DELIVER_METHOD) {
        begin_content(link, frame, id == AMQP_BASIC_RETURN_METHOD ? AMQP_EVENT_RETURN : AMQP_EVENT_DELIVER);
        link->event.large = true;
    } else if (id == AMQP_BASIC_ACK_METHOD || id == AMQP_BASIC_NACK_METHOD) {
        *out = (struct amqp_event){ .kind = AMQP_EVENT_LARGE, .taken = id == AMQP_BASIC_ACK_METHOD };
    } else if (id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *m = decoded;
        amqp_channel_close_ok_t ok = { 0 };
        crew_error_set(why, CREW_LIMIT, "%.*s", (int)m->reply_text.len, (const char *)m->reply_text.bytes);
        bool size = m->reply_code == AMQP_PRECONDITION_FAILED && strstr(why->message, AMQP_MAX_SIZE);
        if (size)
            (void)amqp_link_append_method(link, AMQP_LARGE, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
        else
            crew_error_set(why, CREW_DISCONNECTED, "the broker closed the channel: %s", why->message);
        link->large_open = false;
        out->code = m->reply_code;
        out->kind = size ? AMQP_EVENT_TOO_LARGE : AMQP_EVENT_LOST;
    }
}

static void on_method(struct amqp_link *link, const amqp_frame_t *frame, struct amqp_event *out,
                      crew_error *why)
{
    const void *decoded = frame->payload.method.decoded;
    if (frame->channel == AMQP_INQUIRIES) {
        on_inquiry(link, frame, out);
        return;
    }
    if (frame->channel == AMQP_LARGE) {
        on_large(link, frame, out, why);
        return;
    }
    switch (frame->payload.method.id) {
    case AMQP_BASIC_DELIVER_METHOD: {
        const amqp_basic_deliver_t *m = decoded;
        begin_content(link, frame, AMQP_EVENT_DELIVER);
        link->event = (struct amqp_event){ .tag = m->delivery_tag, .redelivered = m->redelivered };
        break;
    }
    case AMQP_BASIC_RETURN_METHOD: begin_content(link, frame, AMQP_EVENT_RETURN); break;
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *m = decoded;
        *out = (struct amqp_event){ .kind = AMQP_EVENT_ACK, .tag = m->delivery_tag, .multiple = m->multiple };
        break;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *m = decoded;
        *out =
            (struct amqp_event){ .kind = AMQP_EVENT_NACK, .tag = m->delivery_tag, .multiple = m->multiple };
        break;
    }
    case AMQP_BASIC_CANCEL_METHOD: out->kind = AMQP_EVENT_CANCEL; break;
    case AMQP_BASIC_CANCEL_OK_METHOD: out->kind = AMQP_EVENT_CANCELLED; break;
    case AMQP_CHANNEL_CLOSE_METHOD: {
        const amqp_channel_close_t *m = decoded;
        out->kind = AMQP_EVENT_LOST;
        out->code = m->reply_code;
        crew_error_set(why, CREW_DISCONNECTED, "the broker closed the channel: %.*s", (int)m->reply_text.len,
                       (const char *)m->reply_text.bytes);
        break;
    }
    case AMQP_CONNECTION_CLOSE_METHOD: {
        const amqp_connection_close_t *m = decoded;
        out->kind = AMQP_EVENT_LOST;
        out->code = m->reply_code;
        crew_error_set(why, CREW_DISCONNECTED, "the broker closed the connection: %.*s",
                       (int)m->reply_text.len, (const char *)m->reply_text.bytes);
        break;
    }
    case AMQP_CONNECTION_CLOSE_OK_METHOD: link->close_answered = true; break;
    case AMQP_CONNECTION_BLOCKED_METHOD: link->blocked = true; break;
    case AMQP_CONNECTION_UNBLOCKED_METHOD: link->blocked = false; break;
    default: break;
    }
}

/* What of a content is beyond the limit is not kept, so that the decoder will say that it is too large. */
static void on_body(struct amqp_link *link, const amqp_frame_t *frame)
{
    amqp_bytes_t part = frame->payload.body_fragment;
    if (link->body.size <= link->message_most)
        crew_buffer_append(&link->body, part.bytes, part.len);
    link->body_left -= part.len < link->body_left ? part.len : link->body_left;
}

/* Sends a beat when nothing else was sent for a while; the peer's are any bytes at all. */
static crew_status beat(struct amqp_link *link)
{
    int64_t now = crew_now_ms(), interval_ms = (int64_t)link->heartbeat_s * 1000;
    if (!interval_ms)
        return CREW_OK;
    if (now - link->last_in_ms > 2 * interval_ms)
        return CREW_DISCONNECTED;
    if (now - link->last_out_ms >= interval_ms / 2 && link->outbox.size == link->sent) {
        amqp_link_append_frame(link, AMQP_FRAME_HEARTBEAT, 0, "", 0);
        return amqp_link_flush(link);
    }
    return CREW_OK;
}

/* A frame of a content, which completes it or not. The specification lets the contents of two channels come
 * frame by frame by turns; RabbitMQ sends each in one piece, and here they must. */
static void on_content(struct amqp_link *link, const amqp_frame_t *frame, struct amqp_event *out,
                       crew_error *why)
{
    if (link->content == AMQP_EVENT_NONE || frame->channel != link->content_channel) {
        out->kind = AMQP_EVENT_LOST;
        crew_error_set(why, CREW_DISCONNECTED, "the broker mixes the contents of channels");
        return;
    }
    if (frame->frame_type == AMQP_FRAME_HEADER)
        on_header(link, frame);
    else
        on_body(link, frame);
    if (link->body_left)
        return;
    if (link->content_unwanted) {
        link->content = AMQP_EVENT_NONE;
        return;
    }
    *out = link->event;
    out->kind = link->content;
    out->body = crew_buffer_string(&link->body);
    out->incomplete |= link->body.failed;
    link->content = AMQP_EVENT_NONE;
}

/* One frame; false if there is none. */
static bool read_frame(struct amqp_link *link, struct amqp_event *out, crew_error *why)
{
    amqp_frame_t frame;
    struct timeval none = { 0 };
    int status = amqp_simple_wait_frame_noblock(link->connection, &frame, &none);
    if (status == AMQP_STATUS_TIMEOUT)
        return false;
    if (status == AMQP_STATUS_BAD_AMQP_DATA) {
        crew_error_set(why, CREW_DISCONNECTED,
                       "the broker sends a frame of more than %d bytes, or what is not AMQP",
                       AMQP_LINK_FRAME_MOST);
        crew_log(CREW_LOG_ERROR,
                 "the broker's frame cannot be read; of a message with headers of that size "
                 "it will come again, until somebody takes it out of the queue",
                 "{s:s}", "why", why->message);
        out->kind = AMQP_EVENT_LOST;
    } else if (status != AMQP_STATUS_OK) {
        crew_error_set(why, CREW_DISCONNECTED, "%s", amqp_error_string2(status));
        out->kind = AMQP_EVENT_LOST;
    } else if (frame.frame_type == AMQP_FRAME_METHOD) {
        on_method(link, &frame, out, why);
    } else if (frame.frame_type == AMQP_FRAME_HEADER || frame.frame_type == AMQP_FRAME_BODY) {
        on_content(link, &frame, out, why);
    }
    amqp_maybe_release_buffers(link->connection); /* each time: a body of many frames would all be kept */
    return true;
}

struct amqp_event amqp_link_next(struct amqp_link *link, crew_error *why)
{
    struct amqp_event out = { .kind = AMQP_EVENT_NONE };
    if (link->content == AMQP_EVENT_NONE)
        crew_buffer_clear(&link->body); /* the last event's, which may be large */
    while (out.kind == AMQP_EVENT_NONE && read_frame(link, &out, why))
        continue;
    if (out.kind == AMQP_EVENT_NONE && beat(link) != CREW_OK) {
        crew_error_set(why, CREW_DISCONNECTED, "nothing was heard of the broker for two heartbeats");
        out.kind = AMQP_EVENT_LOST;
    }
    return out;
}

/* ---- closing ---- */

/* Without the answer to our close, unread input could make the kernel reset the connection, and with it what
 * the broker has not read yet. */
static void close_in_order(struct amqp_link *link, unsigned linger_ms)
{
    amqp_connection_close_t method = { .reply_code = AMQP_REPLY_SUCCESS };
    int64_t until = crew_now_ms() + linger_ms;
    crew_error why;
    if (link->fd < 0 || !amqp_link_append_method(link, 0, AMQP_CONNECTION_CLOSE_METHOD, &method))
        return;
    while (!link->close_answered && !link->blocked &&
           crew_now_ms() < until) { /* an alarm lets nothing through */
        int64_t left = until - crew_now_ms();
        if (amqp_link_wait(link, -1, left > 0 ? (int)left : 0) != CREW_OK ||
            amqp_link_next(link, &why).kind == AMQP_EVENT_LOST)
            return;
    }
}

void amqp_link_disconnect(struct amqp_link *link)
{
    (void)crew_opening_waits_for(link->opening, -1);
    if (link->connection)
        (void)amqp_destroy_connection(link->connection);
    link->connection = NULL;
}

void amqp_link_destroy(struct amqp_link *link)
{
    amqp_link_disconnect(link);
    crew_buffer_fini(&link->outbox);
    crew_buffer_fini(&link->body);
    crew_arena_fini(&link->texts);
    free(link);
}

uint64_t amqp_link_close(struct amqp_link *link, unsigned linger_ms)
{
    if (linger_ms)
        close_in_order(link, linger_ms);
    uint64_t written = link->written;
    amqp_link_destroy(link);
    return written;
}
