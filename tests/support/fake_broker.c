/* One thread: it accepts, reads frames, lets the script see them, and writes. */
#include "support/fake_broker.h"

#include "support/test.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHANNELS = 8, CONNECTIONS = 64, METHODS = 64, NAME = 256, POOL = 4096, OVERHEAD = 8 };

static const char direct[] = "amq.rabbitmq.reply-to";

struct message {
    struct message *next;
    crew_buffer header; /* the properties, encoded */
    crew_buffer body;
    bool redelivered;
    /* while it is with a consumer, which may have ended meanwhile (NULL) */
    uint64_t tag;
    struct queue *queue;
    struct consumer *consumer;
};

struct queue {
    struct queue *next;
    char name[NAME];
    struct message *ready;
    size_t length, unacked;
    const struct fake_connection *owner; /* of an exclusive one */
};

struct consumer {
    struct consumer *next;
    struct fake_connection *connection;
    unsigned channel;
    struct queue *queue; /* NULL: of direct replies */
    char tag[NAME];
    bool no_ack;
    unsigned prefetch;
    size_t unacked;
};

struct channel {
    bool open, closing, confirms;
    uint64_t published, delivered;
    unsigned prefetch;
    struct message *unacked;
    /* the content that comes */
    bool publishing;
    char exchange[NAME], key[NAME];
    bool mandatory;
    struct message *content;
    uint64_t body_left;
};

struct fake_connection {
    struct fake_broker *broker;
    int fd;
    unsigned number;
    bool greeted, logged_in, ignored, dropped;
    crew_buffer in, out;
    size_t sent; /* of out */
    struct channel channels[CHANNELS];
};

struct fake_broker {
    struct fake_options options;
    pthread_mutex_t mutex;
    pthread_t thread;
    int listener, wake;
    bool ended;
    char url[64];
    struct fake_connection *connections[CONNECTIONS];
    struct queue *queues;
    struct consumer *consumers;
    unsigned numbers;
    struct {
        amqp_method_number_t method;
        unsigned count;
    } counts[METHODS];
};

bool fake_is(amqp_bytes_t bytes, const char *text)
{
    return bytes.len == strlen(text) && (!bytes.len || memcmp(bytes.bytes, text, bytes.len) == 0);
}

static amqp_bytes_t bytes_of(const crew_buffer *buffer)
{
    return (amqp_bytes_t){ buffer->size, buffer->data };
}

static void copy_name(char to[NAME], amqp_bytes_t from)
{
    size_t size = from.len < NAME ? from.len : NAME - 1;
    if (size)
        memcpy(to, from.bytes, size);
    to[size] = '\0';
}

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

static uint32_t get_u32(const char *at)
{
    const unsigned char *bytes = (const unsigned char *)at;
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* ---- frames out ---- */

static void append_frame(struct fake_connection *c, int type, unsigned channel, const void *payload,
                         size_t size)
{
    char head[7] = { (char)type };
    put_u16(head + 1, channel);
    put_u32(head + 3, (uint32_t)size);
    crew_buffer_append(&c->out, head, sizeof head);
    crew_buffer_append(&c->out, payload, size);
    crew_buffer_append(&c->out, "\xCE", 1);
}

void fake_send(struct fake_connection *connection, unsigned channel, amqp_method_number_t method,
               void *decoded)
{
    char payload[POOL];
    put_u32(payload, method);
    int size = amqp_encode_method(method, decoded, (amqp_bytes_t){ sizeof payload - 4, payload + 4 });
    assert_true(size >= 0);
    append_frame(connection, AMQP_FRAME_METHOD, channel, payload, (size_t)size + 4);
}

/* header: the encoded properties. */
static void send_content(struct fake_connection *c, unsigned channel, amqp_bytes_t header, amqp_bytes_t body)
{
    crew_buffer payload = { 0 };
    char head[12] = { 0 };
    unsigned frame_max = c->broker->options.frame_max;
    put_u16(head, AMQP_BASIC_CLASS);
    put_u32(head + 8, (uint32_t)body.len);
    crew_buffer_append(&payload, head, sizeof head);
    crew_buffer_append(&payload, header.bytes, header.len);
    append_frame(c, AMQP_FRAME_HEADER, channel, payload.data, payload.size);
    crew_buffer_fini(&payload);
    for (size_t at = 0; at < body.len; at += frame_max - OVERHEAD) {
        size_t left = body.len - at;
        append_frame(c, AMQP_FRAME_BODY, channel, (const char *)body.bytes + at,
                     left < frame_max - OVERHEAD ? left : frame_max - OVERHEAD);
    }
}

static void encode_properties(crew_buffer *out, amqp_basic_properties_t *properties)
{
    enum { MOST = 4 << 20 };
    char *header = malloc(MOST);
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, properties, (amqp_bytes_t){ MOST, header });
    assert_true(size >= 0);
    crew_buffer_append(out, header, (size_t)size);
    free(header);
}

void fake_send_content(struct fake_connection *connection, unsigned channel, amqp_method_number_t method,
                       void *decoded, amqp_basic_properties_t *properties, amqp_bytes_t body)
{
    crew_buffer header = { 0 };
    encode_properties(&header, properties);
    fake_send(connection, channel, method, decoded);
    send_content(connection, channel, bytes_of(&header), body);
    crew_buffer_fini(&header);
}

void fake_send_bytes(struct fake_connection *connection, const void *bytes, size_t size)
{
    crew_buffer_append(&connection->out, bytes, size);
}

/* ---- queues ---- */

static struct message *new_message(void)
{
    struct message *m = calloc(1, sizeof *m);
    assert_non_null(m);
    return m;
}

static void free_message(struct message *m)
{
    if (!m)
        return;
    crew_buffer_fini(&m->header);
    crew_buffer_fini(&m->body);
    free(m);
}

static struct queue *find_queue(struct fake_broker *b, const char *name, bool make)
{
    struct queue *queue = b->queues;
    while (queue && strcmp(queue->name, name) != 0)
        queue = queue->next;
    if (queue || !make)
        return queue;
    queue = calloc(1, sizeof *queue);
    assert_non_null(queue);
    (void)snprintf(queue->name, sizeof queue->name, "%s", name);
    queue->next = b->queues;
    b->queues = queue;
    return queue;
}

static unsigned count_consumers(const struct fake_broker *b, const struct queue *queue)
{
    unsigned count = 0;
    for (const struct consumer *each = b->consumers; each; each = each->next)
        count += each->queue == queue;
    return count;
}

static void deliver(struct consumer *to, struct message *m)
{
    struct channel *channel = &to->connection->channels[to->channel];
    amqp_basic_deliver_t method = { .consumer_tag = amqp_cstring_bytes(to->tag),
                                    .delivery_tag = ++channel->delivered,
                                    .redelivered = m->redelivered };
    fake_send(to->connection, to->channel, AMQP_BASIC_DELIVER_METHOD, &method);
    send_content(to->connection, to->channel, bytes_of(&m->header), bytes_of(&m->body));
    if (to->no_ack) {
        free_message(m);
        return;
    }
    struct message **last = &channel->unacked;
    while (*last)
        last = &(*last)->next;
    m->next = NULL;
    m->tag = method.delivery_tag;
    m->queue = to->queue;
    m->consumer = to;
    to->unacked++;
    to->queue->unacked++;
    *last = m;
}

/* Gives out what can be, to the consumers by turns. */
static void give_out(struct fake_broker *b, struct queue *queue)
{
    bool more = true;
    while (more && queue->ready) {
        more = false;
        for (struct consumer *each = b->consumers; each && queue->ready; each = each->next) {
            if (each->queue != queue || (each->prefetch && each->unacked >= each->prefetch))
                continue;
            struct message *m = queue->ready;
            queue->ready = m->next;
            queue->length--;
            deliver(each, m);
            more = true;
        }
    }
}

/* Behind what waits, or where it came again: in front. */
static void put(struct fake_broker *b, struct queue *queue, struct message *m, bool again)
{
    struct message **at = &queue->ready;
    while (*at && (!again || (*at)->redelivered))
        at = &(*at)->next;
    m->redelivered = again;
    m->next = *at;
    *at = m;
    queue->length++;
    give_out(b, queue);
}

/* Settles what has this tag, or all up to it: 'a'ck, 'r'equeue, 'd'rop. */
static void settle(struct fake_connection *c, unsigned number, uint64_t tag, bool multiple, char how)
{
    struct channel *channel = &c->channels[number];
    for (struct message **at = &channel->unacked, *m; (m = *at);) {
        bool meant = multiple ? !tag || m->tag <= tag : m->tag == tag;
        if (!meant) {
            at = &m->next;
            continue;
        }
        struct queue *queue = m->queue;
        *at = m->next;
        if (m->consumer)
            m->consumer->unacked--;
        queue->unacked--;
        if (how == 'r')
            put(c->broker, queue, m, true);
        else
            free_message(m);
        give_out(c->broker, queue);
    }
}

/* Consumers of a channel, or one of them, end. What is with them stays there. */
static void end_consumers(struct fake_connection *c, unsigned channel, const char *tag)
{
    for (struct consumer **at = &c->broker->consumers, *each; (each = *at);) {
        if (each->connection != c || each->channel != channel || (tag && strcmp(each->tag, tag) != 0)) {
            at = &each->next;
            continue;
        }
        *at = each->next;
        for (struct message *m = c->channels[channel].unacked; m; m = m->next)
            if (m->consumer == each)
                m->consumer = NULL;
        free(each);
    }
}

static void end_channel(struct fake_connection *c, unsigned number)
{
    struct channel *channel = &c->channels[number];
    struct message *m = channel->unacked;
    end_consumers(c, number, NULL);
    channel->unacked = NULL;
    for (struct message *next; m; m = next) {
        next = m->next;
        m->queue->unacked--;
        put(c->broker, m->queue, m, true);
    }
    free_message(channel->content);
    *channel = (struct channel){ .open = false };
}

void fake_close_channel(struct fake_connection *connection, unsigned channel, unsigned code, const char *text)
{
    amqp_channel_close_t method = { .reply_code = (uint16_t)code, .reply_text = amqp_cstring_bytes(text) };
    end_channel(connection, channel);
    connection->channels[channel].closing = true;
    fake_send(connection, channel, AMQP_CHANNEL_CLOSE_METHOD, &method);
}

static void end_connection(struct fake_connection *c)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        end_channel(c, i);
}

void fake_close_connection(struct fake_connection *connection, unsigned code, const char *text)
{
    amqp_connection_close_t method = { .reply_code = (uint16_t)code, .reply_text = amqp_cstring_bytes(text) };
    end_connection(connection);
    fake_send(connection, 0, AMQP_CONNECTION_CLOSE_METHOD, &method);
    connection->dropped = true;
}

void fake_drop(struct fake_connection *connection)
{
    end_connection(connection);
    connection->dropped = true;
}

void fake_ignore(struct fake_connection *connection, bool ignore)
{
    connection->ignored = ignore;
}

/* ---- publishing ---- */

static struct consumer *find_direct(struct fake_broker *b, const char *address)
{
    unsigned connection, channel;
    if (sscanf(address + sizeof direct - 1, ".g1.%u.%u", &connection, &channel) != 2)
        return NULL;
    struct consumer *each = b->consumers;
    while (each && (each->queue || each->connection->number != connection || each->channel != channel))
        each = each->next;
    return each;
}

/* Where direct replies to this channel go. False, and the channel is closed: nobody consumes them there. */
static bool name_reply_to(struct fake_connection *c, unsigned channel, struct message *m)
{
    amqp_pool_t pool;
    void *decoded;
    char address[NAME];
    init_amqp_pool(&pool, POOL);
    assert_int_equal(amqp_decode_properties(AMQP_BASIC_CLASS, &pool, bytes_of(&m->header), &decoded), 0);
    amqp_basic_properties_t *properties = decoded;
    bool is_direct = (properties->_flags & AMQP_BASIC_REPLY_TO_FLAG) && fake_is(properties->reply_to, direct);
    (void)snprintf(address, sizeof address, "%s.g1.%u.%u", direct, c->number, channel);
    bool good = !is_direct || find_direct(c->broker, address);
    if (is_direct && good) {
        properties->reply_to = amqp_cstring_bytes(address);
        crew_buffer_clear(&m->header);
        encode_properties(&m->header, properties);
    }
    empty_amqp_pool(&pool);
    if (!good)
        fake_close_channel(c, channel, 406, "PRECONDITION_FAILED - fast reply consumer does not exist");
    return good;
}

static void route(struct fake_connection *c, unsigned number)
{
    struct channel *channel = &c->channels[number];
    struct message *m = channel->content;
    bool is_direct = strncmp(channel->key, direct, sizeof direct - 1) == 0;
    struct consumer *to = is_direct ? find_direct(c->broker, channel->key) : NULL;
    struct queue *queue = find_queue(c->broker, channel->key, false);
    channel->content = NULL;
    channel->publishing = false;
    if (!name_reply_to(c, number, m)) {
        free_message(m);
        return;
    }
    if (!queue && !to && channel->mandatory) {
        amqp_basic_return_t method = { .reply_code = 312,
                                       .reply_text = amqp_cstring_bytes("NO_ROUTE"),
                                       .exchange = amqp_cstring_bytes(channel->exchange),
                                       .routing_key = amqp_cstring_bytes(channel->key) };
        fake_send(c, number, AMQP_BASIC_RETURN_METHOD, &method);
        send_content(c, number, bytes_of(&m->header), bytes_of(&m->body));
    }
    if (channel->confirms) {
        amqp_basic_ack_t method = { .delivery_tag = channel->published };
        fake_send(c, number, AMQP_BASIC_ACK_METHOD, &method);
    }
    if (to) {
        deliver(to, m);
    } else if (queue) {
        put(c->broker, queue, m, false);
    } else {
        free_message(m);
    }
}

/* ---- methods in ---- */

static void send_start(struct fake_connection *c)
{
    static const char *const rabbitmq[] = {
        "publisher_confirms", "exchange_exchange_bindings",   "basic.nack", "consumer_cancel_notify",
        "connection.blocked", "authentication_failure_close", NULL
    };
    const struct fake_options *o = &c->broker->options;
    const char *const *names = o->capabilities ? o->capabilities : rabbitmq;
    amqp_table_entry_t flags[32], entries[3];
    int count = 0;
    for (; names[count]; count++)
        flags[count] =
            (amqp_table_entry_t){ .key = amqp_cstring_bytes(names[count]),
                                  .value = { .kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1 } };
    entries[0] =
        (amqp_table_entry_t){ .key = amqp_cstring_bytes("capabilities"),
                              .value = { .kind = AMQP_FIELD_KIND_TABLE, .value.table = { count, flags } } };
    entries[1] = (amqp_table_entry_t){ .key = amqp_cstring_bytes("product"),
                                       .value = { .kind = AMQP_FIELD_KIND_UTF8,
                                                  .value.bytes = amqp_cstring_bytes("RabbitMQ") } };
    entries[2] = (amqp_table_entry_t){ .key = amqp_cstring_bytes("version"),
                                       .value = { .kind = AMQP_FIELD_KIND_UTF8,
                                                  .value.bytes = amqp_cstring_bytes(o->version ? o->version
                                                                                               : "4.0.5") } };
    amqp_connection_start_t start = { .version_minor = 9,
                                      .server_properties = { 3, entries },
                                      .mechanisms = amqp_cstring_bytes("PLAIN"),
                                      .locales = amqp_cstring_bytes("en_US") };
    fake_send(c, 0, AMQP_CONNECTION_START_METHOD, &start);
}

static void on_declare(struct fake_connection *c, unsigned channel, const amqp_queue_declare_t *m)
{
    char name[NAME], text[2 * NAME];
    copy_name(name, m->queue);
    if (!*name)
        (void)snprintf(name, sizeof name, "amq.gen-%u", ++c->broker->numbers);
    struct queue *queue = find_queue(c->broker, name, !m->passive);
    if (!queue) {
        (void)snprintf(text, sizeof text, "NOT_FOUND - no queue '%s' in vhost '/'", name);
        fake_close_channel(c, channel, 404, text);
        return;
    }
    if (m->exclusive)
        queue->owner = c;
    amqp_queue_declare_ok_t ok = { .queue = amqp_cstring_bytes(name),
                                   .message_count = (uint32_t)queue->length,
                                   .consumer_count = count_consumers(c->broker, queue) };
    if (!m->nowait)
        fake_send(c, channel, AMQP_QUEUE_DECLARE_OK_METHOD, &ok);
}

static void on_consume(struct fake_connection *c, unsigned channel, const amqp_basic_consume_t *m)
{
    char name[NAME], text[2 * NAME];
    copy_name(name, m->queue);
    bool is_direct = strcmp(name, direct) == 0;
    struct queue *queue = is_direct ? NULL : find_queue(c->broker, name, false);
    if (!queue && !is_direct) {
        (void)snprintf(text, sizeof text, "NOT_FOUND - no queue '%s' in vhost '/'", name);
        fake_close_channel(c, channel, 404, text);
        return;
    }
    struct consumer *consumer = calloc(1, sizeof *consumer), **last = &c->broker->consumers;
    assert_non_null(consumer);
    *consumer = (struct consumer){ .connection = c,
                                   .channel = channel,
                                   .queue = queue,
                                   .no_ack = m->no_ack,
                                   .prefetch = c->channels[channel].prefetch };
    copy_name(consumer->tag, m->consumer_tag);
    assert_true(!is_direct || !*consumer->tag); /* LavinMQ gives answers to whoever has the tag */
    if (!*consumer->tag)
        (void)snprintf(consumer->tag, sizeof consumer->tag, "amq.ctag-%u", ++c->broker->numbers);
    while (*last)
        last = &(*last)->next;
    *last = consumer;
    amqp_basic_consume_ok_t ok = { .consumer_tag = amqp_cstring_bytes(consumer->tag) };
    if (!m->nowait)
        fake_send(c, channel, AMQP_BASIC_CONSUME_OK_METHOD, &ok);
    if (queue)
        give_out(c->broker, queue);
}

static void on_cancel(struct fake_connection *c, unsigned channel, const amqp_basic_cancel_t *m)
{
    char tag[NAME];
    copy_name(tag, m->consumer_tag);
    end_consumers(c, channel, tag);
    amqp_basic_cancel_ok_t ok = { .consumer_tag = m->consumer_tag };
    if (!m->nowait)
        fake_send(c, channel, AMQP_BASIC_CANCEL_OK_METHOD, &ok);
}

static void tune(struct fake_connection *c)
{
    const struct fake_options *o = &c->broker->options;
    amqp_connection_tune_t method = { .channel_max = (uint16_t)o->channel_max,
                                      .frame_max = o->frame_max,
                                      .heartbeat = (uint16_t)o->heartbeat_s };
    fake_send(c, 0, AMQP_CONNECTION_TUNE_METHOD, &method);
}

static void on_method(struct fake_connection *c, unsigned channel, amqp_method_number_t id,
                      const void *decoded)
{
    amqp_channel_open_ok_t open_ok = { .channel_id = amqp_empty_bytes };
    amqp_connection_open_ok_t connection_ok = { .known_hosts = amqp_empty_bytes };
    char nothing[64] = { 0 }; /* of methods that say nothing more */
    struct channel *at = &c->channels[channel];
    switch (id) {
    case AMQP_CONNECTION_START_OK_METHOD: tune(c); break;
    case AMQP_CONNECTION_TUNE_OK_METHOD: break;
    case AMQP_CONNECTION_OPEN_METHOD:
        c->logged_in = true;
        fake_send(c, 0, AMQP_CONNECTION_OPEN_OK_METHOD, &connection_ok);
        break;
    case AMQP_CONNECTION_CLOSE_METHOD:
        end_connection(c);
        fake_send(c, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, nothing);
        c->dropped = true;
        break;
    case AMQP_CHANNEL_OPEN_METHOD:
        at->open = true;
        fake_send(c, channel, AMQP_CHANNEL_OPEN_OK_METHOD, &open_ok);
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        end_channel(c, channel);
        fake_send(c, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, nothing);
        break;
    case AMQP_CHANNEL_CLOSE_OK_METHOD: at->closing = false; break;
    case AMQP_CONFIRM_SELECT_METHOD:
        at->confirms = true;
        fake_send(c, channel, AMQP_CONFIRM_SELECT_OK_METHOD, nothing);
        break;
    case AMQP_EXCHANGE_DECLARE_METHOD: fake_send(c, channel, AMQP_EXCHANGE_DECLARE_OK_METHOD, nothing); break;
    case AMQP_QUEUE_DECLARE_METHOD: on_declare(c, channel, decoded); break;
    case AMQP_QUEUE_BIND_METHOD: fake_send(c, channel, AMQP_QUEUE_BIND_OK_METHOD, nothing); break;
    case AMQP_BASIC_QOS_METHOD:
        at->prefetch = ((const amqp_basic_qos_t *)decoded)->prefetch_count;
        fake_send(c, channel, AMQP_BASIC_QOS_OK_METHOD, nothing);
        break;
    case AMQP_BASIC_CONSUME_METHOD: on_consume(c, channel, decoded); break;
    case AMQP_BASIC_CANCEL_METHOD: on_cancel(c, channel, decoded); break;
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *m = decoded;
        settle(c, channel, m->delivery_tag, m->multiple, 'a');
        break;
    }
    case AMQP_BASIC_REJECT_METHOD: {
        const amqp_basic_reject_t *m = decoded;
        settle(c, channel, m->delivery_tag, false, m->requeue ? 'r' : 'd');
        break;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *m = decoded;
        settle(c, channel, m->delivery_tag, m->multiple, m->requeue ? 'r' : 'd');
        break;
    }
    case AMQP_BASIC_PUBLISH_METHOD: route(c, channel); break;
    default: break;
    }
}

void fake_proceed(const struct fake_event *event)
{
    on_method(event->connection, event->channel, event->method, event->decoded);
}

static unsigned note(struct fake_broker *b, amqp_method_number_t method)
{
    size_t i = 0;
    while (b->counts[i].method && b->counts[i].method != method)
        i++;
    assert_true(i < METHODS);
    b->counts[i].method = method;
    return ++b->counts[i].count;
}

static void show(struct fake_connection *c, struct fake_event *event)
{
    const struct fake_options *o = &c->broker->options;
    event->broker = c->broker;
    event->connection = c;
    event->count = note(c->broker, event->method);
    if (o->script && o->script(o->context, event)) {
        free_message(c->channels[event->channel].content);
        c->channels[event->channel].content = NULL;
        c->channels[event->channel].publishing = false;
        return;
    }
    on_method(c, event->channel, event->method, event->decoded);
}

/* ---- frames in ---- */

static void begin_publish(struct fake_connection *c, unsigned number, const amqp_basic_publish_t *m)
{
    struct channel *channel = &c->channels[number];
    copy_name(channel->exchange, m->exchange);
    copy_name(channel->key, m->routing_key);
    channel->mandatory = m->mandatory;
    channel->publishing = true;
    channel->published += channel->confirms;
    channel->content = new_message();
}

/* All of a publish is there. */
static void end_publish(struct fake_connection *c, unsigned number, amqp_pool_t *pool)
{
    struct channel *channel = &c->channels[number];
    void *properties;
    size_t most = c->broker->options.max_message_size, size = channel->content->body.size;
    amqp_basic_publish_t method = { .exchange = amqp_cstring_bytes(channel->exchange),
                                    .routing_key = amqp_cstring_bytes(channel->key),
                                    .mandatory = channel->mandatory };
    assert_int_equal(
        amqp_decode_properties(AMQP_BASIC_CLASS, pool, bytes_of(&channel->content->header), &properties), 0);
    struct fake_event event = { .channel = number,
                                .method = AMQP_BASIC_PUBLISH_METHOD,
                                .decoded = &method,
                                .properties = properties,
                                .body = bytes_of(&channel->content->body) };
    if (most && size > most) {
        char text[200];
        (void)note(c->broker, event.method);
        (void)snprintf(text, sizeof text,
                       "PRECONDITION_FAILED - message size %zu is larger than configured max size %zu", size,
                       most);
        fake_close_channel(c, number, 406, text);
        return;
    }
    show(c, &event);
}

static void on_frame(struct fake_connection *c, int type, unsigned number, char *payload, size_t size)
{
    struct channel *channel = &c->channels[number < CHANNELS ? number : 0];
    amqp_pool_t pool;
    assert_true(number < CHANNELS);
    init_amqp_pool(&pool, POOL);
    if (type == AMQP_FRAME_METHOD) {
        void *decoded;
        amqp_method_number_t id = get_u32(payload);
        bool closing = channel->closing && id != AMQP_CHANNEL_CLOSE_OK_METHOD; /* crossed our close */
        assert_int_equal(amqp_decode_method(id, &pool, (amqp_bytes_t){ size - 4, payload + 4 }, &decoded), 0);
        struct fake_event event = { .channel = number, .method = id, .decoded = decoded };
        if (id == AMQP_BASIC_PUBLISH_METHOD && !closing)
            begin_publish(c, number, decoded);
        else if (!closing)
            show(c, &event);
    } else if (type == AMQP_FRAME_HEADER && channel->publishing) {
        channel->body_left = get_u32(payload + 8);
        crew_buffer_append(&channel->content->header, payload + 12, size - 12);
        if (!channel->body_left)
            end_publish(c, number, &pool);
    } else if (type == AMQP_FRAME_BODY && channel->publishing) {
        crew_buffer_append(&channel->content->body, payload, size);
        channel->body_left -= size;
        if (!channel->body_left)
            end_publish(c, number, &pool);
    }
    empty_amqp_pool(&pool);
}

/* Takes whole frames off what has come. */
static void read_frames(struct fake_connection *c)
{
    size_t at = 0;
    if (!c->greeted && c->in.size >= 8) {
        c->greeted = true;
        at = 8;
        send_start(c);
    }
    while (c->greeted && !c->dropped && !c->ignored && c->in.size - at >= OVERHEAD) {
        char *frame = c->in.data + at;
        size_t size = get_u32(frame + 3);
        if (c->in.size - at < size + OVERHEAD)
            break;
        on_frame(c, frame[0], (unsigned)(unsigned char)frame[1] << 8 | (unsigned char)frame[2], frame + 7,
                 size);
        at += size + OVERHEAD;
    }
    if (at) {
        memmove(c->in.data, c->in.data + at, c->in.size - at);
        c->in.size -= at;
    }
}

/* ---- the thread ---- */

static void accept_connection(struct fake_broker *b)
{
    size_t place = 0;
    const int yes = 1;
    while (b->connections[place])
        place++;
    assert_true(place < CONNECTIONS);
    struct fake_connection *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->broker = b;
    c->fd = accept(b->listener, NULL, NULL);
    c->number = ++b->numbers;
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    b->connections[place] = c;
}

static void free_queue(struct queue *queue)
{
    for (struct message *m = queue->ready, *next; m; m = next) {
        next = m->next;
        free_message(m);
    }
    free(queue);
}

static void free_connection(struct fake_connection **place)
{
    struct fake_connection *c = *place;
    *place = NULL;
    end_connection(c);
    for (struct queue **at = &c->broker->queues, *queue; (queue = *at);)
        if (queue->owner == c) {
            *at = queue->next;
            free_queue(queue);
        } else {
            at = &queue->next;
        }
    close(c->fd);
    crew_buffer_fini(&c->in);
    crew_buffer_fini(&c->out);
    free(c);
}

/* Whether it goes on. */
static bool serve(struct fake_connection *c, short events)
{
    char bytes[65536];
    if (events & (POLLIN | POLLHUP | POLLERR)) {
        ssize_t got = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            return false;
        if (got > 0)
            crew_buffer_append(&c->in, bytes, (size_t)got);
    }
    read_frames(c);
    if (c->out.size) {
        ssize_t sent = send(c->fd, c->out.data + c->sent, c->out.size - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return false;
        c->sent += sent > 0 ? (size_t)sent : 0;
    }
    if (c->sent == c->out.size) {
        crew_buffer_fini(&c->out); /* what was large is not kept */
        c->sent = 0;
    }
    return !c->dropped || c->out.size;
}

static void *run(void *argument)
{
    struct fake_broker *b = argument;
    pthread_mutex_lock(&b->mutex);
    while (!b->ended) {
        struct pollfd fds[CONNECTIONS + 2] = { { .fd = b->listener, .events = POLLIN },
                                               { .fd = b->wake, .events = POLLIN } };
        for (size_t i = 0; i < CONNECTIONS; i++) {
            const struct fake_connection *c = b->connections[i];
            fds[i + 2] = (struct pollfd){ .fd = c ? c->fd : -1, .events = POLLIN };
            if (c && c->out.size)
                fds[i + 2].events |= POLLOUT;
            if (c && c->ignored)
                fds[i + 2].events &= ~POLLIN;
        }
        pthread_mutex_unlock(&b->mutex);
        (void)poll(fds, CONNECTIONS + 2, -1);
        pthread_mutex_lock(&b->mutex);
        uint64_t ignored;
        if (fds[1].revents)
            (void)!read(b->wake, &ignored, sizeof ignored);
        for (size_t i = 0; i < CONNECTIONS; i++)
            if (b->connections[i] && fds[i + 2].fd == b->connections[i]->fd &&
                !serve(b->connections[i], fds[i + 2].revents))
                free_connection(&b->connections[i]);
        if (fds[0].revents)
            accept_connection(b);
        for (size_t i = 0; i < CONNECTIONS; i++) /* what one has caused is for others, too */
            if (b->connections[i] && !serve(b->connections[i], 0))
                free_connection(&b->connections[i]);
    }
    pthread_mutex_unlock(&b->mutex);
    return NULL;
}

static void wake(struct fake_broker *b)
{
    uint64_t one = 1;
    (void)!write(b->wake, &one, sizeof one);
}

struct fake_broker *fake_start(const struct fake_options *options)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    struct fake_broker *b = calloc(1, sizeof *b);
    assert_non_null(b);
    if (options)
        b->options = *options;
    if (!b->options.channel_max)
        b->options.channel_max = 2047;
    if (!b->options.frame_max)
        b->options.frame_max = 131072;
    if (!b->options.heartbeat_s)
        b->options.heartbeat_s = 60;
    (void)pthread_mutex_init(&b->mutex, NULL);
    b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    b->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(b->listener, (const struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(b->listener, 64), 0);
    assert_int_equal(getsockname(b->listener, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(b->url, sizeof b->url, "amqp://127.0.0.1:%u/", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&b->thread, NULL, run, b), 0);
    return b;
}

void fake_stop(struct fake_broker *broker)
{
    struct fake_broker *b = broker;
    pthread_mutex_lock(&b->mutex);
    b->ended = true;
    wake(b);
    pthread_mutex_unlock(&b->mutex);
    (void)pthread_join(b->thread, NULL);
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (b->connections[i])
            free_connection(&b->connections[i]);
    for (struct queue *queue = b->queues, *next; queue; queue = next) {
        next = queue->next;
        free_queue(queue);
    }
    close(b->listener);
    close(b->wake);
    (void)pthread_mutex_destroy(&b->mutex);
    free(b);
}

const char *fake_url(const struct fake_broker *broker)
{
    return broker->url;
}

unsigned fake_count(struct fake_broker *broker, amqp_method_number_t method)
{
    unsigned count = 0;
    pthread_mutex_lock(&broker->mutex);
    for (size_t i = 0; i < METHODS; i++)
        if (broker->counts[i].method == method)
            count = broker->counts[i].count;
    pthread_mutex_unlock(&broker->mutex);
    return count;
}

/* Of a queue: what waits there, and what is with its consumers. */
static void count_messages(struct fake_broker *b, const char *name, size_t *ready, size_t *unacked)
{
    pthread_mutex_lock(&b->mutex);
    const struct queue *queue = find_queue(b, name, false);
    *ready = queue ? queue->length : 0;
    *unacked = queue ? queue->unacked : 0;
    pthread_mutex_unlock(&b->mutex);
}

size_t fake_ready(struct fake_broker *broker, const char *queue)
{
    size_t ready, unacked;
    count_messages(broker, queue, &ready, &unacked);
    return ready;
}

size_t fake_unacked(struct fake_broker *broker, const char *queue)
{
    size_t ready, unacked;
    count_messages(broker, queue, &ready, &unacked);
    return unacked;
}

void fake_put_bytes(struct fake_broker *broker, const char *queue, const amqp_basic_properties_t *properties,
                    amqp_bytes_t body)
{
    amqp_basic_properties_t copy = *properties;
    struct message *m = new_message();
    encode_properties(&m->header, &copy);
    crew_buffer_append(&m->body, body.bytes, body.len);
    pthread_mutex_lock(&broker->mutex);
    put(broker, find_queue(broker, queue, true), m, false);
    wake(broker);
    pthread_mutex_unlock(&broker->mutex);
}

void fake_put(struct fake_broker *broker, const char *queue, const amqp_basic_properties_t *properties,
              const char *body)
{
    fake_put_bytes(broker, queue, properties, amqp_cstring_bytes(body));
}

void fake_each(struct fake_broker *broker, void (*what)(struct fake_connection *connection, void *context),
               void *context)
{
    pthread_mutex_lock(&broker->mutex);
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (broker->connections[i] && broker->connections[i]->logged_in)
            what(broker->connections[i], context);
    wake(broker);
    pthread_mutex_unlock(&broker->mutex);
}
