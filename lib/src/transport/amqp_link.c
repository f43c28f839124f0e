/* The connection: login and topology by rabbitmq-c, frames in by rabbitmq-c, frames out by us. */
#include "transport/amqp_link.h"

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { FRAME_MAX = 131072, FRAME_OVERHEAD = 8, CODEC_ROOM = 4096, DEFAULT_PORT = 5672, HEARTBEAT_S = 30 };

struct amqp_link {
    amqp_connection_state_t connection;
    int fd;
    unsigned connect_timeout_ms;
    int frame_max, heartbeat_s;
    int64_t last_in_ms, last_out_ms;
    size_t message_most;

    crew_buffer outbox;
    size_t sent; /* of the outbox */
    uint64_t queued, written;

    /* the content being assembled */
    enum amqp_event_kind content;
    struct amqp_event event;
    uint64_t body_left;
    crew_buffer body;
    crew_arena texts;
    bool close_answered;
    char reply_queue[256];
    char consumer_tag[256];
};

/* ---- the outbox ---- */

static void put_u16(char *at, unsigned value)
{
    at[0] = (char)(value >> 8);
    at[1] = (char)value;
}

static void put_u32(char *at, uint32_t value)
{
    put_u16(at, value >> 16);
    put_u16(at + 2, value & 0xFFFF);
}

static void append(struct amqp_link *link, const void *bytes, size_t size)
{
    crew_buffer_append(&link->outbox, bytes, size);
    link->queued += size;
}

static void append_frame(struct amqp_link *link, int type, unsigned channel, const void *payload, size_t size)
{
    char head[7];
    head[0] = (char)type;
    put_u16(head + 1, channel);
    put_u32(head + 3, (uint32_t)size);
    append(link, head, sizeof head);
    append(link, payload, size);
    append(link, "\xCE", 1);
}

static bool append_method(struct amqp_link *link, unsigned channel, amqp_method_number_t id, void *decoded)
{
    char payload[CODEC_ROOM];
    put_u32(payload, id);
    int size = amqp_encode_method(id, decoded, (amqp_bytes_t){ sizeof payload - 4, payload + 4 });
    if (size < 0)
        return false;
    append_frame(link, AMQP_FRAME_METHOD, channel, payload, (size_t)size + 4);
    return !link->outbox.failed;
}

uint64_t amqp_link_queued(const struct amqp_link *link)
{
    return link->queued;
}

uint64_t amqp_link_written(const struct amqp_link *link)
{
    return link->written;
}

crew_status amqp_link_flush(struct amqp_link *link)
{
    if (link->outbox.failed)
        return CREW_NO_MEMORY;
    while (link->sent < link->outbox.size) {
        ssize_t size = send(link->fd, link->outbox.data + link->sent, link->outbox.size - link->sent,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? CREW_OK : CREW_DISCONNECTED;
        link->sent += (size_t)size;
        link->written += (uint64_t)size;
        link->last_out_ms = crew_now_ms();
    }
    link->sent = 0;
    crew_buffer_clear(&link->outbox);
    return CREW_OK;
}

static amqp_bytes_t bytes_of(crew_string text)
{
    union {
        const char *in;
        void *out;
    } data = { .in = text.data }; /* rabbitmq-c has no const, and only reads here */
    return (amqp_bytes_t){ text.size, data.out };
}

static amqp_bytes_t optional(crew_string text, amqp_flags_t *flags, amqp_flags_t flag)
{
    if (text.data)
        *flags |= flag;
    return text.data ? bytes_of(text) : amqp_empty_bytes;
}

static bool append_header(struct amqp_link *link, const struct amqp_publish *p)
{
    char payload[CODEC_ROOM], expiration[24];
    amqp_table_entry_t deadline = { .key = amqp_cstring_bytes("rpcrew-deadline"),
                                    .value = { .kind = AMQP_FIELD_KIND_I64,
                                               .value.i64 = p->deadline_unix_ms } };
    amqp_basic_properties_t properties = { ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG };
    properties.delivery_mode = p->persistent ? AMQP_DELIVERY_PERSISTENT : AMQP_DELIVERY_NONPERSISTENT;
    properties.content_type = optional(p->content_type, &properties._flags, AMQP_BASIC_CONTENT_TYPE_FLAG);
    properties.correlation_id =
        optional(p->correlation_id, &properties._flags, AMQP_BASIC_CORRELATION_ID_FLAG);
    properties.reply_to = optional(p->reply_to, &properties._flags, AMQP_BASIC_REPLY_TO_FLAG);
    if (p->expiration_ms >= 0) {
        (void)snprintf(expiration, sizeof expiration, "%lld", (long long)p->expiration_ms);
        properties.expiration =
            optional(crew_str(expiration), &properties._flags, AMQP_BASIC_EXPIRATION_FLAG);
    }
    if (p->deadline_unix_ms) {
        properties.headers = (amqp_table_t){ 1, &deadline };
        properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    }
    put_u16(payload, AMQP_BASIC_CLASS);
    put_u16(payload + 2, 0);
    put_u32(payload + 4, (uint32_t)((uint64_t)p->body.size >> 32));
    put_u32(payload + 8, (uint32_t)p->body.size);
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, &properties,
                                      (amqp_bytes_t){ sizeof payload - 12, payload + 12 });
    if (size < 0)
        return false;
    append_frame(link, AMQP_FRAME_HEADER, p->channel, payload, (size_t)size + 12);
    return true;
}

bool amqp_link_publish(struct amqp_link *link, const struct amqp_publish *p)
{
    size_t before = link->outbox.size;
    uint64_t queued = link->queued;
    amqp_basic_publish_t method = { .exchange = bytes_of(crew_str(p->exchange)),
                                    .routing_key = bytes_of(p->routing_key),
                                    .mandatory = p->mandatory };
    if (!append_method(link, p->channel, AMQP_BASIC_PUBLISH_METHOD, &method) || !append_header(link, p)) {
        link->outbox.size = before; /* nothing of it may be sent */
        link->queued = queued;
        return false;
    }
    size_t most = (size_t)link->frame_max - FRAME_OVERHEAD;
    for (size_t at = 0; at < p->body.size; at += most) {
        size_t size = p->body.size - at < most ? p->body.size - at : most;
        append_frame(link, AMQP_FRAME_BODY, p->channel, p->body.data + at, size);
    }
    return !link->outbox.failed;
}

bool amqp_link_ack(struct amqp_link *link, uint64_t tag)
{
    amqp_basic_ack_t method = { .delivery_tag = tag };
    return append_method(link, AMQP_CALLS, AMQP_BASIC_ACK_METHOD, &method);
}

bool amqp_link_reject(struct amqp_link *link, uint64_t tag, bool requeue)
{
    amqp_basic_reject_t method = { .delivery_tag = tag, .requeue = requeue };
    return append_method(link, AMQP_CALLS, AMQP_BASIC_REJECT_METHOD, &method);
}

bool amqp_link_cancel(struct amqp_link *link)
{
    amqp_basic_cancel_t method = { .consumer_tag = bytes_of(crew_str(link->consumer_tag)), .nowait = 1 };
    return append_method(link, AMQP_CALLS, AMQP_BASIC_CANCEL_METHOD, &method);
}

/* ---- opening ---- */

/* The broker's words for a refusal, and whether trying again can mend it. */
static crew_status explain(amqp_rpc_reply_t reply, const char *what, crew_error *why)
{
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        const char *text = amqp_error_string2(reply.library_error);
        /* RabbitMQ closes the socket on a wrong vhost or password before 3.x sends a reason */
        return crew_error_set(why, CREW_NO_SERVICE, "%s: %s", what, text);
    }
    amqp_bytes_t text = amqp_cstring_bytes("refused");
    if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD)
        text = ((const amqp_channel_close_t *)reply.reply.decoded)->reply_text;
    else if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD)
        text = ((const amqp_connection_close_t *)reply.reply.decoded)->reply_text;
    return crew_error_set(why, CREW_BAD_ARGUMENT, "%s: %.*s", what, (int)text.len, (const char *)text.bytes);
}

static bool succeeded(const struct amqp_link *link)
{
    return amqp_get_rpc_reply(link->connection).reply_type == AMQP_RESPONSE_NORMAL;
}

static crew_status failed(const struct amqp_link *link, const char *what, crew_error *why)
{
    return explain(amqp_get_rpc_reply(link->connection), what, why);
}

static struct timeval timeval_of(unsigned ms)
{
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000 };
}

static crew_status connect_host(struct amqp_link *link, const crew_url *url, size_t host, crew_error *why)
{
    struct timeval timeout = timeval_of(link->connect_timeout_ms);
    uint16_t port = crew_url_port(url, host) ? crew_url_port(url, host) : DEFAULT_PORT;
    const char *name = *crew_url_host(url, host) ? crew_url_host(url, host) : "localhost";
    link->connection = amqp_new_connection();
    amqp_socket_t *sock = link->connection ? amqp_tcp_socket_new(link->connection) : NULL;
    if (!sock)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    int status = amqp_socket_open_noblock(sock, name, port, &timeout);
    if (status != AMQP_STATUS_OK)
        return crew_error_set(why, CREW_NO_SERVICE, "connecting to %s:%u: %s", name, port,
                              status == AMQP_STATUS_SOCKET_ERROR ? "refused or unreachable"
                                                                 : amqp_error_string2(status));
    link->fd = amqp_socket_get_sockfd(sock);
    (void)amqp_set_handshake_timeout(link->connection, &timeout);
    (void)amqp_set_rpc_timeout(link->connection, &timeout);
    return CREW_OK;
}

static crew_status login(struct amqp_link *link, const crew_url *url, crew_error *why)
{
    static const char *const names[] = { "consumer_cancel_notify", "connection.blocked", "basic.nack",
                                         "publisher_confirms", "authentication_failure_close" };
    enum { NAMES = sizeof names / sizeof *names };
    amqp_table_entry_t flags[NAMES], properties[2];
    for (size_t i = 0; i < NAMES; i++)
        flags[i] = (amqp_table_entry_t){ .key = amqp_cstring_bytes(names[i]),
                                         .value = { .kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1 } };
    properties[0] =
        (amqp_table_entry_t){ .key = amqp_cstring_bytes("capabilities"),
                              .value = { .kind = AMQP_FIELD_KIND_TABLE, .value.table = { NAMES, flags } } };
    properties[1] = (amqp_table_entry_t){ .key = amqp_cstring_bytes("product"),
                                          .value = { .kind = AMQP_FIELD_KIND_UTF8,
                                                     .value.bytes = amqp_cstring_bytes("rpcrew") } };
    amqp_table_t table = { 2, properties };
    const char *path = crew_url_path(url), *vhost = strlen(path) > 1 ? path + 1 : "/";
    const char *user = crew_url_user(url) ? crew_url_user(url) : "guest";
    const char *password = crew_url_password(url) ? crew_url_password(url) : "guest";
    int heartbeat_s = (int)crew_url_number(url, "heartbeat", HEARTBEAT_S);
    amqp_rpc_reply_t reply = amqp_login_with_properties(link->connection, vhost, 0, FRAME_MAX, heartbeat_s,
                                                        &table, AMQP_SASL_METHOD_PLAIN, user, password);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        return explain(reply, "login", why);
    link->frame_max = amqp_get_frame_max(link->connection);
    link->heartbeat_s = amqp_get_heartbeat(link->connection);
    /* The broker beats as agreed; rabbitmq-c itself shall send none: they go through the outbox. */
    (void)amqp_tune_connection(link->connection, amqp_get_channel_max(link->connection), link->frame_max, 0);
    return CREW_OK;
}

static crew_status open_channels(struct amqp_link *link, bool confirms, crew_error *why)
{
    amqp_channel_open(link->connection, AMQP_CALLS);
    if (!succeeded(link))
        return failed(link, "opening a channel", why);
    if (!confirms)
        return CREW_OK;
    amqp_channel_open(link->connection, AMQP_CONFIRMS);
    if (succeeded(link))
        amqp_confirm_select(link->connection, AMQP_CONFIRMS);
    return succeeded(link) ? CREW_OK : failed(link, "opening a channel with confirms", why);
}

static void destroy(struct amqp_link *link)
{
    if (link->connection)
        (void)amqp_destroy_connection(link->connection);
    crew_buffer_fini(&link->outbox);
    crew_buffer_fini(&link->body);
    crew_arena_fini(&link->texts);
    free(link);
}

crew_status amqp_link_open(struct amqp_link **out, const crew_transport_config *config, bool confirms,
                           crew_error *why)
{
    struct amqp_link *link = calloc(1, sizeof *link);
    if (!link)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    link->connect_timeout_ms = config->connect_timeout_ms;
    link->message_most = config->limits.message_bytes;
    crew_status status = CREW_NO_SERVICE;
    for (size_t i = 0; i < crew_url_host_count(config->url) && status == CREW_NO_SERVICE; i++) {
        if (link->connection)
            (void)amqp_destroy_connection(link->connection);
        link->connection = NULL;
        status = connect_host(link, config->url, i, why);
        if (status == CREW_OK)
            status = login(link, config->url, why);
        if (status == CREW_OK)
            status = open_channels(link, confirms, why);
    }
    if (status != CREW_OK) {
        destroy(link);
        return status;
    }
    link->last_in_ms = link->last_out_ms = crew_now_ms();
    *out = link;
    return CREW_OK;
}

crew_status amqp_link_declare(struct amqp_link *link, const char *queue, bool passive, bool quorum,
                              crew_error *why)
{
    amqp_table_entry_t type = { .key = amqp_cstring_bytes("x-queue-type"),
                                .value = { .kind = AMQP_FIELD_KIND_UTF8,
                                           .value.bytes = amqp_cstring_bytes("quorum") } };
    amqp_table_t arguments = quorum ? (amqp_table_t){ 1, &type } : amqp_empty_table;
    amqp_queue_declare(link->connection, AMQP_CALLS, amqp_cstring_bytes(queue), passive, true, false, false,
                       arguments);
    return succeeded(link) ? CREW_OK : failed(link, "declaring the queue", why);
}

crew_status amqp_link_declare_exclusive(struct amqp_link *link, const char **queue, crew_error *why)
{
    const amqp_queue_declare_ok_t *ok = amqp_queue_declare(link->connection, AMQP_CALLS, amqp_empty_bytes,
                                                           false, false, true, true, amqp_empty_table);
    if (!ok || ok->queue.len >= sizeof link->reply_queue)
        return failed(link, "declaring a reply queue", why);
    memcpy(link->reply_queue, ok->queue.bytes, ok->queue.len);
    link->reply_queue[ok->queue.len] = '\0';
    *queue = link->reply_queue;
    return CREW_OK;
}

crew_status amqp_link_consume(struct amqp_link *link, const char *queue, unsigned prefetch, bool no_ack,
                              crew_error *why)
{
    if (prefetch)
        amqp_basic_qos(link->connection, AMQP_CALLS, 0,
                       (uint16_t)(prefetch > UINT16_MAX ? UINT16_MAX : prefetch), false);
    if (prefetch && !succeeded(link))
        return failed(link, "setting the prefetch", why);
    const amqp_basic_consume_ok_t *ok =
        amqp_basic_consume(link->connection, AMQP_CALLS, amqp_cstring_bytes(queue), amqp_empty_bytes, false,
                           no_ack, false, amqp_empty_table);
    if (!ok || ok->consumer_tag.len >= sizeof link->consumer_tag)
        return failed(link, "consuming", why);
    memcpy(link->consumer_tag, ok->consumer_tag.bytes, ok->consumer_tag.len);
    link->consumer_tag[ok->consumer_tag.len] = '\0';
    return CREW_OK;
}

/* ---- reading ---- */

static bool has_input(const struct amqp_link *link)
{
    return amqp_frames_enqueued(link->connection) || amqp_data_in_buffer(link->connection);
}

crew_status amqp_link_wait(struct amqp_link *link, int wake_fd, int timeout_ms)
{
    if (has_input(link))
        timeout_ms = 0;
    if (link->heartbeat_s) {
        int tick_ms = link->heartbeat_s * 1000 / 4;
        if (timeout_ms < 0 || timeout_ms > tick_ms)
            timeout_ms = tick_ms;
    }
    short events = link->outbox.size > link->sent ? POLLIN | POLLOUT : POLLIN;
    struct pollfd fds[] = { { .fd = link->fd, .events = events }, { .fd = wake_fd, .events = POLLIN } };
    (void)poll(fds, 2, timeout_ms);
    return amqp_link_flush(link);
}

/* data is NULL if the property is absent, or there is no memory for it. */
static crew_string keep_text(struct amqp_link *link, amqp_bytes_t text, bool present)
{
    return present ? crew_arena_string(&link->texts, (crew_string){ text.bytes, text.len })
                   : (crew_string){ 0 };
}

static int64_t deadline_of(const amqp_basic_properties_t *properties)
{
    for (int i = 0; (properties->_flags & AMQP_BASIC_HEADERS_FLAG) && i < properties->headers.num_entries;
         i++) {
        const amqp_table_entry_t *entry = &properties->headers.entries[i];
        crew_string key = { entry->key.bytes, entry->key.len };
        if (!crew_string_equal(key, crew_str("rpcrew-deadline")))
            continue;
        if (entry->value.kind == AMQP_FIELD_KIND_I64)
            return entry->value.value.i64;
        if (entry->value.kind == AMQP_FIELD_KIND_TIMESTAMP || entry->value.kind == AMQP_FIELD_KIND_U64)
            return (int64_t)entry->value.value.u64;
    }
    return 0;
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
    e->deadline_unix_ms = deadline_of(p);
    link->body_left = frame->payload.properties.body_size;
}

static void on_method(struct amqp_link *link, const amqp_frame_t *frame, struct amqp_event *out,
                      crew_error *why)
{
    const void *decoded = frame->payload.method.decoded;
    switch (frame->payload.method.id) {
    case AMQP_BASIC_DELIVER_METHOD: {
        const amqp_basic_deliver_t *m = decoded;
        link->content = AMQP_EVENT_DELIVER;
        link->event = (struct amqp_event){ .tag = m->delivery_tag, .redelivered = m->redelivered };
        break;
    }
    case AMQP_BASIC_RETURN_METHOD:
        link->content = AMQP_EVENT_RETURN;
        link->event = (struct amqp_event){ 0 };
        break;
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
    case AMQP_CHANNEL_CLOSE_METHOD: {
        const amqp_channel_close_t *m = decoded;
        out->kind = AMQP_EVENT_LOST;
        crew_error_set(why, CREW_DISCONNECTED, "the broker closed the channel: %.*s", (int)m->reply_text.len,
                       (const char *)m->reply_text.bytes);
        break;
    }
    case AMQP_CONNECTION_CLOSE_METHOD: {
        const amqp_connection_close_t *m = decoded;
        out->kind = AMQP_EVENT_LOST;
        crew_error_set(why, CREW_DISCONNECTED, "the broker closed the connection: %.*s",
                       (int)m->reply_text.len, (const char *)m->reply_text.bytes);
        break;
    }
    case AMQP_CONNECTION_CLOSE_OK_METHOD: link->close_answered = true; break;
    default: break; /* blocked, unblocked, cancel-ok: what is sent waits in the outbox in any case */
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
        append_frame(link, AMQP_FRAME_HEARTBEAT, 0, "", 0);
        return amqp_link_flush(link);
    }
    return CREW_OK;
}

struct amqp_event amqp_link_next(struct amqp_link *link, crew_error *why)
{
    struct amqp_event out = { .kind = AMQP_EVENT_NONE };
    while (out.kind == AMQP_EVENT_NONE) {
        amqp_frame_t frame;
        struct timeval none = { 0 };
        int status = amqp_simple_wait_frame_noblock(link->connection, &frame, &none);
        if (status == AMQP_STATUS_TIMEOUT) {
            if (beat(link) != CREW_OK) {
                crew_error_set(why, CREW_DISCONNECTED, "nothing was heard of the broker for two heartbeats");
                out.kind = AMQP_EVENT_LOST;
            }
            return out;
        }
        if (status != AMQP_STATUS_OK) {
            crew_error_set(why, CREW_DISCONNECTED, "%s", amqp_error_string2(status));
            out.kind = AMQP_EVENT_LOST;
            return out;
        }
        link->last_in_ms = crew_now_ms();
        if (frame.frame_type == AMQP_FRAME_METHOD)
            on_method(link, &frame, &out, why);
        else if (frame.frame_type == AMQP_FRAME_HEADER)
            on_header(link, &frame);
        else if (frame.frame_type == AMQP_FRAME_BODY)
            on_body(link, &frame);
        bool content_ends = frame.frame_type == AMQP_FRAME_HEADER || frame.frame_type == AMQP_FRAME_BODY;
        if (content_ends && link->body_left == 0 && link->content != AMQP_EVENT_NONE) {
            out = link->event;
            out.kind = link->content;
            out.body = crew_buffer_string(&link->body);
            link->content = AMQP_EVENT_NONE;
        }
        if (!has_input(link))
            amqp_maybe_release_buffers(link->connection);
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
    if (!append_method(link, 0, AMQP_CONNECTION_CLOSE_METHOD, &method))
        return;
    while (!link->close_answered && crew_now_ms() < until) {
        if (amqp_link_wait(link, -1, (int)(until - crew_now_ms())) != CREW_OK ||
            amqp_link_next(link, &why).kind == AMQP_EVENT_LOST)
            return;
    }
}

void amqp_link_close(struct amqp_link *link, unsigned linger_ms)
{
    if (linger_ms)
        close_in_order(link, linger_ms);
    destroy(link);
}
