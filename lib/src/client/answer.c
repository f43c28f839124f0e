#include "client/answer.h"

#include "core/utf8.h"

#include <stdio.h>

/* One answer; in its message's arena, which it shares with the others of the same message. */
struct crew_result {
    struct answer *answer;
    const crew_value *value, *data;
};

/* ---- results ---- */

struct answer *answer_new(crew_message *message)
{
    struct answer *answer = crew_arena_alloc(&message->arena, sizeof *answer);
    if (answer) {
        atomic_init(&answer->refs, 1);
        answer->message = message;
    }
    return answer;
}

crew_result *answer_result(struct answer *answer, const crew_wire_reply *reply)
{
    crew_result *result = crew_arena_zalloc(&answer->message->arena, sizeof *result);
    if (!result)
        return NULL;
    result->answer = answer;
    if (reply->is_error)
        result->data = reply->data;
    else
        result->value = reply->result;
    atomic_fetch_add(&answer->refs, 1);
    return result;
}

const crew_value *crew_result_value(const crew_result *result)
{
    return result ? result->value : NULL;
}

const crew_value *crew_result_error_data(const crew_result *result)
{
    return result ? result->data : NULL;
}

void answer_release(struct answer *answer)
{
    if (atomic_fetch_sub(&answer->refs, 1) == 1)
        crew_message_free(answer->message);
}

void crew_result_free(crew_result *result)
{
    if (result)
        answer_release(result->answer);
}

/* ---- what callers are told ---- */

/* A text, cut at a character. A NUL in it ends it. */
static void copy_text(char *to, size_t room, crew_string text)
{
    size_t size = text.size < room ? text.size : room - 1;
    while (size && size < text.size && ((unsigned char)text.data[size] & 0xC0) == 0x80)
        size--;
    if (size)
        memcpy(to, text.data, size);
    to[size] = '\0';
    crew_utf8_mend(to, strlen(to));
}

void crew_client_describe(const crew_client *client, const struct crew_pending *call, crew_status status,
                          crew_executed executed, const char *what, crew_error *why)
{
    int64_t elapsed_ms = crew_now_ms() - call->started_ms;
    const char *endpoint = crew_client_url(client);
    crew_error_set(why, status, "%s at %s: %s, after %lld ms", call->method, endpoint, what,
                   (long long)elapsed_ms);
    why->executed = executed;
    why->elapsed_ms = elapsed_ms;
    copy_text(why->endpoint, sizeof why->endpoint, crew_str(endpoint));
}

/* ---- what a reply means ---- */

/* Whether the error says itself what became of the call (docs/errors.md). */
static crew_executed executed_of(const crew_wire_reply *reply)
{
    crew_string said;
    const crew_value *ours = crew_value_get(reply->data, "rpcrew");
    if (crew_value_string(crew_value_get(ours, "executed"), &said) == CREW_OK)
        for (int i = CREW_EXECUTED_NO; i <= CREW_EXECUTED_YES; i++)
            if (crew_string_equal(said, crew_str(crew_executed_name((crew_executed)i))))
                return (crew_executed)i;
    switch (reply->code) {
    case CREW_CODE_PARSE_ERROR:
    case CREW_CODE_INVALID_REQUEST:
    case CREW_CODE_METHOD_NOT_FOUND:
    case CREW_CODE_INVALID_PARAMS:
    case CREW_CODE_OVERLOADED:
    case CREW_CODE_FORBIDDEN: return CREW_EXECUTED_NO;
    default: break;
    }
    bool reserved = reply->code >= CREW_CODE_RESERVED_FIRST && reply->code <= CREW_CODE_RESERVED_LAST;
    return reserved ? CREW_EXECUTED_UNKNOWN : CREW_EXECUTED_YES; /* a service's own is an answer of its own */
}

bool reply_was_shed(const crew_wire_reply *reply)
{
    return reply->is_error && reply->code == CREW_CODE_OVERLOADED && executed_of(reply) == CREW_EXECUTED_NO;
}

void reply_judge(const crew_client *client, const struct crew_pending *call, const crew_wire_reply *reply,
                 bool uncorrelated, crew_error *why)
{
    char what[400];
    crew_string name = { 0 };
    *why = (crew_error){ .status = CREW_OK };
    if (!reply->valid) {
        (void)snprintf(what, sizeof what, "%s: %s", crew_status_text(CREW_BAD_REPLY), reply->reason);
        crew_client_describe(client, call, CREW_BAD_REPLY, CREW_EXECUTED_UNKNOWN, what, why);
        return;
    }
    if (!reply->is_error)
        return;
    crew_string reason = { 0 };
    const crew_value *ours = crew_value_get(reply->data, "rpcrew");
    bool more = crew_value_string(crew_value_get(reply->data, "reason"), &reason) == CREW_OK ||
                crew_value_string(crew_value_get(ours, "reason"), &reason) == CREW_OK;
    bool named = crew_value_string(crew_value_get(ours, "name"), &name) == CREW_OK;
    (void)snprintf(what, sizeof what, "%.*s%s%.*s%s (code %lld%s%.*s)", CREW_STR(reply->message),
                   more ? " (" : "", CREW_STR(reason), more ? ")" : "", (long long)reply->code,
                   named ? ", " : "", CREW_STR(name));
    /* Without an id it may be about another message, and of two copies of a call it is about the last. */
    crew_executed executed = executed_of(reply);
    bool doubtful = call->sent_before || (uncorrelated && reply->id_kind == CREW_ID_NULL);
    if (executed == CREW_EXECUTED_NO && doubtful)
        executed = CREW_EXECUTED_UNKNOWN;
    crew_client_describe(client, call, reply_was_shed(reply) ? CREW_OVERLOADED : CREW_REMOTE_ERROR, executed,
                         what, why);
    why->code = reply->code;
    copy_text(why->peer_message, sizeof why->peer_message, reply->message);
    copy_text(why->name, sizeof why->name, name);
}

bool replies_are_valid(const crew_wire_replies *replies)
{
    bool valid = true;
    for (size_t i = 0; i < replies->count; i++)
        valid = valid && replies->items[i].valid;
    return valid;
}
