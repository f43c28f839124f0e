/* amqp://user:password@host:port/vhost?queue=…: RabbitMQ; amqps://…: the same over TLS. The worker is in
 * amqp_worker.c, the caller in amqp_caller.c. */
#include "transport/amqp_end.h"
#include "transport/transports.h"

#include <stdio.h>
#include <stdlib.h>

void amqp_sizes_open(struct amqp_sizes *sizes, const struct amqp_link *link)
{
    if (sizes->taken < AMQP_SMALL || sizes->taken == SIZE_MAX)
        sizes->taken = AMQP_SMALL;
    if (!amqp_link_has(link, AMQP_LARGE))
        sizes->taken = SIZE_MAX;
    sizes->most = 0; /* it may be another broker, or another limit */
    sizes->busy = false;
}

void amqp_sizes_begin(struct amqp_sizes *sizes, size_t size)
{
    sizes->busy = true;
    sizes->size = size;
    sizes->since_ms = crew_now_ms();
}

bool amqp_sizes_give_up(struct amqp_sizes *sizes, struct amqp_link *link)
{
    if (amqp_link_is_blocked(link)) /* which is no fault of its */
        sizes->since_ms = crew_now_ms();
    if (!sizes->busy || crew_now_ms() - sizes->since_ms < AMQP_LARGE_MS)
        return false;
    sizes->busy = false;
    return amqp_link_close_large(link);
}

/* RabbitMQ: message size N is larger than configured max size M. */
static bool learn(struct amqp_sizes *sizes, const char *words)
{
    const char *mark = strstr(words, AMQP_MAX_SIZE);
    unsigned long long most = mark ? strtoull(mark + strlen(AMQP_MAX_SIZE), NULL, 10) : 0;
    if (most)
        sizes->most = (size_t)most;
    return most > 0;
}

void amqp_sizes_note(struct amqp_sizes *sizes, const struct amqp_event *e, const crew_error *why)
{
    sizes->busy = false;
    if (e->kind == AMQP_EVENT_LARGE && e->taken) {
        sizes->taken = sizes->size > sizes->taken ? sizes->size : sizes->taken;
    } else if (e->kind == AMQP_EVENT_TOO_LARGE) {
        (void)learn(sizes, why->message);
        (void)snprintf(sizes->words, sizeof sizes->words, "%.*s", (int)sizeof sizes->words - 1, why->message);
    }
}

void amqp_sizes_note_loss(struct amqp_sizes *sizes, const char *words)
{
    if (!learn(sizes, words))
        return;
    (void)snprintf(sizes->words, sizeof sizes->words, "%.*s", (int)sizeof sizes->words - 1, words);
    sizes->taken = AMQP_SMALL;
}

static crew_status check(const crew_url *url, bool server, crew_error *why)
{
    static const char *const names[] = { "queue", "exchange", "routing_key", "dead_letter_exchange",
                                         "dead_letter_routing_key" };
    const char *wants = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (crew_url_option(url, names[i]) && strlen(crew_url_option(url, names[i])) > 255)
            wants = "the names of queues, exchanges and routing keys have 255 bytes at most";
    if (crew_url_option(url, "queue") && !*crew_url_option(url, "queue"))
        wants = "?queue= wants a name";
    else if (server && !crew_url_option(url, "queue"))
        wants = "a worker wants ?queue=NAME";
    else if (!server && !crew_url_option(url, "queue") && !crew_url_option(url, "routing_key"))
        wants = "a caller wants ?queue=NAME, or ?exchange=NAME&routing_key=KEY";
    const char *bind = crew_url_option(url, "bind");
    size_t exchange = bind ? strcspn(bind, ":") : 1;
    if (!exchange || exchange > 255 || (bind && strlen(bind + exchange) > 256))
        wants = "bind wants EXCHANGE:KEY, 255 bytes each at most";
    static const char *const declared[] = { "dead_letter_exchange", "max_length",   "overflow",
                                            "message_ttl",          "max_priority", "delivery_limit" };
    bool declares = !crew_url_option(url, "declare") || crew_url_option_is(url, "declare", "yes");
    for (size_t i = 0; i < sizeof declared / sizeof *declared && !declares; i++)
        if (crew_url_option(url, declared[i]))
            wants = "a queue's arguments want declare=yes: only who declares it says what they are";
    if (crew_url_option(url, "overflow") && !crew_url_option(url, "max_length"))
        wants = "overflow wants max_length";
    bool quorum = crew_url_option_is(url, "queue_type", "quorum");
    if (crew_url_option(url, "max_priority") && quorum)
        wants = "max_priority is for classic queues";
    if (crew_url_option(url, "delivery_limit") && !quorum)
        wants = "delivery_limit wants queue_type=quorum";
    if (crew_url_option(url, "dead_letter_routing_key") && !crew_url_option(url, "dead_letter_exchange"))
        wants = "dead_letter_routing_key wants dead_letter_exchange, which may be empty";
    if (!crew_url_option(url, "certfile") != !crew_url_option(url, "keyfile"))
        wants = "certfile and keyfile go together";
    return wants ? crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': %s", crew_url_text(url), wants)
                 : CREW_OK;
}

/* Of both schemes. */
#define OPTIONS                                                                                           \
    { "queue", NULL, 0, 0, "the queue that requests go through" },                                        \
        { "exchange", NULL, 0, 0, "caller: where requests are published; the default exchange" },         \
        { "routing_key", NULL, 0, 0, "caller: with which key; the queue's name" },                        \
        { "heartbeat", NULL, 1, 3600, "seconds" }, { "prefetch", NULL, 1, 65535, "worker: in_flight" },   \
        { "ack", "reply|early", 0, 0, "worker: with the answer, or on receipt (at most once)" },          \
        { "bind", NULL, 0, 0, "worker: EXCHANGE:KEY, to which the queue is bound" },                      \
        { "replies", "yes|no", 0, 0, "worker: no: it answers nothing, and wants no right to" },           \
        { "redelivered", "run|refuse", 0, 0, "worker: what to do with what a worker had before" },        \
        { "reply", "queue|direct", 0, 0, "caller: an exclusive queue for answers, or direct reply-to" },  \
        { "declare", "yes|passive|no", 0, 0, "worker: declares the queue, only checks it, neither" },     \
        { "queue_type", "classic|quorum", 0, 0, "worker: as what it is declared" },                       \
        { "consumer_timeout", NULL, 1, 1U << 31, "worker: ms that a request may take, as declared" },     \
        { "dead_letter_exchange", NULL, 0, 0, "worker: where the queue's dead letters go, as declared" }, \
        { "dead_letter_routing_key", NULL, 0, 0, "worker: by which key; their own" },                     \
        { "max_length", NULL, 0, INT64_MAX, "worker: requests that may wait in the queue, as declared" }, \
        { "overflow", "drop-head|reject-publish", 0, 0, "worker: what then becomes of one more" },        \
        { "message_ttl", NULL, 0, UINT32_MAX, "worker: ms that a request may wait there, as declared" },  \
        { "max_priority", NULL, 1, 255, "worker: of a classic queue's priorities, as declared" },         \
        { "delivery_limit", NULL, 0, INT32_MAX,                                                           \
          "worker: how often a quorum queue gives one out, as declared" },                                \
        { "confirm", "yes|no|all", 0, 0,                                                                  \
          "caller: one-way calls are confirmed by the broker; none; all are" }

static const crew_url_option_spec plain_options[] = {
    OPTIONS,
    { NULL, NULL, 0, 0, NULL },
};

static const crew_url_option_spec tls_options[] = {
    OPTIONS,
    { "cacertfile", NULL, 0, 0, "certificates of the authorities to trust (PEM); the system's" },
    { "certfile", NULL, 0, 0, "our certificate, for brokers that want one (PEM)" },
    { "keyfile", NULL, 0, 0, "its key (PEM)" },
    { "verify", "verify_peer|verify_none", 0, 0, "whether the broker's certificate and name are checked" },
    { NULL, NULL, 0, 0, NULL },
};

const crew_transport crew_amqp = { .scheme = "amqp",
                                   .carries_types = true,
                                   .redelivers = true,
                                   .options = plain_options,
                                   .check = check,
                                   .server = &crew_amqp_worker_ops,
                                   .client = &crew_amqp_caller_ops };

const crew_transport crew_amqps = { .scheme = "amqps",
                                    .carries_types = true,
                                    .redelivers = true,
                                    .options = tls_options,
                                    .check = check,
                                    .server = &crew_amqp_worker_ops,
                                    .client = &crew_amqp_caller_ops };
