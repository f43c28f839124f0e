/* MessagePack-RPC (github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md): [0, msgid, method, params],
 * [1, msgid, error, result], [2, method, params].
 *
 * Errors are [code, message], which is what most peers read; the endpoint may ask for a text alone, or for
 * [code, message, data]. Several messages in one body are several calls, and so are their answers.
 * Named params, which the specification does not know, are a map instead of the array, or its one item. */
#include "core/msgpack.h"
#include "core/utf8.h"
#include "core/value.h"
#include "protocol/protocols.h"

#include <assert.h>

enum { REQUEST, RESPONSE, NOTIFICATION };

/* A message is an array, of whatever length; no JSON text begins with such a byte. */
static bool sniff(crew_string bytes)
{
    unsigned char first = bytes.size ? (unsigned char)bytes.data[0] : 0;
    return (first & 0xf0) == 0x90 || first == 0xdc || first == 0xdd;
}

/* ---- decoding calls ---- */

static void refuse(crew_wire_call *call, crew_arena *arena, int code, const char *reason)
{
    call->code = code;
    call->one_way = false;
    if (crew_pack(arena, &call->data, "{s:s}", "reason", reason) != CREW_OK)
        call->data = NULL; /* which only costs the peer the explanation */
}

/* A field of a message; NULL past its end, and if it is no array. */
static const crew_value *item_of(const crew_value *message, size_t index)
{
    return message->type == CREW_TYPE_ARRAY && index < message->size ? &message->items[index] : NULL;
}

static bool kind_of(const crew_value *message, int64_t *kind)
{
    const crew_value *first = item_of(message, 0);
    if (!first || first->type != CREW_TYPE_INT)
        return false;
    *kind = first->integer;
    return true;
}

/* The id as it goes back. */
static crew_status id_text(const crew_value *id, crew_arena *arena, crew_string *text)
{
    char bytes[CREW_MSGPACK_INT_MOST];
    *text = crew_arena_string(arena, (crew_string){ bytes, crew_msgpack_print_int(id->integer, bytes) });
    return text->data ? CREW_OK : CREW_NO_MEMORY;
}

/* str and bin are both taken: not all peers know the difference. */
static bool method_of(const crew_value *value, crew_string *method)
{
    crew_type type = crew_value_type(value);
    return (type == CREW_TYPE_STRING || type == CREW_TYPE_BYTES) &&
           crew_value_bytes(value, method) == CREW_OK && crew_utf8_valid(*method);
}

/* One message of a body, or what could be read of it. */
struct message {
    const crew_value *value; /* NULL: nothing */
    crew_status status;      /* why the rest could not be read, nor what is behind it */
    const char *words;       /* of status */
    struct crew_msgpack_fault fault;
};

static crew_status decode_call(const struct message *message, crew_arena *arena, crew_wire_call *call)
{
    static const crew_value nothing;
    const crew_value *value = message->value ? message->value : &nothing;
    int64_t kind = -1;
    *call = (crew_wire_call){ .named_in_array = true };
    bool known = kind_of(value, &kind) && (kind == REQUEST || kind == NOTIFICATION);
    size_t fields = kind == REQUEST ? 4 : 3;
    const crew_value *msgid = kind == REQUEST ? item_of(value, 1) : NULL;
    const crew_value *method = item_of(value, fields - 2), *params = item_of(value, fields - 1);
    bool good_id =
        msgid && msgid->type == CREW_TYPE_INT && msgid->integer >= 0 && msgid->integer <= UINT32_MAX;
    if (good_id && id_text(msgid, arena, &call->id) != CREW_OK)
        return CREW_NO_MEMORY;
    const struct crew_msgpack_fault *fault = &message->fault;
    bool in_params = fault->status != CREW_OK && fault->field == fields - 1;
    if (message->status != CREW_OK)
        refuse(call, arena, message->status == CREW_LIMIT ? CREW_CODE_INVALID_REQUEST : CREW_CODE_PARSE_ERROR,
               message->words);
    else if (!known || crew_value_count(value) != fields)
        refuse(call, arena, CREW_CODE_INVALID_REQUEST,
               "neither [0, msgid, method, params] nor [2, method, params]");
    else if (kind == REQUEST && !call->id.size)
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, "msgid is no integer from 0 to 2^32 - 1");
    else if (fault->status != CREW_OK && !in_params)
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, fault->words);
    else if (!method_of(method, &call->method))
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, "method is not a string");
    else if (in_params)
        refuse(call, arena,
               fault->status == CREW_LIMIT ? CREW_CODE_INVALID_REQUEST : CREW_CODE_INVALID_PARAMS,
               fault->words);
    else if (crew_value_type(params) != CREW_TYPE_ARRAY && crew_value_type(params) != CREW_TYPE_OBJECT &&
             crew_value_type(params) != CREW_TYPE_NULL)
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, "params is no array");
    call->is_reply = kind == RESPONSE && crew_value_count(value) == 4;
    call->one_way = kind == NOTIFICATION && (!call->code || (in_params && message->status == CREW_OK));
    if (!call->code)
        call->params = crew_value_type(params) == CREW_TYPE_NULL ? NULL : params;
    return CREW_OK;
}

/* Room for one more; NULL without memory. */
static struct message *add_message(crew_arena *arena, struct message **all, size_t *count)
{
    if ((*count & (*count - 1)) == 0) { /* as many as there is room for */
        size_t room = *count ? 2 * *count : 1;
        struct message *larger = crew_arena_alloc(arena, room * sizeof *larger);
        if (!larger)
            return NULL;
        if (*count)
            memcpy(larger, *all, *count * sizeof *larger);
        *all = larger;
    }
    struct message *added = &(*all)[(*count)++];
    *added = (struct message){ .status = CREW_OK };
    return added;
}

/* All messages of a body, one behind the other, one at least. What is behind one that cannot be read, or that
 * is none, is not looked at. */
static crew_status read_all(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                            struct message **all, size_t *count)
{
    size_t at = 0;
    bool more = true;
    *count = 0;
    while (more) {
        crew_error why;
        bool too_many = *count == limits->batch;
        struct message *m = add_message(arena, all, count);
        if (!m)
            return CREW_NO_MEMORY;
        if (too_many)
            m->status = crew_error_set(&why, CREW_LIMIT, "more than %u calls in a message", limits->batch);
        else
            m->status = crew_msgpack_read(bytes, &at, limits, arena, &m->fault, &m->value, &why);
        if (m->status == CREW_NO_MEMORY)
            return CREW_NO_MEMORY;
        if (m->status != CREW_OK)
            m->words = crew_arena_string(arena, crew_str(why.message)).data;
        if (m->status != CREW_OK && !m->words)
            return CREW_NO_MEMORY;
        assert(m->value || m->status != CREW_OK);
        more = m->status == CREW_OK && m->value->type == CREW_TYPE_ARRAY && at < bytes.size;
    }
    return CREW_OK;
}

static crew_status decode_calls(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                crew_wire_calls *calls)
{
    struct message *messages = NULL;
    size_t count;
    crew_status status = read_all(bytes, limits, arena, &messages, &count);
    crew_wire_call *items = status == CREW_OK ? crew_arena_zalloc(arena, count * sizeof *items) : NULL;
    if (!items)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        if (decode_call(&messages[i], arena, &items[i]) != CREW_OK)
            return CREW_NO_MEMORY;
    *calls = (crew_wire_calls){
        .items = items, .count = count, .batch = count > 1, .malformed = messages[count - 1].status != CREW_OK
    };
    return CREW_OK;
}

/* ---- encoding ---- */

static void begin_reply(const crew_wire_call *call, crew_buffer *out)
{
    crew_msgpack_write_array(4, out);
    crew_msgpack_write_int(RESPONSE, out);
    if (call->id.size)
        crew_buffer_append(out, call->id.data, call->id.size);
    else
        crew_msgpack_write_nil(out);
}

static crew_status encode_result(const crew_wire_call *call, const crew_value *result, crew_buffer *out)
{
    size_t before = out->size;
    begin_reply(call, out);
    crew_msgpack_write_nil(out);
    return crew_encoding_end(out, before, crew_msgpack_write(result, out));
}

static crew_status encode_error(const crew_wire_call *call, int64_t code, crew_string message,
                                const crew_value *data, crew_buffer *out)
{
    size_t before = out->size;
    begin_reply(call, out);
    bool more = data && call->errors == CREW_ERRORS_DATA;
    if (call->errors != CREW_ERRORS_STRING) {
        crew_msgpack_write_array(more ? 3 : 2, out);
        crew_msgpack_write_int(call->errors == CREW_ERRORS_NVIM ? 0 : code, out); /* its own: an exception */
    }
    crew_status status = crew_msgpack_write_string(message, out);
    if (more && status == CREW_OK)
        status = crew_msgpack_write(data, out);
    crew_msgpack_write_nil(out);
    return crew_encoding_end(out, before, status);
}

static crew_status encode_call(crew_string method, const crew_value *params, uint32_t id, crew_buffer *out)
{
    size_t before = out->size;
    crew_type type = crew_value_type(params);
    if (type != CREW_TYPE_NULL && type != CREW_TYPE_ARRAY && type != CREW_TYPE_OBJECT)
        return CREW_BAD_ARGUMENT;
    crew_msgpack_write_array(id ? 4 : 3, out);
    crew_msgpack_write_int(id ? REQUEST : NOTIFICATION, out);
    if (id)
        crew_msgpack_write_int(id, out);
    crew_status status = crew_msgpack_write_string(method, out);
    if (type == CREW_TYPE_NULL)
        crew_msgpack_write_array(0, out);
    else if (status == CREW_OK)
        status = crew_msgpack_write(params, out);
    return crew_encoding_end(out, before, status);
}

/* ---- decoding replies ---- */

/* [code, message] and [code, message, data] are ours; of others' errors all that is not nil is one, and
 * shown. */
static void decode_error(const crew_value *error, crew_wire_reply *reply)
{
    reply->is_error = true;
    if (crew_value_type(error) == CREW_TYPE_ARRAY && crew_value_count(error) >= 2 &&
        crew_value_int(item_of(error, 0), &reply->code) == CREW_OK &&
        crew_value_string(item_of(error, 1), &reply->message) == CREW_OK) {
        reply->data = item_of(error, 2);
        return;
    }
    reply->code = 0;
    if (crew_value_string(error, &reply->message) != CREW_OK) {
        reply->message = crew_str("error");
        reply->data = error;
    }
}

static void decode_reply(const struct message *message, crew_wire_reply *reply)
{
    static const crew_value nothing;
    const crew_value *value = message->value ? message->value : &nothing;
    int64_t kind, id;
    *reply = (crew_wire_reply){ .id_kind = CREW_ID_NULL };
    if (!kind_of(value, &kind) || kind != RESPONSE ||
        (message->status == CREW_OK && crew_value_count(value) != 4)) {
        reply->reason = message->status == CREW_OK ? "a reply is [1, msgid, error, result]" : message->words;
        return;
    }
    const crew_value *msgid = item_of(value, 1), *error = item_of(value, 2);
    if (crew_value_int(msgid, &id) == CREW_OK && id > 0 && id <= UINT32_MAX) {
        reply->id_kind = CREW_ID_NUMBER;
        reply->id = (uint32_t)id;
    } else if (crew_value_type(msgid) != CREW_TYPE_NULL &&
               !(crew_value_int(msgid, &id) == CREW_OK && id == 0)) {
        reply->id_kind = CREW_ID_FOREIGN;
    }
    if (message->status != CREW_OK)
        reply->reason = message->words;
    else if (message->fault.status != CREW_OK)
        reply->reason = message->fault.words;
    else if (crew_value_type(error) != CREW_TYPE_NULL)
        decode_error(error, reply);
    else
        reply->result = item_of(value, 3);
    reply->valid = !reply->reason;
}

static crew_status decode_replies(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                  crew_wire_replies *replies, crew_error *why)
{
    struct message *messages = NULL;
    size_t count;
    crew_status status = read_all(bytes, limits, arena, &messages, &count);
    crew_wire_reply *items = status == CREW_OK ? crew_arena_alloc(arena, count * sizeof *items) : NULL;
    if (!items)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (messages[0].status != CREW_OK && !messages[0].value)
        return crew_error_set(why, messages[0].status, "%s", messages[0].words);
    for (size_t i = 0; i < count; i++) /* what is behind them and no message costs them nothing */
        decode_reply(&messages[i], &items[i]);
    *replies = (crew_wire_replies){ .items = items, .count = count };
    return CREW_OK;
}

static const char *const content_types[] = { "application/msgpack", "application/x-msgpack",
                                             "application/vnd.msgpack", NULL };

const crew_protocol crew_msgpackrpc = {
    .name = "msgpack",
    .content_type = "application/msgpack",
    .content_types = content_types,
    .batch_open = "",
    .batch_separator = "",
    .batch_close = "",
    .sniff = sniff,
    .decode_calls = decode_calls,
    .encode_result = encode_result,
    .encode_error = encode_error,
    .encode_call = encode_call,
    .decode_replies = decode_replies,
};
