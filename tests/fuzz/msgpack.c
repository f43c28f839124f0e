/* MessagePack: what is read is written, and read again it is written as the same bytes. */
#include "fuzz.h"

#include <rpcrew/json.h>
#include <rpcrew/msgpack.h>

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    const crew_value *value = NULL, *again = NULL;
    crew_bytes first, second, json;
    crew_error why;
    const crew_limits limits = { .message_bytes = 1 << 16, .depth = 64 };
    if (crew_msgpack_decode(fuzz_string(data, size), &limits, &arena, &value, &why) == CREW_OK) {
        REQUIRE(crew_msgpack_encode(value, &first) == CREW_OK);
        REQUIRE(crew_msgpack_decode((crew_string){ first.data, first.size }, NULL, &arena, &again, &why) ==
                CREW_OK);
        REQUIRE(crew_msgpack_encode(again, &second) == CREW_OK);
        REQUIRE(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
        if (crew_json_encode(value, CREW_JSON_COMPACT, &json) == CREW_OK)
            crew_bytes_free(&json);
        crew_bytes_free(&first);
        crew_bytes_free(&second);
    }
    crew_arena_fini(&arena);
    return 0;
}
