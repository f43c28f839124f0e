/* What a handler does with its call: arguments in, one reply out. */
#include "service/call.h"

#include "core/value.h"
#include "service/ending.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/log.h>

#include <stdio.h>

crew_string crew_call_method(const crew_call *call)
{
    return call->wire->method;
}

void *crew_call_context(const crew_call *call)
{
    return call->entry->context;
}

bool crew_call_is_one_way(const crew_call *call)
{
    return call->wire->one_way || !call->group->answerable;
}

int64_t crew_call_remaining_ms(const crew_call *call)
{
    if (!call->group->deadline_ms)
        return INT64_MAX;
    int64_t remaining = call->group->deadline_ms - crew_now_ms();
    return remaining > 0 ? remaining : 0;
}

bool crew_call_draining(const crew_call *call)
{
    return call->group->tokens && atomic_load(&call->group->tokens->draining);
}

bool crew_call_group_is_left(struct crew_call_group *group)
{
    if (!group->peer || !atomic_load(&group->peer->gone) || atomic_load(&group->adopted))
        return false;
    atomic_store(&group->told, true);
    return true;
}

bool crew_call_cancelled(const crew_call *call)
{
    const struct crew_call_group *group = call->group;
    bool pressed = group->tokens && atomic_load(&group->tokens->pressing);
    return pressed || crew_call_group_is_left(call->group) || atomic_load(&call->token.raised) ||
           crew_call_remaining_ms(call) == 0;
}

int crew_call_cancel_fd(crew_call *call)
{
    struct crew_call_group *group = call->group;
    if (!group->tokens)
        return -1;
    return crew_token_watch(group->tokens, &call->token, group->peer, &group->adopted, &group->told,
                            group->deadline_ms);
}

const crew_value *crew_call_params(const crew_call *call)
{
    return call->wire->params;
}

const char *crew_call_peer_name(const crew_call *call)
{
    const crew_peer *peer = call->group->peer;
    return peer && peer->name ? peer->name : "";
}

const char *crew_call_peer_address(const crew_call *call)
{
    const crew_peer *peer = call->group->peer;
    return peer && peer->address ? peer->address : "";
}

const crew_value *crew_call_headers(const crew_call *call)
{
    return call->group->headers;
}

crew_arena *crew_call_arena(crew_call *call)
{
    return &call->arena;
}

/* ---- arguments ---- */

size_t crew_arg_count(const crew_call *call)
{
    return call->arguments.count;
}

size_t crew_arg_index(const crew_call *call, const char *name)
{
    const struct crew_signature *signature = &call->entry->signature;
    for (size_t i = 0; i < signature->count; i++)
        if (crew_string_equal(signature->params[i].name, crew_str(name)))
            return i;
    return SIZE_MAX;
}

const crew_value *crew_arg(const crew_call *call, size_t index)
{
    return index < call->arguments.count ? call->arguments.items[index] : NULL;
}

bool crew_arg_given(const crew_call *call, size_t index)
{
    return crew_arg(call, index) != NULL;
}

bool crew_arg_bool(const crew_call *call, size_t index)
{
    bool value = false;
    return crew_value_bool(crew_arg(call, index), &value) == CREW_OK && value;
}

int64_t crew_arg_int(const crew_call *call, size_t index)
{
    int64_t value = 0;
    return crew_value_int(crew_arg(call, index), &value) == CREW_OK ? value : 0;
}

uint64_t crew_arg_uint(const crew_call *call, size_t index)
{
    uint64_t value = 0;
    return crew_value_uint(crew_arg(call, index), &value) == CREW_OK ? value : 0;
}

double crew_arg_double(const crew_call *call, size_t index)
{
    double value = 0;
    return crew_value_double(crew_arg(call, index), &value) == CREW_OK ? value : 0;
}

crew_string crew_arg_string(const crew_call *call, size_t index)
{
    crew_string value = { "", 0 };
    return crew_value_string(crew_arg(call, index), &value) == CREW_OK ? value : crew_str("");
}

crew_string crew_arg_bytes(const crew_call *call, size_t index)
{
    crew_string value = { "", 0 };
    return crew_value_bytes(crew_arg(call, index), &value) == CREW_OK ? value : crew_str("");
}

const void *crew_arg_custom(const crew_call *call, size_t index)
{
    const struct crew_arguments *arguments = &call->arguments;
    return arguments->objects && index < arguments->count ? arguments->objects[index] : NULL;
}

/* ---- completing ---- */

void crew_call_release(crew_call *call)
{
    if (atomic_fetch_sub(&call->holds, 1) > 1)
        return;
    crew_arena_fini(&call->arena);
    if (call->group->tokens)
        crew_token_fini(call->group->tokens, &call->token);
    if (call->entry)
        atomic_fetch_sub(&call->entry->running, 1);
    call->group->released(call);
}

/* Whether this is the completion that counts. */
static bool win(struct crew_call *call)
{
    return !atomic_exchange(&call->completed, true);
}

/* A handler's completion. */
static bool wins(struct crew_call *call)
{
    bool first = win(call);
    if (!first)
        crew_ending_log_twice(call);
    return first;
}

static void ends_as(struct crew_call *call, crew_ending ending, int64_t code, crew_string message,
                    const char *reason)
{
    call->ending = ending;
    call->code = code;
    call->message = message;
    call->reason = reason;
}

static bool silent(const struct crew_call *call)
{
    return call->wire->one_way || !call->group->answerable;
}

static void write_failure(struct crew_call *call, crew_status status)
{
    static const char name[] = "reason";
    const crew_protocol *protocol = call->group->protocol;
    crew_string words = crew_str(crew_code_text(CREW_CODE_INTERNAL_ERROR));
    const crew_value *data = NULL;
    crew_arena arena = { 0 };
    crew_buffer_clear(call->reply);
    if (crew_pack(&arena, &data, "{s:s}", name, crew_status_text(status)) != CREW_OK)
        data = NULL;
    if (protocol->encode_error(call->wire, CREW_CODE_INTERNAL_ERROR, words, data, call->reply) != CREW_OK)
        crew_log(CREW_LOG_ERROR, "a reply was lost", "{s:s}", name, crew_status_text(status));
    crew_arena_fini(&arena);
}

/* Why an answer cannot be written, for the log. */
static const char *unwritable(crew_status status)
{
    switch (status) {
    case CREW_LIMIT:
        return "the answer has more bytes than max_bytes allows, or stands deeper than max_depth";
    case CREW_UNSUPPORTED:
        return "the protocol cannot carry the answer: NaN, an infinity, or a key that is no string";
    case CREW_MALFORMED: return "a text of the answer is no UTF-8";
    default: return crew_status_text(status);
    }
}

/* After the encoding of a winning completion. */
static crew_status complete(struct crew_call *call, crew_status encoded)
{
    crew_status status = encoded;
    if (status == CREW_OK && !silent(call) && !call->group->fits(call))
        status = CREW_LIMIT;
    if (status != CREW_OK) {
        if (!call->broken)
            ends_as(call, CREW_ENDED_FAILED, CREW_CODE_INTERNAL_ERROR, (crew_string){ 0 },
                    unwritable(status));
        write_failure(call, status);
    }
    bool deferred = call->deferred;
    if (call->group->ended)
        call->group->ended(call);
    call->group->completed(call);
    if (deferred)
        crew_call_release(call);
    return status;
}

static crew_status reply_won(crew_call *call, const crew_value *value)
{
    if (silent(call))
        return complete(call, CREW_OK);
    return complete(call, call->group->protocol->encode_result(call->wire, value, call->reply));
}

crew_status crew_reply_value(crew_call *call, const crew_value *value)
{
    return wins(call) ? reply_won(call, value) : CREW_DONE_ALREADY;
}

static crew_status fail_as(crew_call *call, crew_ending ending, const char *reason, int64_t code,
                           crew_string message, const crew_value *data)
{
    ends_as(call, ending, code, message, reason);
    if (silent(call))
        return complete(call, CREW_OK);
    return complete(call, call->group->protocol->encode_error(call->wire, code, message, data, call->reply));
}

crew_status crew_call_fail(crew_call *call, int64_t code, crew_string message, const crew_value *data)
{
    return wins(call) ? fail_as(call, CREW_ENDED_ERROR, NULL, code, message, data) : CREW_DONE_ALREADY;
}

crew_status crew_call_refuse(crew_call *call, crew_ending ending, int code, const crew_value *data)
{
    crew_string message = crew_str(crew_code_text(code));
    return win(call) ? fail_as(call, ending, NULL, code, message, data) : CREW_DONE_ALREADY;
}

/* What a reason means, for the caller. */
static const struct shed {
    const char *reason; /* NULL: any other */
    int code;
    crew_executed executed;
} sheds[] = {
    { CREW_REASON_REDELIVERED, CREW_CODE_REDELIVERED, CREW_EXECUTED_UNKNOWN },
    { CREW_REASON_CANCELLED, CREW_CODE_CANCELLED, CREW_EXECUTED_NO },
    { CREW_REASON_TOO_LARGE, CREW_CODE_INTERNAL_ERROR, CREW_EXECUTED_YES },
    { NULL, CREW_CODE_OVERLOADED, CREW_EXECUTED_NO },
};

crew_status crew_call_shed(crew_call *call, const char *reason)
{
    const struct shed *shed = sheds;
    const crew_value *data = NULL;
    while (shed->reason && strcmp(reason, shed->reason) != 0)
        shed++;
    /* Of a batch some may have been refused. */
    bool doubtful = shed->executed == CREW_EXECUTED_YES && call->group->batch;
    crew_executed executed = doubtful ? CREW_EXECUTED_UNKNOWN : shed->executed;
    atomic_fetch_add(&call->group->shed_count, 1);
    if (crew_pack(&call->arena, &data, "{s:{s:s,s:s}}", "rpcrew", "executed", crew_executed_name(executed),
                  "reason", reason) != CREW_OK)
        data = NULL;
    crew_ending ending = strcmp(reason, CREW_REASON_CANCELLED) == 0 ? CREW_ENDED_CANCELLED : CREW_ENDED_SHED;
    if (!win(call))
        return CREW_DONE_ALREADY;
    return fail_as(call, ending, reason, shed->code, crew_str(crew_code_text(shed->code)), data);
}

/* What made the handler fail is not the peer's business, beyond the status: the reason is for the log. */
static void break_down(crew_call *call, crew_status status, const char *reason)
{
    call->broken = true;
    ends_as(call, CREW_ENDED_FAILED, CREW_CODE_INTERNAL_ERROR, (crew_string){ 0 }, reason);
    (void)complete(call, silent(call) ? CREW_OK : status);
}

void crew_call_settle(crew_call *call, crew_status returned)
{
    if ((returned == CREW_OK && call->deferred) || !win(call))
        return;
    if (returned == CREW_OK)
        (void)reply_won(call, NULL);
    else
        break_down(call, returned, crew_status_text(returned));
}

/* A reply, or an error's data, that could not be packed. */
static crew_status unpackable(crew_call *call, crew_status status, const char *format)
{
    enum { ROOM = 200 };
    const char *reason = crew_status_text(status);
    if (!win(call))
        return CREW_DONE_ALREADY;
    char *text = status == CREW_BAD_ARGUMENT ? crew_arena_alloc(&call->arena, ROOM) : NULL;
    if (text)
        (void)snprintf(text, ROOM, "crew_pack's format '%s' is none", format);
    break_down(call, status, text ? text : reason);
    return status;
}

crew_call *crew_call_defer(crew_call *call)
{
    call->deferred = true;
    atomic_fetch_add(&call->holds, 1);
    return call;
}

/* ---- replies ---- */

crew_status crew_reply_null(crew_call *call)
{
    return crew_reply_value(call, NULL);
}

crew_status crew_reply_bool(crew_call *call, bool value)
{
    crew_value made = crew_make_bool(value);
    return crew_reply_value(call, &made);
}

crew_status crew_reply_int(crew_call *call, int64_t value)
{
    crew_value made = crew_make_int(value);
    return crew_reply_value(call, &made);
}

crew_status crew_reply_uint(crew_call *call, uint64_t value)
{
    crew_value made = crew_make_uint(value);
    return crew_reply_value(call, &made);
}

crew_status crew_reply_double(crew_call *call, double value)
{
    crew_value made = crew_make_double(value);
    return crew_reply_value(call, &made);
}

static crew_status reply_text(crew_call *call, crew_type type, crew_string text)
{
    if (text.size > UINT32_MAX) {
        crew_call_settle(call, CREW_LIMIT);
        return CREW_LIMIT;
    }
    crew_value made = crew_make_text(type, text);
    return crew_reply_value(call, &made);
}

crew_status crew_reply_string(crew_call *call, crew_string value)
{
    return reply_text(call, CREW_TYPE_STRING, value);
}

crew_status crew_reply_bytes(crew_call *call, crew_string value)
{
    return reply_text(call, CREW_TYPE_BYTES, value);
}

crew_status crew_reply(crew_call *call, const char *format, ...)
{
    const crew_value *value;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = crew_vpack(&call->arena, &value, format, arguments);
    va_end(arguments);
    return status == CREW_OK ? crew_reply_value(call, value) : unpackable(call, status, format);
}

/* ---- errors ---- */

static const crew_service_error *find_error(const crew_call *call, int64_t code)
{
    const crew_service_error *row = call->entry ? call->entry->errors : NULL;
    while (row && row->name && row->code != code)
        row++;
    return row && row->name ? row : NULL;
}

/* The data with rpcrew.name in it, if there is a place for it: in an object, or where there was none. */
static const crew_value *with_name(crew_call *call, const crew_value *data, const char *name)
{
    const crew_value *text;
    bool has_one = crew_value_get(crew_value_get(data, "rpcrew"), "name") != NULL;
    if (has_one || crew_pack(&call->arena, &text, "s", name) != CREW_OK)
        return data;
    const crew_value *named = crew_value_with_ours(&call->arena, data, "name", text);
    return named ? named : data;
}

static crew_status fail_by_table(crew_call *call, crew_ending ending, int64_t code, crew_string message,
                                 const crew_value *data)
{
    const crew_service_error *row = find_error(call, code);
    if (row)
        data = with_name(call, data, row->name);
    if (!message.data)
        message = crew_str(row ? row->message : crew_code_text(code));
    return fail_as(call, ending, NULL, code, message.data ? message : crew_str("error"), data);
}

crew_status crew_fail_value(crew_call *call, int64_t code, crew_string message, const crew_value *data)
{
    return wins(call) ? fail_by_table(call, CREW_ENDED_ERROR, code, message, data) : CREW_DONE_ALREADY;
}

void crew_call_misfit(crew_call *call, crew_string message, const crew_value *data)
{
    if (win(call))
        (void)fail_by_table(call, CREW_ENDED_BAD_PARAMS, CREW_CODE_INVALID_PARAMS, message, data);
}

static CREW_PRINTF(4, 0) crew_status
    fail_printf(crew_call *call, int64_t code, const crew_value *data, const char *format, va_list arguments)
{
    /* A character more than fits, so that crew_error_set sees what is cut. */
    char text[sizeof((crew_error *)0)->message + 4];
    crew_error message;
    if (!format)
        return crew_fail_value(call, code, (crew_string){ 0 }, data);
    (void)vsnprintf(text, sizeof text, format, arguments);
    crew_error_set(&message, CREW_OK, "%s", text); /* cut and mended to UTF-8 */
    return crew_fail_value(call, code, crew_str(message.message), data);
}

crew_status crew_fail(crew_call *call, int64_t code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    crew_status status = fail_printf(call, code, NULL, format, arguments);
    va_end(arguments);
    return status;
}

crew_status crew_fail_data(crew_call *call, int64_t code, const char *message, const char *format, ...)
{
    const crew_value *data;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = crew_vpack(&call->arena, &data, format, arguments);
    va_end(arguments);
    return status == CREW_OK ? crew_fail_value(call, code, crew_str(message), data)
                             : unpackable(call, status, format);
}

crew_status crew_fail_param(crew_call *call, size_t index, const char *format, ...)
{
    const struct crew_param *param = crew_signature_param(&call->entry->signature, index);
    const crew_value *data = NULL;
    char what[sizeof((crew_error *)0)->message + 4];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (!param)
        return crew_fail(call, CREW_CODE_INVALID_PARAMS, "%s: param %zu %s",
                         crew_code_text(CREW_CODE_INVALID_PARAMS), index, what);
    if (crew_pack(&call->arena, &data, "{s:S}", "param", param->name) != CREW_OK)
        data = NULL;
    crew_error message;
    crew_error_set(&message, CREW_OK, "%s: param '%.*s' %s", crew_code_text(CREW_CODE_INVALID_PARAMS),
                   CREW_STR(param->name), what);
    return crew_fail_value(call, CREW_CODE_INVALID_PARAMS, crew_str(message.message), data);
}
