/* The outbox: frames are encoded by rabbitmq-c's codecs and written by us, many in one call, without
 * blocking.
 */
#include "transport/amqp_link_impl.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

enum { FRAME_OVERHEAD = 8, CODEC_ROOM = 4096, OUTBOX_KEPT = 1 << 20, HEADERS_MOST = 32 };

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

void amqp_link_append_frame(struct amqp_link *link, int type, unsigned channel, const void *payload,
                            size_t size)
{
    char head[7];
    head[0] = (char)type;
    put_u16(head + 1, channel);
    put_u32(head + 3, (uint32_t)size);
    append(link, head, sizeof head);
    append(link, payload, size);
    append(link, "\xCE", 1);
}

bool amqp_link_append_method(struct amqp_link *link, unsigned channel, amqp_method_number_t id, void *decoded)
{
    char payload[CODEC_ROOM];
    put_u32(payload, id);
    int size = amqp_encode_method(id, decoded, (amqp_bytes_t){ sizeof payload - 4, payload + 4 });
    if (size < 0)
        return false;
    amqp_link_append_frame(link, AMQP_FRAME_METHOD, channel, payload, (size_t)size + 4);
    return !link->outbox.failed;
}

bool amqp_link_is_blocked(const struct amqp_link *link)
{
    return link->blocked;
}

bool amqp_link_writable(const struct amqp_link *link)
{
    return !link->blocked && link->sent == link->outbox.size;
}

uint64_t amqp_link_queued(const struct amqp_link *link)
{
    return link->queued;
}

uint64_t amqp_link_written(const struct amqp_link *link)
{
    return link->written;
}

static crew_status flush_plain(struct amqp_link *link)
{
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
    return CREW_OK;
}

static unsigned get_u16(const char *at)
{
    return (unsigned)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

static uint32_t get_u32(const char *at)
{
    return (uint32_t)get_u16(at) << 16 | get_u16(at + 2);
}

/* Reads the frame at text back; returns its size. */
static size_t read_frame(crew_string text, amqp_pool_t *pool, amqp_frame_t *frame, int *status)
{
    uint32_t size = get_u32(text.data + 3);
    amqp_bytes_t payload = amqp_link_bytes((crew_string){ text.data + 7, size });
    char *bytes = payload.bytes;
    *frame =
        (amqp_frame_t){ .frame_type = (uint8_t)text.data[0], .channel = (uint16_t)get_u16(text.data + 1) };
    *status = AMQP_STATUS_OK;
    if (frame->frame_type == AMQP_FRAME_METHOD) {
        frame->payload.method.id = get_u32(bytes);
        *status = amqp_decode_method(frame->payload.method.id, pool, (amqp_bytes_t){ size - 4, bytes + 4 },
                                     &frame->payload.method.decoded);
    } else if (frame->frame_type == AMQP_FRAME_HEADER) {
        frame->payload.properties.class_id = (uint16_t)get_u16(bytes);
        frame->payload.properties.body_size = (uint64_t)get_u32(bytes + 4) << 32 | get_u32(bytes + 8);
        *status = amqp_decode_properties(AMQP_BASIC_CLASS, pool, (amqp_bytes_t){ size - 12, bytes + 12 },
                                         &frame->payload.properties.decoded);
    } else {
        frame->payload.body_fragment = payload;
    }
    return size + FRAME_OVERHEAD;
}

/* rabbitmq-c takes no bytes for TLS, only frames, so they are read back from the outbox. This may block; how
 * long is bounded by the socket (TCP_USER_TIMEOUT). */
static crew_status flush_tls(struct amqp_link *link)
{
    amqp_pool_t pool;
    int status = AMQP_STATUS_OK;
    init_amqp_pool(&pool, CODEC_ROOM);
    while (link->sent < link->outbox.size && status == AMQP_STATUS_OK) {
        amqp_frame_t frame;
        size_t size = read_frame((crew_string){ link->outbox.data + link->sent, 0 }, &pool, &frame, &status);
        if (status == AMQP_STATUS_OK)
            status = amqp_send_frame(link->connection, &frame);
        recycle_amqp_pool(&pool);
        link->sent += status == AMQP_STATUS_OK ? size : 0;
        link->written += status == AMQP_STATUS_OK ? size : 0;
    }
    empty_amqp_pool(&pool);
    link->last_out_ms = crew_now_ms();
    return status == AMQP_STATUS_OK ? CREW_OK : CREW_DISCONNECTED;
}

crew_status amqp_link_flush(struct amqp_link *link)
{
    if (link->outbox.failed)
        return CREW_NO_MEMORY;
    if (link->blocked || link->sent == link->outbox.size)
        return CREW_OK;
    crew_status status = link->tls ? flush_tls(link) : flush_plain(link);
    /* What is written makes room as soon as that is cheap: under steady load it may never be all. */
    if (link->sent == link->outbox.size && link->outbox.capacity > OUTBOX_KEPT) {
        crew_buffer_fini(&link->outbox);
        link->sent = 0;
    } else if (link->sent > link->outbox.size / 2) {
        link->outbox.size -= link->sent;
        memmove(link->outbox.data, link->outbox.data + link->sent, link->outbox.size);
        link->sent = 0;
    }
    return status;
}

amqp_bytes_t amqp_link_bytes(crew_string text)
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
    return text.data ? amqp_link_bytes(text) : amqp_empty_bytes;
}

/* The table's entries, whose bytes are the message's. */
static int headers_of(const struct amqp_publish *p, amqp_table_entry_t entries[HEADERS_MOST + 1])
{
    int count = 0;
    if (p->deadline_unix_ms)
        entries[count++] = (amqp_table_entry_t){ .key = amqp_cstring_bytes("rpcrew-deadline"),
                                                 .value = { .kind = AMQP_FIELD_KIND_I64,
                                                            .value.i64 = p->deadline_unix_ms } };
    for (size_t i = 0; i < crew_value_count(p->headers) && i < HEADERS_MOST; i++) {
        crew_string name = { 0 }, value = { 0 };
        (void)!crew_value_string(crew_value_key_at(p->headers, i), &name);
        (void)!crew_value_string(crew_value_at(p->headers, i), &value);
        entries[count++] = (amqp_table_entry_t){ .key = amqp_link_bytes(name),
                                                 .value = { .kind = AMQP_FIELD_KIND_UTF8,
                                                            .value.bytes = amqp_link_bytes(value) } };
    }
    return count;
}

static bool append_header(struct amqp_link *link, const struct amqp_publish *p)
{
    char payload[CODEC_ROOM], expiration[24];
    amqp_table_entry_t entries[HEADERS_MOST + 1];
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
    properties.headers = (amqp_table_t){ headers_of(p, entries), entries };
    if (properties.headers.num_entries)
        properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    put_u16(payload, AMQP_BASIC_CLASS);
    put_u16(payload + 2, 0);
    put_u32(payload + 4, (uint32_t)((uint64_t)p->body.size >> 32));
    put_u32(payload + 8, (uint32_t)p->body.size);
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, &properties,
                                      (amqp_bytes_t){ sizeof payload - 12, payload + 12 });
    if (size < 0)
        return false;
    amqp_link_append_frame(link, AMQP_FRAME_HEADER, p->channel, payload, (size_t)size + 12);
    return true;
}

static bool open_large(struct amqp_link *link)
{
    amqp_channel_open_t open = { .out_of_band = amqp_empty_bytes };
    amqp_confirm_select_t confirm = { .nowait = 1 };
    /* the broker makes the tag: LavinMQ tells consumers of direct replies apart by nothing else */
    amqp_basic_consume_t consume = { .queue = amqp_cstring_bytes(AMQP_DIRECT_REPLY_TO),
                                     .consumer_tag = amqp_empty_bytes,
                                     .no_ack = 1 };
    return amqp_link_append_method(link, AMQP_LARGE, AMQP_CHANNEL_OPEN_METHOD, &open) &&
           amqp_link_append_method(link, AMQP_LARGE, AMQP_CONFIRM_SELECT_METHOD, &confirm) &&
           (!link->large_answers ||
            amqp_link_append_method(link, AMQP_LARGE, AMQP_BASIC_CONSUME_METHOD, &consume));
}

void amqp_link_answer_directly(struct amqp_link *link)
{
    link->large_answers = true;
}

bool amqp_link_close_large(struct amqp_link *link)
{
    amqp_channel_close_t close = { .reply_code = AMQP_REPLY_SUCCESS };
    link->large_open = false;
    link->large_closing = true;
    return amqp_link_append_method(link, AMQP_LARGE, AMQP_CHANNEL_CLOSE_METHOD, &close);
}

bool amqp_link_publish(struct amqp_link *link, const struct amqp_publish *p)
{
    if (p->channel == AMQP_LARGE && !link->large_open && !(link->large_open = open_large(link)))
        return false;
    size_t before = link->outbox.size;
    uint64_t queued = link->queued;
    amqp_basic_publish_t method = { .exchange = amqp_link_bytes(crew_str(p->exchange)),
                                    .routing_key = amqp_link_bytes(p->routing_key),
                                    .mandatory = p->mandatory };
    if (!amqp_link_append_method(link, p->channel, AMQP_BASIC_PUBLISH_METHOD, &method) ||
        !append_header(link, p)) {
        link->outbox.size = before; /* nothing of it may be sent */
        link->queued = queued;
        return false;
    }
    size_t most = (size_t)link->frame_max - FRAME_OVERHEAD;
    for (size_t at = 0; at < p->body.size; at += most) {
        size_t size = p->body.size - at < most ? p->body.size - at : most;
        amqp_link_append_frame(link, AMQP_FRAME_BODY, p->channel, p->body.data + at, size);
    }
    return !link->outbox.failed;
}

bool amqp_link_ack(struct amqp_link *link, uint64_t tag)
{
    amqp_basic_ack_t method = { .delivery_tag = tag };
    return amqp_link_append_method(link, AMQP_CALLS, AMQP_BASIC_ACK_METHOD, &method);
}

bool amqp_link_reject(struct amqp_link *link, uint64_t tag, bool requeue)
{
    amqp_basic_reject_t method = { .delivery_tag = tag, .requeue = requeue };
    return amqp_link_append_method(link, AMQP_CALLS, AMQP_BASIC_REJECT_METHOD, &method);
}

bool amqp_link_cancel(struct amqp_link *link, bool told)
{
    amqp_basic_cancel_t method = { .consumer_tag = amqp_link_bytes(crew_str(link->consumer_tag)),
                                   .nowait = !told };
    return amqp_link_append_method(link, AMQP_CALLS, AMQP_BASIC_CANCEL_METHOD, &method);
}

bool amqp_link_consume_again(struct amqp_link *link, const struct amqp_queue *queue, bool declare,
                             const struct amqp_binding *binding)
{
    amqp_table_entry_t entries[AMQP_QUEUE_ARGUMENTS];
    amqp_queue_declare_t declaration = { .queue = amqp_link_bytes(crew_str(queue->name)),
                                         .durable = 1,
                                         .nowait = 1,
                                         .arguments = amqp_link_arguments(queue, entries) };
    amqp_basic_consume_t consume = { .queue = declaration.queue,
                                     .consumer_tag = amqp_link_bytes(crew_str(link->consumer_tag)),
                                     .nowait = 1 };
    amqp_queue_bind_t bind = { .queue = declaration.queue, .nowait = 1 };
    if (binding->exchange) {
        bind.exchange = amqp_link_bytes(crew_str(binding->exchange));
        bind.routing_key = amqp_link_bytes(crew_str(binding->key));
    }
    return (!declare || amqp_link_append_method(link, AMQP_CALLS, AMQP_QUEUE_DECLARE_METHOD, &declaration)) &&
           (!binding->exchange || amqp_link_append_method(link, AMQP_CALLS, AMQP_QUEUE_BIND_METHOD, &bind)) &&
           amqp_link_append_method(link, AMQP_CALLS, AMQP_BASIC_CONSUME_METHOD, &consume);
}

bool amqp_link_inquire(struct amqp_link *link, const char *queue)
{
    if (link->inquiring || !amqp_link_has(link, AMQP_INQUIRIES))
        return true;
    amqp_channel_open_t open = { .out_of_band = amqp_empty_bytes };
    amqp_queue_declare_t declare = { .queue = amqp_link_bytes(crew_str(queue)), .passive = 1 };
    bool good =
        link->inquiry_open || amqp_link_append_method(link, AMQP_INQUIRIES, AMQP_CHANNEL_OPEN_METHOD, &open);
    link->inquiry_open = good;
    link->inquiring =
        good && amqp_link_append_method(link, AMQP_INQUIRIES, AMQP_QUEUE_DECLARE_METHOD, &declare);
    return link->inquiring;
}
