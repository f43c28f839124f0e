/* The connection: login and topology by rabbitmq-c, frames in by rabbitmq-c, frames out by us. */
#include "transport/amqp_link_impl.h"
#include "transport/dial.h"

#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { FRAME_MAX = 131072, PORT = 5672, TLS_PORT = 5671, HEARTBEAT_S = 30 };

static const char SYSTEM_CA[] = "/etc/ssl/certs/ca-certificates.crt"; /* where Debian and others have it */

unsigned amqp_link_heartbeat_ms(const struct amqp_link *link)
{
    return (unsigned)link->heartbeat_s * 1000;
}

/* ---- opening ---- */

/* The broker's words for a refusal, and whether trying again can mend it. */
static crew_status explain(const amqp_rpc_reply_t *reply, const char *what, crew_error *why)
{
    if (reply->reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
        return crew_error_set(why, CREW_NO_SERVICE, "%s: %s", what, amqp_error_string2(reply->library_error));
    amqp_bytes_t text = amqp_cstring_bytes("refused");
    unsigned code = 0;
    if (reply->reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *m = reply->reply.decoded;
        text = m->reply_text;
        code = m->reply_code;
    } else if (reply->reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *m = reply->reply.decoded;
        text = m->reply_text;
        code = m->reply_code;
    }
    /* What is not there, or not allowed, may be yet; what was asked wrongly is not mended by asking again. */
    bool passes = code == AMQP_CONNECTION_FORCED || code == AMQP_INTERNAL_ERROR ||
                  code == AMQP_RESOURCE_ERROR || code == AMQP_NOT_FOUND || code == AMQP_NOT_ALLOWED ||
                  code == AMQP_ACCESS_REFUSED || code == AMQP_RESOURCE_LOCKED;
    return crew_error_set(why, passes ? CREW_NO_SERVICE : CREW_BAD_ARGUMENT, "%s: %.*s", what, (int)text.len,
                          (const char *)text.bytes);
}

static bool succeeded(const struct amqp_link *link)
{
    return amqp_get_rpc_reply(link->connection).reply_type == AMQP_RESPONSE_NORMAL;
}

static crew_status failed(struct amqp_link *link, const char *what, crew_error *why)
{
    const amqp_rpc_reply_t reply = amqp_get_rpc_reply(link->connection);
    link->fd =
        amqp_get_sockfd(link->connection); /* -1: rabbitmq-c has closed it, as it does after a time-out */
    return explain(&reply, what, why);
}

static struct timeval timeval_of(unsigned ms)
{
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000 };
}

/* A socket for TLS, with the URL's certificates; names and values are those of RabbitMQ's URIs. */
static amqp_socket_t *new_tls_socket(const struct amqp_link *link, const crew_url *url, crew_error *why)
{
    const char *ca = crew_url_option(url, "cacertfile"), *cert = crew_url_option(url, "certfile");
    const char *key = crew_url_option(url, "keyfile");
    bool verify = !crew_url_option_is(url, "verify", "verify_none");
    amqp_socket_t *sock = amqp_ssl_socket_new(link->connection);
    if (!sock) {
        crew_error_set(why, CREW_NO_MEMORY, "no memory");
        return NULL;
    }
    amqp_ssl_socket_set_verify_peer(sock, verify);
    amqp_ssl_socket_set_verify_hostname(sock, verify);
    if ((ca || verify) && amqp_ssl_socket_set_cacert(sock, ca ? ca : SYSTEM_CA) != AMQP_STATUS_OK)
        crew_error_set(why, CREW_BAD_ARGUMENT, "cacertfile: no certificates could be read from '%s'",
                       ca ? ca : SYSTEM_CA);
    else if (cert && amqp_ssl_socket_set_key(sock, cert, key) != AMQP_STATUS_OK)
        crew_error_set(why, CREW_BAD_ARGUMENT,
                       "certfile, keyfile: '%s' and '%s' are no certificate and its key", cert, key);
    else
        return sock;
    return NULL; /* the socket is the connection's */
}

static void disconnect(struct amqp_link *link)
{
    (void)crew_opening_waits_for(link->opening, -1);
    if (link->connection)
        (void)amqp_destroy_connection(link->connection);
    link->connection = NULL;
}

static crew_status connect_plain(struct amqp_link *link, amqp_socket_t *sock, const char *name, unsigned port,
                                 crew_error *why)
{
    link->fd = dial_tcp(name, port, link->connect_timeout_ms, link->opening, why);
    if (link->fd < 0)
        return why->status;
    amqp_tcp_socket_set_sockfd(sock, link->fd);
    return CREW_OK;
}

static crew_status explain_connect(int status, const char *name, unsigned port, crew_error *why)
{
    bool untrusted =
        status == AMQP_STATUS_SSL_PEER_VERIFY_FAILED || status == AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED;
    return crew_error_set(
        why, untrusted ? CREW_BAD_ARGUMENT : CREW_NO_SERVICE, "connecting to %s:%u: %s", name, port,
        status == AMQP_STATUS_SOCKET_ERROR ? "refused or unreachable" : amqp_error_string2(status));
}

/* rabbitmq-c takes no socket for TLS: so this ends early only when it is connected. */
static crew_status connect_tls(struct amqp_link *link, amqp_socket_t *sock, const char *name, unsigned port,
                               crew_error *why)
{
    struct timeval timeout = timeval_of(link->connect_timeout_ms);
    int status = amqp_socket_open_noblock(sock, name, (int)port, &timeout);
    if (status != AMQP_STATUS_OK)
        return explain_connect(status, name, port, why);
    link->fd = amqp_socket_get_sockfd(sock);
    /* where writing blocks, the kernel is the watchdog of a peer that does not read */
    (void)setsockopt(link->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &link->connect_timeout_ms,
                     sizeof link->connect_timeout_ms);
    return crew_opening_waits_for(link->opening, link->fd)
               ? CREW_OK
               : crew_error_set(why, CREW_NO_SERVICE, "nobody wants it any more");
}

static crew_status connect_host(struct amqp_link *link, const crew_url *url, size_t host, crew_error *why)
{
    struct timeval timeout = timeval_of(link->connect_timeout_ms);
    unsigned port = crew_url_port(url, host) ? crew_url_port(url, host) : link->tls ? TLS_PORT : PORT;
    const char *name = *crew_url_host(url, host) ? crew_url_host(url, host) : "localhost";
    link->connection = amqp_new_connection();
    if (!link->connection)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    amqp_socket_t *sock = link->tls ? new_tls_socket(link, url, why) : amqp_tcp_socket_new(link->connection);
    if (!sock)
        return link->tls ? why->status : crew_error_set(why, CREW_NO_MEMORY, "no memory");
    crew_status status =
        link->tls ? connect_tls(link, sock, name, port, why) : connect_plain(link, sock, name, port, why);
    if (status != CREW_OK)
        return status;
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
        return explain(&reply, "login", why);
    link->frame_max = amqp_get_frame_max(link->connection);
    int channel_max = amqp_get_channel_max(link->connection);
    link->channel_max = channel_max > 0 ? (unsigned)channel_max : UINT16_MAX;
    link->heartbeat_s = amqp_get_heartbeat(link->connection);
    /* The broker beats as agreed; rabbitmq-c itself shall send none: they go through the outbox. */
    (void)amqp_tune_connection(link->connection, amqp_get_channel_max(link->connection), link->frame_max, 0);
    return CREW_OK;
}

bool amqp_link_has(const struct amqp_link *link, unsigned channel)
{
    return channel <= link->channel_max;
}

static crew_status open_channels(struct amqp_link *link, unsigned confirm_channel, crew_error *why)
{
    if (!amqp_link_has(link, confirm_channel))
        confirm_channel = AMQP_CALLS;
    amqp_channel_open(link->connection, AMQP_CALLS);
    if (succeeded(link) && confirm_channel == AMQP_CONFIRMS)
        amqp_channel_open(link->connection, AMQP_CONFIRMS);
    if (succeeded(link) && confirm_channel)
        amqp_confirm_select(link->connection, (amqp_channel_t)confirm_channel);
    return succeeded(link) ? CREW_OK : failed(link, "opening a channel", why);
}

static void destroy(struct amqp_link *link)
{
    disconnect(link);
    crew_buffer_fini(&link->outbox);
    crew_buffer_fini(&link->body);
    crew_arena_fini(&link->texts);
    free(link);
}

/* The first of the hosts that takes us. If none does, one that may yet makes trying again worth while. */
static crew_status open_some_host(struct amqp_link *link, const crew_url *url, unsigned confirm_channel,
                                  crew_error *why)
{
    crew_buffer all = { 0 };
    bool may_pass = false;
    crew_status status = CREW_NO_SERVICE;
    size_t count = crew_url_host_count(url);
    for (size_t i = 0; i < count && status != CREW_OK; i++) {
        crew_error one;
        disconnect(link);
        status = connect_host(link, url, i, &one);
        if (status == CREW_OK)
            status = login(link, url, &one);
        if (status == CREW_OK)
            status = open_channels(link, confirm_channel, &one);
        may_pass = may_pass || status == CREW_NO_SERVICE;
        if (status != CREW_OK)
            crew_buffer_printf(&all, "%s%s", i ? "; " : "", one.message);
    }
    if (status != CREW_OK)
        crew_error_set(why, may_pass ? CREW_NO_SERVICE : status, "%.*s", CREW_STR(crew_buffer_string(&all)));
    crew_buffer_fini(&all);
    return status == CREW_OK ? CREW_OK : why->status;
}

crew_status amqp_link_open(struct amqp_link **out, const crew_transport_config *config,
                           unsigned confirm_channel, crew_error *why)
{
    struct amqp_link *link = calloc(1, sizeof *link);
    if (!link)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    link->opening = config->opening;
    link->connect_timeout_ms = config->connect_timeout_ms;
    link->message_most = config->limits.message_bytes;
    link->tls = strcmp(crew_url_scheme(config->url), "amqps") == 0;
    crew_status status = open_some_host(link, config->url, confirm_channel, why);
    if (status != CREW_OK) {
        destroy(link);
        return status;
    }
    link->last_in_ms = link->last_out_ms = crew_now_ms();
    *out = link;
    return CREW_OK;
}

amqp_table_t amqp_link_arguments(const struct amqp_queue *queue,
                                 amqp_table_entry_t entries[AMQP_QUEUE_ARGUMENTS])
{
    amqp_table_t table = { 0, entries };
    if (queue->type)
        entries[table.num_entries++] =
            (amqp_table_entry_t){ .key = amqp_cstring_bytes("x-queue-type"),
                                  .value = { .kind = AMQP_FIELD_KIND_UTF8,
                                             .value.bytes = amqp_cstring_bytes(queue->type) } };
    if (queue->consumer_timeout_ms)
        entries[table.num_entries++] =
            (amqp_table_entry_t){ .key = amqp_cstring_bytes("x-consumer-timeout"),
                                  .value = { .kind = AMQP_FIELD_KIND_I64,
                                             .value.i64 = queue->consumer_timeout_ms } };
    return table;
}

crew_status amqp_link_declare(struct amqp_link *link, const struct amqp_queue *queue, bool passive,
                              crew_error *why)
{
    amqp_table_entry_t entries[AMQP_QUEUE_ARGUMENTS];
    amqp_queue_declare(link->connection, AMQP_CALLS, amqp_cstring_bytes(queue->name), passive, true, false,
                       false, amqp_link_arguments(queue, entries));
    return succeeded(link) ? CREW_OK : failed(link, "declaring the queue", why);
}

crew_status amqp_link_bind(struct amqp_link *link, const char *queue, const struct amqp_binding *binding,
                           crew_error *why)
{
    amqp_queue_bind(link->connection, AMQP_CALLS, amqp_cstring_bytes(queue),
                    amqp_cstring_bytes(binding->exchange), amqp_cstring_bytes(binding->key),
                    amqp_empty_table);
    return succeeded(link) ? CREW_OK : failed(link, "binding the queue", why);
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

crew_status amqp_link_check_exchange(struct amqp_link *link, const char *exchange, crew_error *why)
{
    amqp_exchange_declare(link->connection, AMQP_CALLS, amqp_cstring_bytes(exchange),
                          amqp_cstring_bytes("direct"), true, false, false, false, amqp_empty_table);
    if (succeeded(link))
        return CREW_OK;
    (void)failed(link, "the exchange", why);
    return why->status = CREW_NO_SERVICE; /* somebody may declare it yet */
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
    short events = link->outbox.size > link->sent && !link->blocked ? POLLIN | POLLOUT : POLLIN;
    struct pollfd fds[] = { { .fd = link->fd, .events = events }, { .fd = wake_fd, .events = POLLIN } };
    (void)poll(fds, 2, timeout_ms);
    if (fds[0].revents & POLLIN) /* any bytes count as a heartbeat; rabbitmq-c keeps the beats to itself */
        link->last_in_ms = crew_now_ms();
    return amqp_link_flush(link);
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
    link->event = (struct amqp_event){ 0 };
}

/* On the channel for what may be too large, beside returns. */
static void on_large(struct amqp_link *link, const amqp_frame_t *frame, struct amqp_event *out,
                     crew_error *why)
{
    const void *decoded = frame->payload.method.decoded;
    amqp_method_number_t id = frame->payload.method.id;
    if (link->large_closing) {
        link->large_closing = id != AMQP_CHANNEL_CLOSE_OK_METHOD;
    } else if (id == AMQP_BASIC_RETURN_METHOD) {
        begin_content(link, frame, AMQP_EVENT_RETURN);
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
    if (status != AMQP_STATUS_OK) {
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

uint64_t amqp_link_close(struct amqp_link *link, unsigned linger_ms)
{
    if (linger_ms)
        close_in_order(link, linger_ms);
    uint64_t written = link->written;
    destroy(link);
    return written;
}
