/* A whole dispatcher, on any bytes; and if they are JSON params, the same call in both protocols gets the
 * same answer. */
#include "fuzz.h"

#include <rpcrew/dispatcher.h>
#include <rpcrew/impl/protocol.h>
#include <rpcrew/json.h>

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
static crew_dispatcher *dispatcher;

/* Calls a method in a protocol; the reply, in the arena. */
static crew_wire_reply call(const char *name, const char *method, const crew_value *params, crew_arena *arena)
{
    const crew_protocol *protocol = crew_protocol_find(name);
    const crew_limits limits = crew_limits_resolve(NULL);
    crew_buffer request = { 0 };
    crew_bytes answer;
    crew_wire_replies replies;
    crew_error why;
    REQUIRE(protocol->encode_call(crew_str(method), params, 7, &request) == CREW_OK);
    REQUIRE(crew_handle(dispatcher, crew_buffer_string(&request), NULL, &answer) == CREW_OK);
    crew_string kept = crew_arena_string(arena, (crew_string){ answer.data, answer.size });
    REQUIRE(protocol->decode_replies(kept, &limits, arena, &replies, &why) == CREW_OK);
    REQUIRE(replies.count == 1 && replies.items[0].valid && replies.items[0].id == 7);
    crew_buffer_fini(&request);
    crew_bytes_free(&answer);
    return replies.items[0];
}

static void compare(const char *method, const crew_value *params, crew_arena *arena)
{
    crew_wire_reply json = call("jsonrpc", method, params, arena);
    crew_wire_reply msgpack = call("msgpack", method, params, arena);
    /* not the message: it may name a type, and JSON makes an integer of 4.0 */
    REQUIRE(json.is_error == msgpack.is_error && json.code == msgpack.code);
    REQUIRE(fuzz_same(json.result, msgpack.result));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    crew_bytes answer;
    crew_error why;
    const crew_value *params = NULL;
    const crew_limits limits = { .message_bytes = 1 << 16, .depth = 60 };
    if (!dispatcher) {
        REQUIRE(crew_dispatcher_new(&dispatcher) == CREW_OK);
        REQUIRE(crew_dispatcher_add(dispatcher, "", &service, NULL, &why) == CREW_OK);
    }
    if (crew_handle(dispatcher, fuzz_string(data, size), NULL, &answer) == CREW_OK)
        crew_bytes_free(&answer);
    if (crew_json_decode(fuzz_string(data, size), &limits, &arena, &params, &why) == CREW_OK) {
        crew_type type = crew_value_type(params);
        bool map_alone =
            type == CREW_TYPE_ARRAY && crew_value_type(crew_value_at(params, 0)) == CREW_TYPE_OBJECT;
        if (type == CREW_TYPE_ARRAY || type == CREW_TYPE_OBJECT)
            compare("echo", params, &arena);
        if ((type == CREW_TYPE_ARRAY && !map_alone) || type == CREW_TYPE_OBJECT)
            compare("add", params, &arena); /* a map alone is named params in MessagePack-RPC */
    }
    crew_arena_fini(&arena);
    return 0;
}
