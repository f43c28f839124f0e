#include "twins.h"

static crew_status echo(crew_call *call)
{
    return crew_reply_value(call, crew_call_params(call));
}

static crew_status add(crew_call *call)
{
    return crew_reply_double(call, (double)crew_arg_int(call, 0) + crew_arg_double(call, 1));
}

static const crew_method methods[] = {
    { "echo", echo },
    { "add", add, "a:int b:number? c:string..." },
    { 0 },
};
static const crew_service service = { .name = "fuzz", .methods = methods };

const crew_dispatcher *twins_dispatcher(void)
{
    static crew_dispatcher *dispatcher;
    crew_error why;
    if (!dispatcher) {
        REQUIRE(crew_dispatcher_new(&dispatcher) == CREW_OK);
        REQUIRE(crew_dispatcher_add(dispatcher, "", &service, NULL, &why) == CREW_OK);
    }
    return dispatcher;
}

/* Calls a method in a protocol; the reply, in the arena. */
static crew_wire_reply call(twins_answerer *answer, const char *name, const char *method,
                            const crew_value *params, crew_arena *arena)
{
    const crew_protocol *protocol = crew_protocol_find(name);
    const crew_limits limits = crew_limits_resolve(NULL);
    crew_buffer request = { 0 };
    crew_wire_replies replies;
    crew_error why;
    REQUIRE(protocol->encode_call(crew_str(method), params, 7, &request) == CREW_OK);
    crew_bytes got = answer(crew_buffer_string(&request), protocol->content_type);
    crew_string kept = crew_arena_string(arena, (crew_string){ got.data, got.size });
    REQUIRE(protocol->decode_replies(kept, &limits, arena, &replies, &why) == CREW_OK);
    REQUIRE(replies.count == 1 && replies.items[0].valid && replies.items[0].id == 7);
    crew_buffer_fini(&request);
    crew_bytes_free(&got);
    return replies.items[0];
}

static void compare(twins_answerer *answer, const char *method, const crew_value *params, crew_arena *arena)
{
    crew_wire_reply json = call(answer, "jsonrpc", method, params, arena);
    crew_wire_reply msgpack = call(answer, "msgpack", method, params, arena);
    /* not the message: it may name a type, and JSON makes an integer of 4.0 */
    REQUIRE(json.is_error == msgpack.is_error && json.code == msgpack.code);
    REQUIRE(fuzz_same(json.result, msgpack.result));
}

void twins_check(crew_string params, twins_answerer *answer)
{
    crew_arena arena = { 0 };
    crew_error why;
    const crew_value *value = NULL;
    const crew_limits limits = { .message_bytes = 1 << 16, .depth = 60 };
    if (crew_json_decode(params, &limits, &arena, &value, &why) == CREW_OK) {
        crew_type type = crew_value_type(value);
        bool map_alone = type == CREW_TYPE_ARRAY && crew_value_count(value) == 1 &&
                         crew_value_type(crew_value_at(value, 0)) == CREW_TYPE_OBJECT;
        if (type == CREW_TYPE_ARRAY || type == CREW_TYPE_OBJECT) {
            compare(answer, "echo", value, &arena);
            compare(answer, "none", value, &arena);
            compare(answer, "rpc.ping", value, &arena);
        }
        if ((type == CREW_TYPE_ARRAY && !map_alone) || type == CREW_TYPE_OBJECT)
            compare(answer, "add", value, &arena); /* a map alone is named params in MessagePack-RPC */
    }
    crew_arena_fini(&arena);
}
