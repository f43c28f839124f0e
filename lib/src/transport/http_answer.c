#include "transport/http_answer.h"

#include "core/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether a body is an answer of the protocol's, to some call. */
static bool is_answer(const crew_message *m, const crew_limits *limits)
{
    crew_arena arena = { 0 };
    const crew_value *value = NULL, *id;
    crew_string bytes = crew_buffer_string(&m->body);
    bool good = bytes.size && crew_json_decode(bytes, limits, &arena, &value, NULL) == CREW_OK;
    good = good && (crew_value_type(value) == CREW_TYPE_ARRAY ||
                    ((id = crew_value_get(value, "id")) && crew_value_type(id) != CREW_TYPE_NULL));
    crew_arena_fini(&arena);
    return good;
}

/* Whether it is a worker's of ours that says so itself. */
static bool is_refusal(const crew_message *m, const crew_limits *limits)
{
    crew_arena arena = { 0 };
    const crew_value *value = NULL;
    int64_t code = 0;
    if (crew_json_decode(crew_buffer_string(&m->body), limits, &arena, &value, NULL) == CREW_OK)
        (void)!crew_value_int(crew_value_get(crew_value_get(value, "error"), "code"), &code);
    crew_arena_fini(&arena);
    return code == CREW_CODE_OVERLOADED;
}

/* Whether a status says that the request was not for anybody there. */
static bool is_not_taken(unsigned status)
{
    static const unsigned statuses[] = { 401, 403, 404, 405, 407, 410, 415, 421, 426 };
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i] == status)
            return true;
    return false;
}

void http_answer_judge(const struct http_message *in, bool one_way, const crew_limits *limits,
                       crew_message *m)
{
    char words[256];
    unsigned status = in->status, kind = status / 100;
    const char *place = http_field(in, "location");
    if (kind == 2 && one_way) {
        m->kind = CREW_EVENT_CONFIRMED;
        return;
    }
    if (kind == 2 || (!one_way && is_answer(m, limits))) {
        m->kind = CREW_EVENT_REPLY;
        m->content_type = NULL; /* its first bytes tell */
        return;
    }
    bool ours = m->body.size && is_refusal(m, limits);
    crew_buffer_clear(&m->body);
    (void)snprintf(words, sizeof words, "HTTP %u %.100s%s%.100s%s", status, http_target(in).data,
                   kind == 3 ? ", to " : "", kind == 3 && place ? place : "",
                   kind == 3 ? ": redirects are not followed" : "");
    m->words = crew_arena_string(&m->arena, crew_str(words)).data;
    if (status == 503 || status == 429)
        m->kind = CREW_EVENT_REFUSED;
    else if (status == 413)
        m->kind = CREW_EVENT_TOO_LARGE;
    else if (is_not_taken(status))
        m->kind = CREW_EVENT_UNROUTABLE;
    else
        m->kind = CREW_EVENT_REPLY; /* a bad one */
    /* a server in front may say 503 of a service that did not answer in time */
    m->unsure = kind == 5 && !(status == 503 && (ours || http_field(in, "retry-after")));
}

int64_t http_answer_keep_ms(const struct http_message *in, int64_t most_ms)
{
    const char *field = http_field(in, "keep-alive");
    const char *timeout = field ? strstr(field, "timeout=") : NULL;
    long seconds = timeout ? strtol(timeout + 8, NULL, 10) : -1;
    int64_t ms = seconds < 0 || seconds > 3600 ? most_ms : seconds * 1000L - 1000;
    return ms < most_ms ? ms : most_ms;
}
