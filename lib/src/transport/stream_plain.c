/* Messages alone, in one of the framings. */
#include "transport/stream.h"

static enum stream_found find(struct stream *s, struct stream_span *span)
{
    crew_string bytes = stream_input(s);
    s->partial = false;
    if (!bytes.size)
        return STREAM_MORE;
    enum stream_found what =
        stream_framing_next(&s->framing, bytes, s->ended, s->set->config->hard_bytes, span);
    if (what == STREAM_MORE) {
        s->taken += span->body;
        s->partial = stream_has_input(s);
    }
    if (!s->refused || s->late) /* else TLS has said why */
        s->why = s->late ? "it took too long to come" : s->framing.why;
    return what;
}

static crew_status take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    crew_buffer_append(&m->body, s->input.data + s->taken + span->body, span->size);
    m->content_type = stream_framing_type(&s->framing);
    stream_skip(s, span->end);
    return CREW_OK;
}

static crew_status put(struct stream *s, const char *content_type, crew_string body)
{
    enum stream_kind kind = s->writes ? s->writes : s->framing.kind;
    stream_framing_write(kind, content_type, body, stream_output(s));
    return stream_queued(s);
}

/* In whatever order: the ids tell. */
static crew_status answer(struct stream *s, crew_message *m, crew_list *done)
{
    crew_status status = CREW_OK;
    if (m->kind == CREW_SETTLE_REPLY)
        status = put(s, m->content_type, crew_buffer_string(&m->reply));
    m->number = m->kind == CREW_SETTLE_REPLY ? s->queued_bytes : 0;
    if (status == CREW_OK)
        crew_list_append(done, m);
    return status;
}

const struct stream_session stream_plain = { .find = find, .take = take, .put = put, .answer = answer };
