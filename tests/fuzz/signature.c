/* A signature in the first line, and the params to be bound to it, as JSON, in the rest. */
#include "fuzz.h"

#include "service/signature.h"
#include "support/colour.h"

#include <rpcrew/json.h>

#include <string.h>

/* Bytes are base64 on one wire, and not on the other. */
static void bind(const struct crew_signature *signature, const crew_value *params, bool base64,
                 crew_arena *arena)
{
    struct crew_arguments arguments;
    const crew_value *why_data = NULL;
    crew_error why;
    crew_type type = crew_value_type(params);
    if (type != CREW_TYPE_ARRAY && type != CREW_TYPE_OBJECT && type != CREW_TYPE_NULL)
        return;
    crew_status status = crew_signature_bind(signature, params, base64, arena, &arguments, &why_data, &why);
    REQUIRE(status == CREW_OK || (status == CREW_MISMATCH && why_data));
    for (size_t i = 0; status == CREW_OK && i < arguments.count && !signature->unchecked; i++) {
        const struct crew_param *param = crew_signature_param(signature, i);
        REQUIRE(param && (arguments.items[i] || param->optional));
        REQUIRE(!param->declared.custom || !arguments.items[i] || arguments.objects[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const crew_custom_type *const types[] = { &colour_type, NULL };
    crew_arena arena = { 0 };
    struct crew_signature signature;
    const crew_value *params = NULL;
    crew_error why;
    const uint8_t *line = memchr(data, '\n', size);
    if (!line)
        return 0;
    size_t length = (size_t)(line - data);
    crew_string text = crew_arena_string(&arena, fuzz_string(data, length));
    if (crew_signature_parse(text.data, types, &arena, &signature, &why) == CREW_OK) {
        (void)!crew_json_decode(fuzz_string(line + 1, size - length - 1), NULL, &arena, &params, &why);
        bind(&signature, params, true, &arena);
        bind(&signature, params, false, &arena);
    }
    crew_arena_fini(&arena);
    return 0;
}
