/* Answers are matched by the protocol's id. What is to be written is a copy of the request, which is given
 * back when its first byte is: if the connection is lost then, its call may be tried again. */
#include "transport/stream_caller.h"

#include "transport/dial.h"

#include <poll.h>
#include <unistd.h>

enum { BATCH_BYTES = 64 << 10, READS_MOST = 16, CLOSE_TICK_MS = 10 };

crew_status stream_caller_open(struct stream_caller *c, const crew_transport_config *config, int in, int out,
                               struct tls *tls, crew_error *why)
{
    *c = (struct stream_caller){ .keepalive_ms = dial_keepalive_ms(config->url) };
    dial_keep_alive(out, c->keepalive_ms);
    crew_status status = stream_set_open(&c->set, config, why);
    if (status != CREW_OK) {
        tls_free(tls);
        if (in != out)
            close(out);
        close(in);
        return status;
    }
    c->stream = stream_new(&c->set, in, out, why);
    if (c->stream) {
        c->stream->tls = tls;
        return CREW_OK;
    }
    tls_free(tls);
    stream_set_close(&c->set);
    return why ? why->status : CREW_SYSTEM;
}

/* What is to be told of a one-way request when all of it is out; NULL without memory: then nothing is. */
static crew_message *news_of(const crew_message *request, uint64_t ends)
{
    crew_message *m = crew_message_new();
    if (m) {
        m->kind = CREW_EVENT_CONFIRMED;
        m->one_way = true;
        m->correlation = request->correlation;
        m->number = ends;
    }
    return m;
}

/* A request of which a byte is out. */
static void tell_begun(struct stream_caller *c, crew_message *m, uint64_t ends)
{
    bool is_out = ends <= c->stream->written_bytes;
    crew_message *news = m->one_way && !is_out ? news_of(m, ends) : NULL;
    m->kind = m->one_way && is_out ? CREW_EVENT_CONFIRMED : CREW_EVENT_WRITTEN;
    crew_list_append(&c->events, m);
    if (news)
        crew_list_append(&c->unconfirmed, news);
}

static void tell_confirmed(struct stream_caller *c)
{
    while (c->unconfirmed.head && c->unconfirmed.head->number <= c->stream->written_bytes)
        crew_list_append(&c->events, crew_list_take(&c->unconfirmed));
}

/* Writes the first of the list, as many as one buffer has; what has not begun is taken out of it again, and
 * stays: a call whose time runs out there must not arrive. */
static crew_status write_some(struct stream_caller *c, crew_list *messages)
{
    struct stream *s = c->stream;
    crew_list queued = { 0 };
    crew_status status = CREW_OK;
    while (messages->head && stream_unwritten(s) < BATCH_BYTES && status == CREW_OK) {
        crew_message *m = messages->head;
        bool answers = m->kind == CREW_SETTLE_REPLY; /* a call of the peer's */
        uint64_t begins = s->queued_bytes;
        if (m->reply.size)
            status = stream_queue(s, m->content_type, crew_buffer_string(&m->reply));
        if (status == CREW_OK && !answers)
            status = stream_queue(s, m->content_type, crew_buffer_string(&m->body));
        if (status != CREW_OK) { /* what goes before a request would be taken for the next one's */
            stream_unqueue(s, begins);
            break;
        }
        m->number = begins;
        crew_list_append(&queued, crew_list_take(messages));
    }
    stream_flush(s);
    while (queued.head && queued.head->number < s->written_bytes) {
        crew_message *m = crew_list_take(&queued);
        uint64_t ends = queued.head ? queued.head->number : s->queued_bytes;
        if (m->kind == CREW_SETTLE_REPLY)
            crew_message_give(c->set.config->messages, m);
        else
            tell_begun(c, m, ends);
    }
    if (queued.head)
        stream_unqueue(s, queued.head->number);
    crew_list_move(&queued, messages);
    *messages = queued;
    return status;
}

crew_status stream_caller_send(void *state, crew_list *messages)
{
    struct stream_caller *c = state;
    crew_status status = CREW_OK;
    while (messages->head && status == CREW_OK && stream_caller_ready(c))
        status = write_some(c, messages);
    return status;
}

bool stream_caller_ready(const void *state)
{
    const struct stream *s = ((const struct stream_caller *)state)->stream;
    return s->writable && !stream_owed(s) && !s->gone;
}

bool stream_caller_is_ours(const void *state)
{
    return ((const struct stream_caller *)state)->is_ours;
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
    crew_status status = m ? stream_take(c->stream, span, m) : CREW_NO_MEMORY;
    if (status != CREW_OK || !span->size) {
        crew_message_give(c->set.config->messages, m);
        return status;
    }
    m->kind = CREW_EVENT_REPLY;
    crew_list_append(messages, m);
    return CREW_OK;
}

enum left { NOTHING, MORE, NOTHING_EVER };

/* Reads and gives as much as there is room for, and says what is left. */
static crew_status take_replies(struct stream_caller *c, crew_list *messages, crew_room *room,
                                enum left *left)
{
    struct stream *s = c->stream;
    *left = MORE;
    for (unsigned reads = 0; crew_room_is_left(room) && reads < READS_MOST;) {
        struct stream_span span;
        enum stream_found what = stream_peek(s, &span);
        if (what == STREAM_MORE) {
            bool read = stream_read(s, SIZE_MAX);
            reads++;
            bool over = !read && s->ended && stream_peek(s, &span) == STREAM_MORE;
            if (over || (!read && !s->ended)) {
                *left = over ? NOTHING_EVER : NOTHING;
                return CREW_OK;
            }
            continue;
        }
        if (what == STREAM_SKIPPED) {
            stream_flush(s);
            continue;
        }
        if (what == STREAM_RUBBISH && span.size > c->set.config->limits.message_bytes)
            span.size = c->set.config->limits.message_bytes + 1;
        (void)crew_room_take(room, NULL, span.size);
        crew_status status = take_reply(c, &span, messages);
        if (status != CREW_OK)
            return status;
        if (what == STREAM_RUBBISH)
            stream_refuse(s);
    }
    return CREW_OK;
}

crew_status stream_caller_recv(void *state, crew_list *messages, crew_room *room)
{
    struct stream_caller *c = state;
    struct stream *s = c->stream;
    enum left left;
    bool unheard = stream_set_ticks(&c->set) && stream_is_unheard(s, c->keepalive_ms);
    (void)stream_set_turn(&c->set);
    stream_flush(s);
    tell_confirmed(c);
    crew_list_move(messages, &c->events);
    crew_status status = take_replies(c, messages, room, &left);
    if (status != CREW_OK)
        return status;
    if (unheard)
        return crew_error_set(c->set.config->lost, CREW_DISCONNECTED,
                              "the other end's host has confirmed nothing for %u ms", c->keepalive_ms);
    if (left == MORE)
        stream_wants_a_turn(s);
    if (left != NOTHING_EVER)
        return CREW_OK;
    char words[200];
    return crew_error_set(c->set.config->lost, CREW_DISCONNECTED, "%s",
                          s->refused ? s->why : stream_words(s, words));
}

void stream_caller_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct stream_caller *c = state;
    struct stream *s = c->stream;
    int64_t until_ms = crew_now_ms() + linger_ms;
    (void)unsent; /* what has not begun was not taken */
    if (s->session->leave && !s->gone && !s->ended)
        s->session->leave(s);
    stream_flush(s);
    while (stream_owed(s) && !s->gone && crew_now_ms() < until_ms &&
           !crew_transport_is_hurried(c->set.config)) {
        s->writable = true;
        stream_flush(s);
        if (stream_owed(s))
            (void)poll(&(struct pollfd){ .fd = s->out, .events = POLLOUT }, 1, CLOSE_TICK_MS);
    }
    if (!s->gone && !s->ended)
        stream_shut(s);
    while (!s->gone && stream_unconfirmed(s) && crew_now_ms() < until_ms &&
           !crew_transport_is_hurried(c->set.config)) {
        stream_discard(s);
        (void)poll(NULL, 0, 1);
    }
    stream_discard(s);
    crew_list_free(&c->events);
    crew_list_free(&c->unconfirmed);
    stream_free(s);
    stream_set_close(&c->set);
}
