/* Opening a link: connecting, login and topology, by rabbitmq-c's own calls, which block. */
#include "transport/amqp_link_impl.h"
#include "transport/dial.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

enum { FRAME_MAX = 131072, PORT = 5672, TLS_PORT = 5671, HEARTBEAT_S = 30, CHECK_MOST_MS = 2000 };

static const char SYSTEM_CA[] = "/etc/ssl/certs/ca-certificates.crt"; /* where Debian and others have it */

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
    /* The broker beats as agreed; rabbitmq-c itself shall send none: they go through the outbox. And it shall
     * read what the broker sends whatever was agreed on: headers that have grown on their way. */
    (void)amqp_tune_connection(link->connection, amqp_get_channel_max(link->connection), AMQP_LINK_FRAME_MOST,
                               0);
    return CREW_OK;
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

/* The first of the hosts that takes us. If none does, one that may yet makes trying again worth while. */
static crew_status open_some_host(struct amqp_link *link, const crew_url *url, const size_t *only,
                                  unsigned confirm_channel, crew_error *why)
{
    crew_buffer all = { 0 };
    bool may_pass = false;
    crew_status status = CREW_NO_SERVICE;
    size_t count = only ? *only + 1 : crew_url_host_count(url);
    for (size_t i = only ? *only : 0; i < count && status != CREW_OK; i++) {
        crew_error one;
        amqp_link_disconnect(link);
        link->host = i;
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

crew_status amqp_link_open(struct amqp_link **out, const crew_transport_config *config, const size_t *host,
                           unsigned confirm_channel, crew_error *why)
{
    struct amqp_link *link = calloc(1, sizeof *link);
    if (!link)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    link->opening = config->opening;
    link->connect_timeout_ms = config->connect_timeout_ms;
    link->message_most = config->limits.message_bytes;
    link->tls = strcmp(crew_url_scheme(config->url), "amqps") == 0;
    crew_status status = open_some_host(link, config->url, host, confirm_channel, why);
    if (status != CREW_OK) {
        amqp_link_destroy(link);
        return status;
    }
    link->last_in_ms = link->last_out_ms = crew_now_ms();
    *out = link;
    return CREW_OK;
}

amqp_table_t amqp_link_arguments(const struct amqp_queue *queue,
                                 amqp_table_entry_t entries[AMQP_QUEUE_ARGUMENTS])
{
    static const struct {
        const char *option, *argument;
        bool is_number;
    } all[AMQP_QUEUE_ARGUMENTS] = {
        { "queue_type", "x-queue-type", false },
        { "consumer_timeout", "x-consumer-timeout", true },
        { "dead_letter_exchange", "x-dead-letter-exchange", false },
        { "dead_letter_routing_key", "x-dead-letter-routing-key", false },
        { "max_length", "x-max-length", true },
        { "overflow", "x-overflow", false },
        { "message_ttl", "x-message-ttl", true },
        { "max_priority", "x-max-priority", true },
        { "delivery_limit", "x-delivery-limit", true },
    };
    amqp_table_t table = { 0, entries };
    for (size_t i = 0; i < AMQP_QUEUE_ARGUMENTS; i++) {
        const char *text = crew_url_option(queue->url, all[i].option);
        if (!text)
            continue;
        amqp_table_entry_t *entry = &entries[table.num_entries++];
        entry->key = amqp_cstring_bytes(all[i].argument);
        if (all[i].is_number) {
            entry->value.kind = AMQP_FIELD_KIND_I64;
            entry->value.value.i64 = (int64_t)crew_url_number(queue->url, all[i].option, 0);
        } else {
            entry->value.kind = AMQP_FIELD_KIND_UTF8;
            entry->value.value.bytes = amqp_cstring_bytes(text);
        }
    }
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

crew_status amqp_link_check_answers(struct amqp_link *link, bool *alarm, crew_error *why)
{
    unsigned channel = amqp_link_has(link, AMQP_LARGE) ? AMQP_LARGE : AMQP_CALLS;
    unsigned most_ms = link->connect_timeout_ms < CHECK_MOST_MS ? link->connect_timeout_ms : CHECK_MOST_MS;
    int64_t until = crew_now_ms() + most_ms, left;
    const struct amqp_publish nobody = {
        .channel = channel, .exchange = "", .routing_key = crew_str("rpcrew.nobody"), .mandatory = true
    };
    crew_error lost;
    *alarm = false;
    if (!amqp_link_publish(link, &nobody))
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    while ((left = until - crew_now_ms()) > 0) {
        crew_status status = amqp_link_wait(link, -1, (int)left);
        struct amqp_event e = amqp_link_next(link, &lost);
        *alarm = link->blocked;
        if (*alarm || e.kind == AMQP_EVENT_LARGE || (e.kind == AMQP_EVENT_RETURN && channel == AMQP_CALLS))
            return CREW_OK;
        if (e.kind == AMQP_EVENT_LOST)
            return crew_error_set(why, CREW_NO_SERVICE, "answers cannot be sent (replies=no: none are): %s",
                                  lost.message);
        if (status != CREW_OK)
            return crew_error_set(why, CREW_NO_SERVICE, "the connection was lost while it was opened");
    }
    *alarm = true; /* which it has not told of */
    return CREW_OK;
}
