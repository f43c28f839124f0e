/* Every protocol's decoders, on any bytes; every call can be answered. */
#include "fuzz.h"

#include <rpcrew/impl/protocol.h>

static void answer(const crew_protocol *protocol, const crew_wire_calls *calls)
{
    for (size_t i = 0; i < calls->count; i++) {
        crew_buffer out = { 0 };
        const crew_wire_call *call = &calls->items[i];
        REQUIRE(protocol->encode_error(call, call->code, crew_str("no"), call->data, &out) == CREW_OK);
        REQUIRE(out.size);
        crew_buffer_clear(&out);
        crew_status status = protocol->encode_result(call, call->params, &out);
        REQUIRE((status == CREW_OK) == (out.size > 0));
        crew_buffer_fini(&out);
    }
}

static void decode(const crew_protocol *protocol, crew_string bytes)
{
    crew_arena arena = { 0 };
    const crew_limits small = { .message_bytes = 1 << 16, .depth = 64, .batch = 20 };
    const crew_limits limits = crew_limits_resolve(&small);
    crew_wire_calls calls = { 0 };
    crew_wire_replies replies = { 0 };
    crew_error why;
    REQUIRE(protocol->decode_calls(bytes, &limits, &arena, &calls) == CREW_OK);
    REQUIRE(calls.count >= 1 && calls.count <= 21);
    answer(protocol, &calls);
    if (protocol->decode_replies(bytes, &limits, &arena, &replies, &why) == CREW_OK)
        for (size_t i = 0; i < replies.count; i++)
            REQUIRE(replies.items[i].valid || replies.items[i].reason);
    crew_arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const crew_protocol *protocol;
    for (size_t i = 0; (protocol = crew_protocol_at(i)); i++)
        decode(protocol, fuzz_string(data, size));
    return 0;
}
