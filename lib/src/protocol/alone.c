/* rpcrew/protocol.h: what decoders and encoders do, in the words of users. */
#include <rpcrew/impl/protocol.h>
#include <rpcrew/status.h>

#include <rpcrew/impl/message.h>

struct crew_incoming_more {
    const crew_protocol *protocol;
    crew_wire_calls wire;
};

const char *crew_protocol_content_type(const crew_protocol *protocol)
{
    return protocol->content_type;
}

/* ---- a caller's side ---- */

crew_status crew_write_calls(const crew_protocol *protocol, const crew_outgoing *calls, size_t count,
                             crew_bytes *message)
{
    crew_buffer out = { 0 };
    crew_status status = count ? CREW_OK : CREW_BAD_ARGUMENT;
    if (count > 1)
        crew_buffer_text(&out, protocol->batch_open);
    for (size_t i = 0; i < count && status == CREW_OK; i++) {
        if (i)
            crew_buffer_text(&out, protocol->batch_separator);
        status = protocol->encode_call(crew_str(calls[i].method), calls[i].params, calls[i].id, &out);
    }
    if (count > 1)
        crew_buffer_text(&out, protocol->batch_close);
    return crew_buffer_give(&out, status, message);
}

static crew_incoming_reply reply_of(const crew_wire_reply *wire)
{
    crew_incoming_reply reply = { .status = CREW_BAD_REPLY, .reason = wire->reason };
    if (wire->id_kind == CREW_ID_NUMBER)
        reply.id = wire->id;
    reply.is_about_all = wire->id_kind == CREW_ID_NULL;
    if (!wire->valid)
        return reply;
    reply.status = wire->is_error ? CREW_REMOTE_ERROR : CREW_OK;
    reply.reason = NULL;
    reply.result = wire->result;
    reply.code = wire->code;
    reply.message = wire->message;
    reply.data = wire->data;
    return reply;
}

crew_status crew_read_replies(const crew_protocol *protocol, crew_string bytes, const crew_limits *limits,
                              crew_arena *arena, crew_incoming_replies *replies, crew_error *why)
{
    crew_limits resolved = crew_limits_resolve(limits);
    crew_wire_replies wire = { 0 };
    crew_error ours;
    if (bytes.size > resolved.message_bytes)
        return crew_error_set(why, CREW_LIMIT, "more than %zu bytes", resolved.message_bytes);
    if (!bytes.size)
        return crew_error_set(why, CREW_MALFORMED, "it is empty");
    crew_status status = protocol->decode_replies(bytes, &resolved, arena, &wire, why ? why : &ours);
    if (status != CREW_OK)
        return status;
    crew_incoming_reply *items = crew_arena_alloc(arena, wire.count * sizeof *items);
    if (!items)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    for (size_t i = 0; i < wire.count; i++)
        items[i] = reply_of(&wire.items[i]);
    *replies = (crew_incoming_replies){ items, wire.count };
    return CREW_OK;
}

const crew_incoming_reply *crew_reply_to(const crew_incoming_replies *replies, uint32_t id)
{
    for (size_t i = 0; i < replies->count && id; i++)
        if (replies->items[i].id == id)
            return &replies->items[i];
    bool of_all =
        replies->count == 1 && replies->items[0].is_about_all && replies->items[0].status != CREW_OK;
    return of_all ? &replies->items[0] : NULL;
}

/* ---- a service's side ---- */

crew_status crew_read_calls(const crew_protocol *protocol, crew_string bytes, const crew_limits *limits,
                            crew_arena *arena, crew_incoming_calls *calls)
{
    crew_limits resolved = crew_limits_resolve(limits);
    struct crew_incoming_more *more = crew_arena_zalloc(arena, sizeof *more);
    if (!more)
        return CREW_NO_MEMORY;
    more->protocol = protocol;
    crew_status status = protocol->decode_calls(bytes, &resolved, arena, &more->wire);
    if (status != CREW_OK)
        return status;
    size_t count = more->wire.count;
    crew_incoming_call *items = crew_arena_zalloc(arena, count * sizeof *items);
    if (!items)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const crew_wire_call *wire = &more->wire.items[i];
        items[i] = (crew_incoming_call){ .code = wire->code, .one_way = wire->one_way };
        if (wire->code)
            continue;
        items[i].method = wire->method;
        items[i].params = wire->params;
    }
    *calls = (crew_incoming_calls){ items, count, more->wire.batch, more };
    return CREW_OK;
}

static crew_status write_error(const crew_protocol *protocol, const crew_wire_call *call, int64_t code,
                               const char *message, const crew_value *data, crew_buffer *out)
{
    const char *words = message ? message : crew_code_text(code);
    return protocol->encode_error(call, code, crew_str(words ? words : ""), data, out);
}

static crew_status write_reply(const crew_protocol *protocol, const crew_wire_call *call,
                               const crew_outgoing_reply *reply, crew_buffer *out)
{
    if (call->code)
        return write_error(protocol, call, call->code, NULL, call->data, out);
    crew_status status = reply->code
                             ? write_error(protocol, call, reply->code, reply->message, reply->value, out)
                             : protocol->encode_result(call, reply->value, out);
    if (status == CREW_OK || status == CREW_NO_MEMORY)
        return status;
    return write_error(protocol, call, CREW_CODE_INTERNAL_ERROR, NULL, NULL, out);
}

crew_status crew_write_replies(const crew_incoming_calls *calls, const crew_outgoing_reply *replies,
                               crew_wire_errors errors, crew_bytes *answer)
{
    const crew_protocol *protocol = calls->more->protocol;
    crew_buffer out = { 0 };
    crew_status status = CREW_OK;
    for (size_t i = 0; i < calls->count && status == CREW_OK; i++) {
        static const crew_outgoing_reply nothing = { 0 };
        crew_wire_call call = calls->more->wire.items[i];
        if (call.one_way)
            continue;
        call.errors = errors;
        if (calls->batch)
            crew_buffer_text(&out, out.size ? protocol->batch_separator : protocol->batch_open);
        status = write_reply(protocol, &call, replies ? &replies[i] : &nothing, &out);
    }
    if (calls->batch && out.size)
        crew_buffer_text(&out, protocol->batch_close);
    if (status == CREW_OK && !out.size) {
        *answer = (crew_bytes){ 0 };
        return CREW_OK;
    }
    return crew_buffer_give(&out, status, answer);
}
