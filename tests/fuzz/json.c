/* JSON text: what is read is written, and read again as the same. */
#include "fuzz.h"

#include <rpcrew/json.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    const crew_value *value = NULL, *again = NULL;
    crew_bytes text;
    crew_error why;
    const crew_limits limits = { .message_bytes = 1 << 16, .depth = 64 };
    if (crew_json_decode(fuzz_string(data, size), &limits, &arena, &value, &why) == CREW_OK) {
        REQUIRE(crew_json_encode(value, CREW_JSON_COMPACT, &text) == CREW_OK);
        REQUIRE(crew_json_decode((crew_string){ text.data, text.size }, NULL, &arena, &again, &why) ==
                CREW_OK);
        REQUIRE(fuzz_same(value, again));
        crew_bytes_free(&text);
    }
    crew_arena_fini(&arena);
    return 0;
}
