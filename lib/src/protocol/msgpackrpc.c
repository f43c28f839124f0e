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

static crew_status decode_call(const crew_value *message, crew_arena *arena, crew_wire_call *call)
{
    int64_t kind = -1;
    *call = (crew_wire_call){ 0 };
    bool known = kind_of(message, &kind) && (kind == REQUEST || kind == NOTIFICATION);
    size_t fields = kind == REQUEST ? 4 : 3;
    const crew_value *msgid = kind == REQUEST ? item_of(message, 1) : NULL;
    const crew_value *method = item_of(message, fields - 2), *params = item_of(message, fields - 1);
    bool good_id =
        msgid && msgid->type == CREW_TYPE_INT && msgid->integer >= 0 && msgid->integer <= UINT32_MAX;
    if (good_id && id_text(msgid, arena, &call->id) != CREW_OK)
        return CREW_NO_MEMORY;
    if (!known || crew_value_count(message) != fields)
        refuse(call, arena, CREW_CODE_INVALID_REQUEST,
               "neither [0, msgid, method, params] nor [2, method, params]");
    else if (kind == REQUEST && !call->id.size)
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, "msgid is no integer from 0 to 2^32 - 1");
    else if (!method_of(method, &call->method))
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, "method is not a string");
    else if (crew_value_type(params) != CREW_TYPE_ARRAY && crew_value_type(params) != CREW_TYPE_OBJECT &&
             crew_value_type(params) != CREW_TYPE_NULL)
        refuse(call, arena, CREW_CODE_INVALID_REQUEST, "params is no array");
    if (call->code)
        return CREW_OK;
    call->one_way = kind == NOTIFICATION;
    call->params = crew_value_type(params) == CREW_TYPE_NULL ? NULL : params;
    return CREW_OK;
}

/* All messages of a body, one behind the other. What is behind one that cannot be read is lost: *status says
 * why. NULL without memory; count is 1 at least, with nothing in it if the first could not be read. */
static const crew_value **read_all(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                   size_t *count, crew_status *status, crew_error *why)
{
    size_t room = 4, at = 0;
    const crew_value **all = crew_arena_alloc(arena, room * sizeof(const crew_value *));
    *count = 0;
    *status = CREW_OK;
    while (all && *status == CREW_OK && (at < bytes.size || !*count)) {
        if (*count == limits->batch) {
            *status = crew_error_set(why, CREW_LIMIT, "more than %u calls in a message", limits->batch);
            break;
        }
        if (*count == room) {
            const crew_value **larger = crew_arena_alloc(arena, 2 * room * sizeof(const crew_value *));
            if (!larger)
                return NULL;
            memcpy(larger, all, room * sizeof(const crew_value *));
            all = larger;
            room *= 2;
        }
        *status = crew_msgpack_read(bytes, &at, limits, arena, &all[*count], why);
        *count += *status == CREW_OK;
    }
    return *status == CREW_NO_MEMORY ? NULL : all;
}

static crew_status decode_calls(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                crew_wire_calls *calls)
{
    size_t count;
    crew_status status;
    crew_error why;
    const crew_value **messages = read_all(bytes, limits, arena, &count, &status, &why);
    bool broken = status != CREW_OK;
    crew_wire_call *items = messages ? crew_arena_zalloc(arena, (count + broken) * sizeof *items) : NULL;
    if (!items)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        if (decode_call(messages[i], arena, &items[i]) != CREW_OK)
            return CREW_NO_MEMORY;
    if (broken)
        refuse(&items[count], arena, status == CREW_LIMIT ? CREW_CODE_INVALID_REQUEST : CREW_CODE_PARSE_ERROR,
               why.message);
    count += broken;
    *calls = (crew_wire_calls){ .items = items, .count = count, .batch = count > 1, .malformed = broken };
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
        crew_msgpack_write_int(code, out);
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

static void decode_reply(const crew_value *message, crew_wire_reply *reply)
{
    int64_t kind, id;
    *reply = (crew_wire_reply){ .id_kind = CREW_ID_NULL };
    if (!kind_of(message, &kind) || kind != RESPONSE || crew_value_count(message) != 4) {
        reply->reason = "a reply is [1, msgid, error, result]";
        return;
    }
    const crew_value *msgid = item_of(message, 1), *error = item_of(message, 2);
    if (crew_value_int(msgid, &id) == CREW_OK && id > 0 && id <= UINT32_MAX) {
        reply->id_kind = CREW_ID_NUMBER;
        reply->id = (uint32_t)id;
    } else if (crew_value_type(msgid) != CREW_TYPE_NULL &&
               !(crew_value_int(msgid, &id) == CREW_OK && id == 0)) {
        reply->id_kind = CREW_ID_FOREIGN;
    }
    if (crew_value_type(error) != CREW_TYPE_NULL)
        decode_error(error, reply);
    else
        reply->result = item_of(message, 3);
    reply->valid = true;
}

static crew_status decode_replies(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                  crew_wire_replies *replies, crew_error *why)
{
    size_t count;
    crew_status status;
    crew_error fault;
    const crew_value **messages = read_all(bytes, limits, arena, &count, &status, &fault);
    crew_wire_reply *items = messages ? crew_arena_alloc(arena, (count + 1) * sizeof *items) : NULL;
    if (!items)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (status != CREW_OK && !count)
        return crew_error_set(why, status, "%s", fault.message);
    for (size_t i = 0; i < count; i++)
        decode_reply(messages[i], &items[i]);
    if (status != CREW_OK) { /* what is behind them and no message costs them nothing */
        crew_string reason = crew_arena_string(arena, crew_str(fault.message));
        items[count++] =
            (crew_wire_reply){ .id_kind = CREW_ID_NULL, .reason = reason.data ? reason.data : "" };
    }
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
    .named_in_array = true,
    .sniff = sniff,
    .decode_calls = decode_calls,
    .encode_result = encode_result,
    .encode_error = encode_error,
    .encode_call = encode_call,
    .decode_replies = decode_replies,
};
