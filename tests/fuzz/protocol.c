/* Every protocol's decoders, on any bytes; every call can be answered. The first byte chooses the protocol.
 */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    const crew_limits small = { .message_bytes = 1 << 16, .depth = 64, .batch = 20 };
    const crew_limits limits = crew_limits_resolve(&small);
    crew_wire_calls calls = { 0 };
    crew_wire_replies replies = { 0 };
    crew_error why;
    if (!size)
        return 0;
    size_t count = 0;
    while (crew_protocol_at(count))
        count++;
    const crew_protocol *protocol = crew_protocol_at(data[0] % count);
    crew_string bytes = fuzz_string(data + 1, size - 1);
    REQUIRE(protocol->decode_calls(bytes, &limits, &arena, &calls) == CREW_OK);
    REQUIRE(calls.count >= 1 && calls.count <= 21);
    answer(protocol, &calls);
    if (protocol->decode_replies(bytes, &limits, &arena, &replies, &why) == CREW_OK)
        for (size_t i = 0; i < replies.count; i++)
            REQUIRE(replies.items[i].valid || replies.items[i].reason);
    crew_arena_fini(&arena);
    return 0;
}
