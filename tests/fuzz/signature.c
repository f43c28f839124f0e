/* A signature in the first line, and the params to be bound to it, as JSON, in the rest. */
#include "fuzz.h"

#include "signature.h"

#include <rpcrew/json.h>

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    struct crew_signature signature;
    struct crew_arguments arguments;
    const crew_value *params = NULL, *why_data = NULL;
    crew_error why;
    const uint8_t *line = memchr(data, '\n', size);
    if (!line)
        return 0;
    size_t length = (size_t)(line - data);
    crew_string text = crew_arena_string(&arena, fuzz_string(data, length));
    if (crew_signature_parse(text.data, NULL, &arena, &signature, &why) == CREW_OK) {
        (void)!crew_json_decode(fuzz_string(line + 1, size - length - 1), NULL, &arena, &params, &why);
        crew_type type = crew_value_type(params);
        if (type == CREW_TYPE_ARRAY || type == CREW_TYPE_OBJECT || type == CREW_TYPE_NULL)
            (void)!crew_signature_bind(&signature, params, true, &arena, &arguments, &why_data, &why);
    }
    crew_arena_fini(&arena);
    return 0;
}
