/* A format in the first line, of 12 letters at most, and a value to be unpacked by it, as JSON, in the rest.
 * Each argument may be written to, and is an empty key as well; a custom type, which t wants, it cannot be.
 */
#include "fuzz.h"

#include <rpcrew/json.h>

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_arena arena = { 0 };
    const crew_value *value = NULL;
    crew_error why;
    _Alignas(16) char a[26][16] = { { 0 } };
    const uint8_t *line = memchr(data, '\n', size);
    size_t length = line ? (size_t)(line - data) : 0;
    if (!line || length > 12 || memchr(data, 't', length))
        return 0;
    crew_string format = crew_arena_string(&arena, fuzz_string(data, length));
    if (crew_json_decode(fuzz_string(line + 1, size - length - 1), NULL, &arena, &value, &why) == CREW_OK)
        (void)!crew_unpack(value, format.data, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9],
                           a[10], a[11], a[12], a[13], a[14], a[15], a[16], a[17], a[18], a[19], a[20], a[21],
                           a[22], a[23], a[24], a[25]);
    crew_arena_fini(&arena);
    return 0;
}
