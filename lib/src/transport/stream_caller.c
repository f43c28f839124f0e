/* Answers are matched by the protocol's id. What is to be written is a copy of the request, which is given
 * back when its first byte is: if the connection is lost then, its call may be tried again. */
#include "transport/stream_caller.h"

#include <poll.h>
#include <unistd.h>

enum { OUTPUT_MOST = 1 << 20, CLOSE_TICK_MS = 10 };

crew_status stream_caller_open(struct stream_caller *c, const crew_transport_config *config, int in, int out,
                               crew_error *why)
{
    *c = (struct stream_caller){ .stream = NULL };
    crew_status status = stream_set_open(&c->set, config, why);
    if (status != CREW_OK) {
        if (in != out)
            close(out);
        close(in);
        return status;
    }
    c->stream = stream_new(&c->set, in, out, why);
    if (c->stream)
        return CREW_OK;
    stream_set_close(&c->set);
    return why ? why->status : CREW_SYSTEM;
}

/* Those of which a byte is out are told of; of what nobody answers, all must be. */
static void tell_written(struct stream_caller *c)
{
    struct stream *s = c->stream;
    for (crew_message *m; (m = s->messages.head);) {
        bool begun = m->number < s->written_bytes;
        bool out = m->one_way ? !m->next ? !stream_unwritten(s) : m->next->number <= s->written_bytes : begun;
        if (!out)
            return;
        (void)crew_list_take(&s->messages);
        m->kind = m->one_way ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
        crew_list_append(&c->events, m);
    }
}

crew_status stream_caller_send(void *state, crew_list *messages)
{
    struct stream_caller *c = state;
    struct stream *s = c->stream;
    while (messages->head && stream_unwritten(s) < OUTPUT_MOST && !s->gone) {
        crew_message *m = messages->head;
        bool answers = m->kind == CREW_SETTLE_REPLY; /* a call of the peer's */
        uint64_t begins = s->queued_bytes;
        crew_status status =
            stream_queue(s, m->content_type, crew_buffer_string(answers ? &m->reply : &m->body));
        if (status != CREW_OK)
            return status;
        m->number = begins;
        (void)crew_list_take(messages);
        if (answers)
            crew_message_give(c->set.config->messages, m);
        else
            crew_list_append(&s->messages, m);
    }
    stream_flush(s);
    tell_written(c);
    return CREW_OK;
}

bool stream_caller_ready(const void *state)
{
    const struct stream_caller *c = state;
    return stream_unwritten(c->stream) < OUTPUT_MOST && !c->stream->gone;
}

crew_status stream_caller_wait(void *state, int wake_fd, int timeout_ms, const crew_room *room)
{
    struct stream_caller *c = state;
    bool may_give = c->stream->in_round && crew_room_is_left(room);
    return stream_set_wait(&c->set, wake_fd, c->events.count || may_give ? 0 : timeout_ms);
}

/* An answer, or what should have been one. CREW_NO_MEMORY. */
static crew_status take_reply(struct stream_caller *c, const struct stream_span *span, crew_list *messages)
{
    crew_message *m = crew_message_take(c->set.config->messages);
    crew_status status = m ? stream_take(c->stream, span, &m->body) : CREW_NO_MEMORY;
    if (status != CREW_OK || !span->size) {
        crew_message_give(c->set.config->messages, m);
        return status;
    }
    m->kind = CREW_EVENT_REPLY;
    m->content_type = stream_framing_type(&c->stream->framing);
    crew_list_append(messages, m);
    return CREW_OK;
}

/* Reads and gives as much as there is room for; whether that was all. */
static crew_status take_replies(struct stream_caller *c, crew_list *messages, crew_room *room, bool *all)
{
    struct stream *s = c->stream;
    *all = false;
    while (crew_room_is_left(room)) {
        struct stream_span span;
        enum stream_found what = stream_peek(s, &span);
        if (what == STREAM_MORE) {
            bool read = stream_read(s);
            bool over = s->ended || s->gone;
            *all = !read && over && stream_peek(s, &span) == STREAM_MORE;
            if (*all || (!read && !over))
                return CREW_OK;
            continue;
        }
        if (what == STREAM_RUBBISH && span.size > c->set.config->limits.message_bytes)
            span.size = c->set.config->limits.message_bytes + 1;
        (void)crew_room_take(room, NULL, span.size);
        crew_status status = take_reply(c, &span, messages);
        if (status != CREW_OK)
            return status;
        if (what == STREAM_RUBBISH) {
            s->ended = s->refused = true;
            s->taken = s->input.size;
        }
    }
    return CREW_OK;
}

crew_status stream_caller_recv(void *state, crew_list *messages, crew_room *room)
{
    struct stream_caller *c = state;
    struct stream *s = c->stream;
    bool all = false;
    (void)stream_set_ticks(&c->set);
    (void)stream_set_turn(&c->set);
    stream_flush(s);
    tell_written(c);
    crew_list_move(messages, &c->events);
    crew_status status = take_replies(c, messages, room, &all);
    if (status != CREW_OK)
        return status;
    if (!all && (s->readable || stream_has_input(s)) && !crew_room_is_left(room))
        stream_wants_a_turn(s);
    if (!all)
        return CREW_OK;
    char words[200];
    return crew_error_set(c->set.config->lost, CREW_DISCONNECTED, "%s",
                          s->refused ? s->framing.why : stream_words(s, words));
}

void stream_caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct stream_caller *c = state;
    struct stream *s = c->stream;
    int64_t until_ms = crew_now_ms() + linger_ms;
    tell_written(c);
    /* What has not begun is not sent; what has is finished. */
    size_t rest = stream_unwritten(s);
    for (crew_message *m; (m = crew_list_take(&s->messages));) {
        if (m->number < s->written_bytes || !unsent) {
            crew_message_give(c->set.config->messages, m);
            continue;
        }
        if (m->number - s->written_bytes < rest)
            rest = (size_t)(m->number - s->written_bytes);
        crew_list_append(unsent, m);
    }
    c->set.output_bytes -= stream_unwritten(s) - rest;
    s->output.size = s->written + rest;
    while (stream_unwritten(s) && !s->gone && crew_now_ms() < until_ms &&
           !crew_transport_is_hurried(c->set.config)) {
        s->writable = true;
        stream_flush(s);
        if (stream_unwritten(s))
            (void)poll(&(struct pollfd){ .fd = s->out, .events = POLLOUT }, 1, CLOSE_TICK_MS);
    }
    crew_list_free(&c->events);
    stream_free(s);
    stream_set_close(&c->set);
}
