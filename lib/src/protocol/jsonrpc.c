/* JSON-RPC 2.0 (jsonrpc.org/specification) and 1.0 (jsonrpc.org/specification_v1), told apart per request.
 *
 * A request's id is echoed from its own text, so that any number comes back as it was written. Envelopes are
 * written directly: they are the same few bytes each time. */
#include "core/json.h"
#include "core/value.h"
#include "protocol/protocols.h"

enum dialect { V2, V1 };

static bool sniff(crew_string bytes)
{
    static const char mark[] = "\xEF\xBB\xBF"; /* a byte order mark */
    size_t i = bytes.size >= 3 && memcmp(bytes.data, mark, 3) == 0 ? 3 : 0;
    while (i < bytes.size && strchr(" \t\r\n", bytes.data[i]) && bytes.data[i])
        i++;
    return i < bytes.size && (bytes.data[i] == '{' || bytes.data[i] == '[');
}

/* ---- decoding calls ---- */

/* {"reason": text}; NULL without memory, which only costs the peer the explanation. */
static const crew_value *reason_data(crew_arena *arena, const char *text)
{
    const crew_value *data;
    return crew_pack(arena, &data, "{s:s}", "reason", text) == CREW_OK ? data : NULL;
}

/* Turns the call into an error to be answered. */
static void refuse(crew_wire_call *call, crew_arena *arena, int code, const char *reason)
{
    call->code = code;
    call->one_way = false;
    call->dialect = V2;
    call->data = reason_data(arena, reason);
}

/* Of 2.0; in 1.0 an id may be anything. */
static bool id_is_good(const crew_value *id)
{
    switch (crew_value_type(id)) {
    case CREW_TYPE_NULL:
    case CREW_TYPE_INT:
    case CREW_TYPE_UINT:
    case CREW_TYPE_DOUBLE:
    case CREW_TYPE_STRING: return true;
    default: return false;
    }
}

static bool is_version(const crew_value *version, const char *wanted)
{
    crew_string text;
    return crew_value_string(version, &text) == CREW_OK && crew_string_equal(text, crew_str(wanted));
}

/* What is wrong with a request of version 1.0; NULL: nothing. */
static const char *check_v1(const crew_value *id, const crew_value *params, bool in_batch)
{
    if (in_batch)
        return "a request without \"jsonrpc\": \"2.0\" in a batch";
    if (!id)
        return "a request without \"jsonrpc\": \"2.0\" wants an id";
    if (!params || (params->type != CREW_TYPE_ARRAY && params->type != CREW_TYPE_NULL))
        return "a request without \"jsonrpc\": \"2.0\" wants a params array";
    return NULL;
}

static const char *check_v2(const crew_value *version, const crew_value *id, const crew_value *params)
{
    if (!is_version(version, "2.0"))
        return "\"jsonrpc\" is not \"2.0\"";
    if (!id_is_good(id))
        return "id is neither string, number nor null";
    switch (crew_value_type(params)) {
    case CREW_TYPE_NULL:
    case CREW_TYPE_ARRAY:
    case CREW_TYPE_OBJECT: return NULL;
    default: return "params is neither array nor object";
    }
}

/* The call holds something that cannot be carried: that, and not what is in its place, is its error. */
static void refuse_fault(crew_wire_call *call, const struct crew_json_item *notes, crew_arena *arena)
{
    bool in_value = notes->in_params && notes->fault != CREW_LIMIT;
    bool one_way = call->one_way, v1 = call->dialect == V1;
    refuse(call, arena, in_value ? CREW_CODE_INVALID_PARAMS : CREW_CODE_INVALID_REQUEST, notes->words);
    call->one_way = one_way && notes->in_params;
    call->dialect = in_value && v1 ? V1 : V2;
}

static void decode_call(const crew_value *value, const struct crew_json_item *notes, bool in_batch,
                        crew_arena *arena, crew_wire_call *call)
{
    *call = (crew_wire_call){ .id = crew_str("null") };
    if (crew_value_type(value) != CREW_TYPE_OBJECT) {
        refuse(call, arena, CREW_CODE_INVALID_REQUEST,
               notes->fault == CREW_OK ? "a request is an object" : notes->words);
        return;
    }
    const crew_value *version = crew_value_get(value, "jsonrpc");
    const crew_value *id = crew_value_get(value, "id");
    const crew_value *params = crew_value_get(value, "params");
    const crew_value *method = crew_value_get(value, "method");
    bool v1 = !version || is_version(version, "1.0");
    if (notes->watched.size && (v1 || id_is_good(id)))
        call->id = notes->watched;
    const char *wrong = NULL;
    if (crew_value_string(method, &call->method) != CREW_OK)
        wrong = "method is not a string";
    else
        wrong = v1 ? check_v1(id, params, in_batch) : check_v2(version, id, params);
    call->is_reply = !method && (crew_value_get(value, "result") || crew_value_get(value, "error"));
    call->dialect = v1 ? V1 : V2;
    call->named_in_array = v1; /* which has no other way */
    call->one_way = v1 ? crew_value_type(id) == CREW_TYPE_NULL : !id && !notes->watched.size;
    if (notes->fault != CREW_OK && (!wrong || !notes->in_params)) {
        refuse_fault(call, notes, arena);
    } else if (wrong) {
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, wrong);
    } else {
        call->params = crew_value_type(params) == CREW_TYPE_NULL ? NULL : params;
    }
}

static crew_status decode_calls(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                crew_wire_calls *calls)
{
    static const struct crew_json_item no_notes;
    struct crew_json_notes notes = { .watch = "id" };
    const crew_value *value = NULL;
    crew_error why;
    crew_status status = crew_json_read(bytes, NULL, limits, arena, &notes, &value, &why);
    if (status == CREW_NO_MEMORY)
        return status;

    bool batch = status == CREW_OK && value->type == CREW_TYPE_ARRAY && value->size > 0;
    size_t count = batch ? value->size : 1;
    crew_wire_call *items = crew_arena_zalloc(arena, count * sizeof *items);
    if (!items)
        return CREW_NO_MEMORY;
    items[0].id = crew_str("null");
    if (status != CREW_OK)
        refuse(&items[0], arena, status == CREW_LIMIT ? CREW_CODE_INVALID_REQUEST : CREW_CODE_PARSE_ERROR,
               why.message);
    else if (value->type == CREW_TYPE_ARRAY && !batch)
        refuse(&items[0], arena, CREW_CODE_INVALID_REQUEST, "an empty batch");
    else
        for (size_t i = 0; i < count; i++)
            decode_call(batch ? &value->items[i] : value, i < notes.count ? &notes.items[i] : &no_notes,
                        batch, arena, &items[i]);
    *calls =
        (crew_wire_calls){ .items = items, .count = count, .batch = batch, .malformed = status != CREW_OK };
    return CREW_OK;
}

/* ---- encoding replies ---- */

static void end_reply(const crew_wire_call *call, crew_buffer *out)
{
    crew_string id = call->id.size ? call->id : crew_str("null");
    crew_buffer_append(out, id.data, id.size);
    crew_buffer_append(out, "}", 1);
}

/* Of 1.0, whose errors may be anything. What reads only texts, Go's net/rpc, also takes a result of null for
 * a failure, and then closes. */
static bool reads_texts(const crew_wire_call *call)
{
    return call->dialect == V1 && call->errors == CREW_ERRORS_STRING;
}

static crew_status encode_result(const crew_wire_call *call, const crew_value *result, crew_buffer *out)
{
    size_t before = out->size;
    crew_buffer_text(out, call->dialect == V1 ? "{\"result\":" : "{\"jsonrpc\":\"2.0\",\"result\":");
    crew_status status = CREW_OK;
    if (reads_texts(call) && crew_value_type(result) == CREW_TYPE_NULL)
        crew_buffer_text(out, "{}");
    else
        status = crew_json_write(result, CREW_JSON_COMPACT, out);
    crew_buffer_text(out, call->dialect == V1 ? ",\"error\":null,\"id\":" : ",\"id\":");
    end_reply(call, out);
    return crew_encoding_end(out, before, status);
}

static crew_status encode_error(const crew_wire_call *call, int64_t code, crew_string message,
                                const crew_value *data, crew_buffer *out)
{
    size_t before = out->size;
    if (reads_texts(call)) {
        crew_buffer_text(out, "{\"result\":null,\"error\":");
        crew_status status = crew_json_write_string(message, out);
        crew_buffer_text(out, ",\"id\":");
        end_reply(call, out);
        return crew_encoding_end(out, before, status);
    }
    crew_buffer_text(out, call->dialect == V1 ? "{\"result\":null,\"error\":{\"code\":"
                                              : "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":");
    crew_json_write_int(code, out);
    crew_buffer_text(out, ",\"message\":");
    crew_status status = crew_json_write_string(message, out);
    if (data && status == CREW_OK) {
        crew_buffer_text(out, ",\"data\":");
        status = crew_json_write(data, CREW_JSON_COMPACT, out);
    }
    crew_buffer_text(out, "},\"id\":");
    end_reply(call, out);
    return crew_encoding_end(out, before, status);
}

/* ---- encoding calls ---- */

static crew_status encode_version(enum dialect dialect, crew_string method, const crew_value *params,
                                  uint32_t id, crew_buffer *out)
{
    size_t before = out->size;
    crew_type type = crew_value_type(params);
    bool fits =
        type == CREW_TYPE_NULL || type == CREW_TYPE_ARRAY || (type == CREW_TYPE_OBJECT && dialect == V2);
    if (!fits)
        return CREW_BAD_ARGUMENT;
    crew_buffer_text(out, dialect == V2 ? "{\"jsonrpc\":\"2.0\",\"method\":" : "{\"method\":");
    crew_status status = crew_json_write_string(method, out);
    if (status == CREW_OK && type != CREW_TYPE_NULL) {
        crew_buffer_text(out, ",\"params\":");
        status = crew_json_write(params, CREW_JSON_COMPACT, out);
    } else if (dialect == V1) {
        crew_buffer_text(out, ",\"params\":[]");
    }
    if (id) {
        crew_buffer_text(out, ",\"id\":");
        crew_json_write_int(id, out);
    } else if (dialect == V1) {
        crew_buffer_text(out, ",\"id\":null");
    }
    crew_buffer_append(out, "}", 1);
    return crew_encoding_end(out, before, status);
}

static crew_status encode_call(crew_string method, const crew_value *params, uint32_t id, crew_buffer *out)
{
    return encode_version(V2, method, params, id, out);
}

static crew_status encode_call_v1(crew_string method, const crew_value *params, uint32_t id, crew_buffer *out)
{
    return encode_version(V1, method, params, id, out);
}

/* ---- decoding replies ---- */

static void decode_id(const crew_value *id, crew_wire_reply *reply)
{
    int64_t number;
    if (crew_value_type(id) == CREW_TYPE_NULL) {
        reply->id_kind = CREW_ID_NULL;
    } else if (crew_value_int(id, &number) == CREW_OK && number > 0 && number <= UINT32_MAX) {
        reply->id_kind = CREW_ID_NUMBER;
        reply->id = (uint32_t)number;
    } else {
        reply->id_kind = CREW_ID_FOREIGN;
    }
}

/* An error is an object in 2.0; 1.0 lets a service send anything that is not null. */
static const char *decode_error(const crew_value *error, bool v2, crew_wire_reply *reply)
{
    reply->is_error = true;
    reply->data = crew_value_get(error, "data");
    bool good = crew_value_int(crew_value_get(error, "code"), &reply->code) == CREW_OK &&
                crew_value_string(crew_value_get(error, "message"), &reply->message) == CREW_OK;
    if (good)
        return NULL;
    if (v2)
        return "its error lacks code or message";
    reply->code = 0;
    if (crew_value_string(error, &reply->message) != CREW_OK) {
        reply->message = crew_str("error");
        reply->data = error;
    }
    return NULL;
}

static void decode_reply(const crew_value *value, crew_wire_reply *reply)
{
    *reply = (crew_wire_reply){ .id_kind = CREW_ID_NULL };
    if (crew_value_type(value) != CREW_TYPE_OBJECT) {
        reply->reason = "a reply is an object";
        return;
    }
    const crew_value *version = crew_value_get(value, "jsonrpc");
    const crew_value *result = crew_value_get(value, "result");
    const crew_value *error = crew_value_get(value, "error");
    const crew_value *id = crew_value_get(value, "id");
    decode_id(id, reply);
    /* Services exist that send both members in 2.0 as well, one of them null. */
    bool has_error = crew_value_type(error) != CREW_TYPE_NULL;
    if (has_error && crew_value_type(result) != CREW_TYPE_NULL)
        reply->reason = "it has both result and error";
    else if (has_error)
        reply->reason = decode_error(error, version != NULL, reply);
    else if (!result)
        reply->reason = "it has neither result nor error";
    else
        reply->result = result;
    reply->valid = !reply->reason;
}

static crew_status decode_replies(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                  crew_wire_replies *replies, crew_error *why)
{
    struct crew_json_notes notes = { 0 };
    const crew_value *value;
    crew_status status = crew_json_read(bytes, NULL, limits, arena, &notes, &value, why);
    if (status != CREW_OK)
        return status;
    bool batch = value->type == CREW_TYPE_ARRAY;
    size_t count = batch ? value->size : 1;
    crew_wire_reply *items = crew_arena_alloc(arena, count * sizeof *items);
    if (!items)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        decode_reply(batch ? &value->items[i] : value, &items[i]);
        if (i < notes.count && notes.items[i].fault != CREW_OK && items[i].valid) {
            items[i].valid = false;
            items[i].reason = notes.items[i].words;
        }
    }
    *replies = (crew_wire_replies){ .items = items, .count = count };
    return CREW_OK;
}

/* Also what HTTP clients are known to send with a JSON body. */
static const char *const content_types[] = { "application/json", "application/json-rpc",
                                             "application/jsonrequest", "application/x-www-form-urlencoded",
                                             NULL };

#define JSONRPC(called, encoder)            \
    {                                       \
        .name = (called),                   \
        .content_type = "application/json", \
        .content_types = content_types,     \
        .batch_open = "[",                  \
        .batch_separator = ",",             \
        .batch_close = "]",                 \
        .base64_bytes = true,               \
        .sniff = sniff,                     \
        .decode_calls = decode_calls,       \
        .encode_result = encode_result,     \
        .encode_error = encode_error,       \
        .encode_call = (encoder),           \
        .decode_replies = decode_replies,   \
    }

const crew_protocol crew_jsonrpc = JSONRPC("jsonrpc", encode_call);
const crew_protocol crew_jsonrpc1 = JSONRPC("jsonrpc1", encode_call_v1);
