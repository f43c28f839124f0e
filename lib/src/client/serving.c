#include "client/serving.h"

#include "core/thread.h"
#include "io/endpoint.h"
#include "service/call.h"

#include <poll.h>

enum { WAITING_MOST = 64, ANSWERS_MOST = 1000, ANSWERS_BYTES = 64 << 20 };

/* The answer is in the message's reply; none: it is done with. */
static void settle(crew_message *m)
{
    struct crew_endpoint *endpoint = m->endpoint;
    crew_list one = { 0 };
    if (!m->reply.size || m->reply.failed) {
        crew_message_free(m);
        return;
    }
    m->kind = CREW_SETTLE_REPLY;
    m->correlation = 0;
    crew_buffer_fini(&m->body); /* it may have to wait */
    crew_arena_fini(&m->arena);
    crew_list_append(&one, m);
    crew_endpoint_push(endpoint, &one);
}

static void handle(const struct crew_serving *s, crew_message *m)
{
    crew_bytes answer = { 0 };
    crew_handle_options options = s->options;
    options.content_type = m->content_type;
    if (crew_handle(s->dispatcher, crew_buffer_string(&m->body), &options, &answer) == CREW_OK && answer.size)
        crew_buffer_append(&m->reply, answer.data, answer.size);
    crew_bytes_free(&answer);
    settle(m);
}

static void *run(void *serving)
{
    struct crew_serving *s = serving;
    crew_list waiting = { 0 };
    while (!atomic_load(&s->stop)) {
        struct pollfd fd = { .fd = s->queue.fd, .events = POLLIN };
        (void)poll(&fd, 1, -1);
        crew_queue_take(&s->queue, &waiting);
        for (crew_message *m; (m = crew_list_take(&waiting));) {
            if (atomic_load(&s->stop))
                crew_message_free(m);
            else
                handle(s, m);
        }
    }
    return NULL;
}

crew_status crew_serving_start(struct crew_serving *serving, const crew_dispatcher *dispatcher,
                               const crew_limits *limits, crew_error *why)
{
    struct crew_serving *s = serving;
    if (!dispatcher)
        return CREW_OK;
    crew_status status = crew_queue_init(&s->queue, WAITING_MOST, why);
    if (status != CREW_OK)
        return status;
    s->options.limits = *limits;
    s->dispatcher = dispatcher;
    status = crew_thread_start(&s->thread, "rpcrew-serving", run, s, why);
    if (status != CREW_OK) {
        s->dispatcher = NULL;
        crew_queue_fini(&s->queue);
    }
    return status;
}

void crew_serving_stop(struct crew_serving *s)
{
    if (!s->dispatcher)
        return;
    atomic_store(&s->stop, true);
    crew_queue_wake(&s->queue);
    (void)pthread_join(s->thread, NULL);
    crew_queue_fini(&s->queue);
    s->dispatcher = NULL;
}

bool crew_serving_wants(const crew_protocol *protocol, const crew_limits *limits, crew_string bytes)
{
    crew_arena arena = { 0 };
    crew_wire_calls calls = { 0 };
    bool good = protocol->decode_calls(bytes, limits, &arena, &calls) == CREW_OK && !calls.malformed;
    for (size_t i = 0; good && i < calls.count; i++)
        good = !calls.items[i].is_reply && calls.items[i].method.size;
    crew_arena_fini(&arena);
    return good;
}

/* Answers all calls of a message with an error. */
static void refuse(const crew_protocol *protocol, crew_message *m, int code)
{
    const struct crew_endpoint *endpoint = m->endpoint;
    crew_incoming_calls calls = { 0 };
    crew_outgoing_reply *replies = NULL;
    crew_bytes answer = { 0 };
    if (crew_read_calls(protocol, crew_buffer_string(&m->body), &endpoint->options.limits, &m->arena,
                        &calls) == CREW_OK)
        replies = crew_arena_zalloc(&m->arena, calls.count * sizeof *replies);
    for (size_t i = 0; replies && i < calls.count; i++)
        replies[i].code = code;
    if (replies && crew_write_replies(&calls, replies, CREW_ERRORS_PAIR, &answer) == CREW_OK && answer.size)
        crew_buffer_append(&m->reply, answer.data, answer.size);
    crew_bytes_free(&answer);
    settle(m);
}

void crew_serving_take(struct crew_serving *s, const crew_protocol *protocol, crew_message *m)
{
    crew_list one = { 0 };
    if (!s->dispatcher) {
        refuse(protocol, m, CREW_CODE_METHOD_NOT_FOUND);
        return;
    }
    crew_list_append(&one, m);
    if (crew_queue_push(&s->queue, &one) != CREW_OK)
        refuse(protocol, crew_list_take(&one), CREW_CODE_OVERLOADED);
}

bool crew_serving_keeps(const struct crew_endpoint *endpoint, const crew_message *message,
                        struct crew_serving_answers *answers)
{
    if (!endpoint->open || message->epoch != endpoint->epoch || answers->count == ANSWERS_MOST ||
        answers->bytes > ANSWERS_BYTES)
        return false;
    answers->count++;
    answers->bytes += message->reply.size;
    return true;
}
